"""`python -m serve predict FILE.csv`: how long batches take, and what power the GPU draws meanwhile.

A row is one offline batch of equal requests, all sent at once, and each answer has exactly `output_tokens`.
The emulator's own scheduler plays it in virtual time (`serve.batch`). Only the engine's time counts: no HTTP,
no front end. Every row comes out with all its columns; one that cannot be predicted is named by its line, and
its two new columns stay empty.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from serve.batch import BatchWork, play_batch
from serve.catalogue import Catalogue, Gpu, nearest
from serve.efficiency import load_efficiency, unvalidated
from serve.emulator.machines import RooflineMachine
from turnbench import exits
from turnbench.files import open_file
from turnbench.formats.server import Precision

ASKED = ("gpu", "model", "batch", "input_tokens", "output_tokens")
PREDICTED = ("predicted_seconds", "mean_power_w")
MOST_STEPS = 50_000_000
"""Requests times tokens that are played; a minute or so."""


class BadRow(Exception):
    """What is wrong with one row, in words."""


def predict(options: argparse.Namespace, catalogue: Catalogue, say: Callable[[str], None]) -> int:
    """Read the file, write its rows with the predictions; 2 if anything in it could not be predicted."""
    try:
        with open_file(options.file) as file:
            text = file.read().decode("utf-8-sig")
    except OSError as error:
        say(f"{options.file}: {error.strerror}")
        return exits.BAD_CONFIGURATION
    except UnicodeDecodeError:
        say(f"{options.file}: not UTF-8")
        return exits.BAD_CONFIGURATION
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = _numbered(reader)
    try:
        header = [name.strip() for name in next(rows, (0, []))[1]]
        if missing := [name for name in ASKED if name not in header]:
            needed = f"{','.join(ASKED)} are needed, with commas between"
            say(f"{options.file}:1: no column {', '.join(missing)}; {needed}")
            return exits.BAD_CONFIGURATION
        if twice := [name for name in dict.fromkeys(header) if header.count(name) > 1]:
            say(f"{options.file}:1: more than one column {', '.join(twice)}")
            return exits.BAD_CONFIGURATION
        if taken := [name for name in PREDICTED if name in header]:
            say(f"{options.file}:1: {', '.join(taken)} of the file is replaced by what is predicted")
        columns = [*header, *(name for name in PREDICTED if name not in header)]
        predictor, bad, done = _Predictor(catalogue, options.precision), 0, []
        for line, cells in rows:
            row = dict(zip(header, cells, strict=False)) | dict.fromkeys(PREDICTED, "")
            try:
                if len(cells) != len(header):
                    raise BadRow(f"has {len(cells)} cells, and the header {len(header)}")
                row |= predictor.row(row)
            except BadRow as problem:
                bad += 1
                say(f"{options.file}:{line}: {problem}")
            done.append([row.get(name, "") for name in columns])
    except csv.Error as error:
        say(f"{options.file}:{reader.line_num}: not CSV: {error}")
        return exits.BAD_CONFIGURATION
    for warning in unvalidated(predictor.gpus, options.precision):
        say(warning)
    if not done:
        say(f"{options.file}: no rows")
    _write([columns, *done], options.out)
    return exits.BAD_CONFIGURATION if bad else exits.OK


def _numbered(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the line on which it ends."""
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, row  # type: ignore[attr-defined]


def _write(rows: list[list[str]], out: str | None) -> None:
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    with Path(out).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


class _Predictor:
    """Rows to predictions; a batch that comes again is not played again."""

    def __init__(self, catalogue: Catalogue, precision: Precision) -> None:
        self._catalogue = catalogue
        self._precision = precision
        self._played = cache(self._play)
        self.gpus: dict[str, None] = {}
        """Those of which something was predicted, in the order of the rows."""

    def row(self, row: dict[str, str]) -> dict[str, str]:
        """The two predicted columns; raises BadRow."""
        gpu, model = self._gpu(row["gpu"].strip()), row["model"].strip()
        if model not in self._catalogue.models:
            raise BadRow(_unknown("model", model, self._catalogue.models))
        batch, tokens_in, tokens_out = (_count(name, row[name]) for name in ASKED[2:])
        work = self._played(gpu.name, model, batch, tokens_in, tokens_out)
        self.gpus[gpu.name] = None
        efficiency = load_efficiency()
        values = (f"{work.seconds(efficiency.step):.4f}", f"{work.mean_power_w(gpu, efficiency):.1f}")
        return dict(zip(PREDICTED, values, strict=True))

    def _gpu(self, name: str) -> Gpu:
        """By its name in the catalogue, or by the beginning of one, as in `h100` or `RTX 4090`."""
        gpus = self._catalogue.gpus
        if name in gpus:
            return gpus[name]
        short = {_letters(known): known for known in gpus}
        meant = [known for letters, known in short.items() if letters.startswith(_letters(name))]
        if not _letters(name) or not meant:
            raise BadRow(_unknown("gpu", name, gpus))
        if len(meant) > 1:
            raise BadRow(f"gpu {name!r} is {' or '.join(meant)}")
        return gpus[meant[0]]

    def _play(self, gpu: str, model: str, batch: int, tokens_in: int, tokens_out: int) -> BatchWork:
        machine = RooflineMachine(self._catalogue.models[model], self._catalogue.gpus[gpu], self._precision)
        length, most = tokens_in + tokens_out, machine.model.max_positions
        if length > most:
            raise BadRow(f"{length} tokens are more than the {most} of {model}'s context")
        if machine.kv_tokens() < length:
            raise BadRow(
                f"{gpu} holds {max(0, machine.kv_tokens())} tokens of context beside the weights of {model}, "
                f"fewer than the {length} of one request"
            )
        if batch * length > MOST_STEPS:
            raise BadRow(f"{batch} times {length} tokens are too many to play; {MOST_STEPS} at most")
        return play_batch(machine, batch, tokens_in, tokens_out)


def _letters(name: str) -> str:
    return "".join(each for each in name.lower() if each.isalnum())


def _count(name: str, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 10 and int(text) > 0):
        raise BadRow(f"{name} is {text[:40]!r}; write a whole number from 1")
    return int(text)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    hint = f"did you mean {near[0]!r}?" if near else "python -m serve list shows them"
    return f"{what} {name[:60]!r} is not in the catalogue: {hint}"
