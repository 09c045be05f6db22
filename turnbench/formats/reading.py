"""Reads a JSON value into a Struct whatever stands in it: a broken value becomes the field's default.

A run directory may come from a crash, another version or another tool; what can be used of it is used, and
what could not is noted. Relies on msgspec alone.
"""

from __future__ import annotations

import types
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

_MOST_NOTES = 20
_NOTHING = object()


def read_leniently(kind: type[T], value: object, notes: list[str], where: str = "") -> T | None:
    """The Struct of a JSON value; None where it is no object, or a field without a default can't be used.

    Adds to `notes` a line for each value that was not used, such as `levels[1].users: Expected int, got str`,
    at most 20 of them.
    """
    if not isinstance(value, dict):
        _note(notes, where, "Expected `object`")
        return None
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in value:
            continue
        path = f"{where}.{field.encode_name}" if where else field.encode_name
        usable = _salvaged(field.type, value[field.encode_name], notes, path)
        if usable is not _NOTHING:
            found[field.name] = usable
    try:
        return kind(**found)
    except TypeError as error:  # a required field is missing
        _note(notes, where, str(error))
        return None


def _salvaged(kind: Any, value: Any, notes: list[str], path: str) -> Any:
    """What can be used of a value, item by item; _NOTHING where that is nothing."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # some JSON writers know no integers
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        why = str(error)
    for option in _options(kind):
        if isinstance(option, type) and issubclass(option, msgspec.Struct) and isinstance(value, dict):
            usable = read_leniently(option, value, notes, path)
            return _NOTHING if usable is None else usable
        item_kind = get_args(option)
        if get_origin(option) is list and isinstance(value, list):
            items = [_salvaged(item_kind[0], v, notes, f"{path}[{n}]") for n, v in enumerate(value)]
            return [item for item in items if item is not _NOTHING]
        if get_origin(option) is dict and isinstance(value, dict):
            entries = {k: _salvaged(item_kind[1], v, notes, f"{path}.{k}") for k, v in value.items()}
            return {key: entry for key, entry in entries.items() if entry is not _NOTHING}
    _note(notes, path, why)
    return _NOTHING


def _options(kind: Any) -> list[Any]:
    """The types of a union, or the type itself; without their constraints."""
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [option for part in get_args(kind) for option in _options(part)]
    return [kind]


def _note(notes: list[str], path: str, why: str) -> None:
    if len(notes) < _MOST_NOTES:
        notes.append(f"{path or 'all of it'}: {why}"[:200])
