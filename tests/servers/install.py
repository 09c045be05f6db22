"""Installs what `make test-servers` needs beside vLLM: `python -m tests.servers.install`.

Each Python server has an environment of its own at the top of the checkout, the programs come from Debian.
What can't be installed is named, with the last line of what its installer said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = {
    ".venv-litellm": ("litellm[proxy]==1.108.7",),
    ".venv-llama-cpp": ("llama-cpp-python[server]==0.3.36", "gguf==0.19.0"),
}
PROGRAMS = {"nginx": "nginx-light", "haproxy": "haproxy", "tinyproxy": "tinyproxy-bin"}
"""A program, and Debian's package of it."""
QUIET = {
    "CMAKE_BUILD_PARALLEL_LEVEL": "2",  # llama.cpp is compiled
    "DEBIAN_FRONTEND": "noninteractive",
    "RUNLEVEL": "1",  # Debian would start each as a service
}


def python_of(name: str) -> Path:
    """The interpreter of one of the environments."""
    return ROOT / name / "bin" / "python"


def install() -> list[str]:
    """What could not be installed, a line each."""
    failed = []
    for name, packages in ENVIRONMENTS.items():
        mark, wanted = ROOT / name / "installed", "\n".join(packages)
        if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
            continue
        print(f"installing {' and '.join(packages)} in {name}: once, minutes", flush=True)
        venv.create(ROOT / name, symlinks=True, with_pip=True)
        if problem := _fails([str(python_of(name)), "-m", "pip", "install", "--quiet", *packages]):
            failed.append(f"{name}: {problem}")
        else:
            mark.write_text(wanted, encoding="utf-8")
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        print(f"installing {' '.join(missing)} with apt-get", flush=True)
        get = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *missing]
        if problem := _fails(["apt-get", "update", "--quiet"]) or _fails(get):
            failed.append(f"{' '.join(missing)}: {problem}")
    return failed


def _fails(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | QUIET,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:  # a system without apt-get
        return f"{command[0]}: {error.strerror}"
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return None if done.returncode == 0 else (said[-1][:300] if said else f"exit {done.returncode}")


def main() -> int:
    failed = install()
    for line in failed:
        print(f"test-servers: could not install {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
