"""What is left of a run when something is killed? SIGKILL at random moments, set beside the server's log.

    python -m benchmarks.crashes [engine worker master locust server] [--kills 10] [--seed 1]

Six people with turns of 0.7 s; each kill comes up to 5 s after the run directory is there. A row is a kill:

    open      turns that the server was answering at that moment, by its truth log (its own die with it)
    recorded  turns that had reached the server by then: those with a record, and all
    missing   turns that the server had finished and nobody recorded; the age of the oldest at the kill
    lost      turns counted as lost or as finished without a record, by `python -m analysis`
    off       turns that the server saw, to the run's last, and that are neither recorded nor counted as lost;
              -1: one was counted, just before its request was sent, and never left
    end       seconds until every process of the run is gone

Exit 1 if a directory cannot be analysed, if a turn older than a second is missing, if the counts are off by
more turns than began in the last half second, or if something is still there after 30 s.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from turnbench.formats.turn import decode

VICTIMS = ("engine", "worker", "master", "locust", "server")
PEOPLE = 6
LATEST_S = 5.0
GONE_WITHIN_S = 30.0
KEPT_WITHIN_S = 1.0
"""The promise: a turn that is older than this at the kill is on disk."""
JUST_NS = 500_000_000


@dataclass
class Kill:
    """What one kill did."""

    victim: str
    at_s: float
    seen: int
    open: int
    recorded: int
    missing: int
    oldest_s: float
    lost: int
    off: int
    just_begun: int
    end_s: float
    left: int
    exit_code: int | None
    verdict: str

    def row(self) -> str:
        exit_code = "killed" if self.exit_code == -signal.SIGKILL else self.exit_code
        return (
            f"{self.victim:<8}{self.at_s:>6.2f} s {self.open:>6} {self.recorded:>6}/{self.seen:<5}"
            f"{self.missing:>5} {self.oldest_s:>5.2f} s {self.lost:>5} {self.off:>4} {self.end_s:>6.1f} s "
            f"{self.left:>5}  {exit_code!s:<7}{self.verdict}"
        )

    def wrong(self) -> bool:
        late = self.missing > 0 and self.oldest_s > KEPT_WITHIN_S
        off = not -1 <= self.off <= self.just_begun
        return late or off or self.left > 0 or self.verdict == "unreadable"


HEAD = "victim    moment   open  recorded  missing oldest   lost  off      end  left  exit   verdict"


class Server:
    """An emulator with a truth log."""

    def __init__(self, folder: Path) -> None:
        self.truth = folder / "truth.jsonl"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serve.emulator", "--schedule", "fixed", "--port", "0"]
            + ["--ttft", "100ms", "--itl", "20ms", "--tokens", "30", "--truth", str(self.truth)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("ready: ").strip()

    def entries(self, run: str) -> dict[str, dict[str, Any]]:
        """The requests of a run, by their ids."""
        lines = self.truth.read_bytes().splitlines() if self.truth.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith(b"}")]
        return {each["request_id"]: each for each in entries if each["request_id"].startswith(f"{run}/")}

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def victims(name: str, server: Server, load: subprocess.Popen[bytes]) -> list[int]:
    """The processes that may be the one to kill."""
    if name == "server":
        return [server.process.pid]
    if name in ("master", "locust"):
        return [load.pid]
    found = []
    for each in family(load)[1:]:
        try:
            is_engine = "loadgen.engine" in each.cmdline()
            is_worker = each.ppid() == load.pid and "locust" in each.cmdline()
        except psutil.NoSuchProcess:
            continue
        if is_engine if name == "engine" else is_worker:
            found.append(each.pid)
    return found


def kill_one(name: str, server: Server, folder: Path, draw: random.Random) -> Kill:
    """One run, one kill, and what is left."""
    where = folder / f"run-{draw.randrange(10**9)}"
    command = [sys.executable, "-m", "locust", "-f", "loadgen/", "--headless", "-H", server.url]
    command += ["--scenario", "choose", "--levels", str(PEOPLE), "--exact-tokens", "--max-tokens", "30"]
    command += ["--warmup", "500ms", "--drain", "3s", "--run-dir", str(where), "--no-analysis"]
    command += ["--hold", "4s" if name == "server" else "300s"]
    command += ["--processes", "2"] if name in ("worker", "master") else []
    load = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not (where / "run.json").exists():
        if load.poll() is not None:
            raise SystemExit(f"the run did not start (exit code {load.returncode})")
        time.sleep(0.02)
    at_s = draw.uniform(0.0, LATEST_S)
    time.sleep(at_s)
    while not (possible := victims(name, server, load)):
        time.sleep(0.02)
    processes = family(load)
    psutil.Process(draw.choice(possible)).kill()
    killed_ns, killed = time.time_ns(), time.monotonic()
    while any(map(lives, processes)) and time.monotonic() - killed < GONE_WITHIN_S:
        load.poll()
        time.sleep(0.05)
        processes += [each for each in family(load) if each not in processes]
    end_s = time.monotonic() - killed
    left = [each for each in processes if lives(each)]
    for each in left:
        each.kill()
    code = load.wait()
    time.sleep(0.3)  # for the server to notice who has gone
    return _counted(name, server, where, at_s, killed_ns, end_s, len(left), code)


def _counted(
    name: str, server: Server, where: Path, at_s: float, killed_ns: int, end_s: float, left: int, code: int
) -> Kill:
    """The directory beside the server's log."""
    asked = server.entries(where.name)  # engines whose master is killed go on until they hear of it
    recorded = set()
    for path in where.glob("turns-*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                turn = decode(line)
                recorded.add(f"{turn.run}/{turn.conversation}/{turn.turn}/{turn.attempt}")
    seen = {key: each for key, each in asked.items() if each["received_ns"] <= killed_ns}
    ended_ns = {key: each["end_ns"] for key, each in seen.items() if not each["aborted"] and each["end_ns"]}
    ended = {key: ns for key, ns in ended_ns.items() if ns <= killed_ns}
    ages_s = [(killed_ns - ns) / 1e9 for key, ns in ended.items() if key not in recorded]
    done = subprocess.run(
        [sys.executable, "-m", "analysis", str(where)], capture_output=True, text=True, check=False
    )
    verdict, lost = "unreadable", 0
    if (where / "summary.json").exists() and "Traceback" not in done.stderr:
        summary = json.loads((where / "summary.json").read_bytes())
        ledger = summary["ledger"]
        verdict, lost = summary["verdict"]["status"], ledger["lost"] + ledger["missing"]
    of_server = name == "server"  # what it was answering is not in its log: the records count those
    return Kill(
        victim=name,
        at_s=at_s,
        seen=len(seen),
        open=len(set(seen) - set(ended)),
        recorded=len(recorded & set(seen)),
        missing=len(ages_s),
        oldest_s=max(ages_s, default=0.0),
        lost=lost,
        off=lost if of_server else len(set(asked) - recorded) - lost,
        just_begun=sum(killed_ns - each["received_ns"] < JUST_NS for each in seen.values()),
        end_s=end_s,
        left=left,
        exit_code=code,
        verdict=verdict,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("victims", nargs="*", metavar="VICTIM", help="who is killed (all)")
    parser.add_argument("--kills", type=int, default=10, help="of each (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (1)")
    options = parser.parse_args()
    if unknown := set(options.victims) - set(VICTIMS):
        parser.error(f"no such victim: {', '.join(sorted(unknown))}; {', '.join(VICTIMS)}")
    wrong = 0
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as name:
        for victim in options.victims or VICTIMS:
            draw = random.Random(f"{options.seed}{victim}")
            server = Server(Path(name))
            try:
                for _ in range(options.kills):
                    if server.process.poll() is not None:
                        server.stop()
                        server = Server(Path(name))
                    kill = kill_one(victim, server, Path(name), draw)
                    wrong += kill.wrong()
                    print(kill.row() + ("   WRONG" if kill.wrong() else ""), flush=True)
            finally:
                server.stop()
    print(f"{wrong} kills ended badly" if wrong else "every kill ended well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
