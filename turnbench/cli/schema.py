"""`turnbench schema`: the JSON Schema of every file that is written or read, and docs/ pages from the code.

A field's meaning is the docstring under it; its unit is in its name. Both go into the schema and the page, so
neither can say anything else than the code.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from turnbench import exits
from turnbench.cli import reference
from turnbench.command_line import CommandParser
from turnbench.formats import (
    ComparisonFile,
    HealthLine,
    RunManifest,
    ServerFacts,
    Summary,
    SweepManifest,
    TurnRecord,
)


class FileFormat(NamedTuple):
    """One kind of file, and the Struct that it is read and written by."""

    file: str
    struct: type[msgspec.Struct]


FORMATS = {
    "run": FileFormat("run.json", RunManifest),
    "turn": FileFormat("turns-W.jsonl", TurnRecord),
    "health": FileFormat("health-W.jsonl", HealthLine),
    "sweep": FileFormat("sweep.json", SweepManifest),
    "server": FileFormat("PORT.json", ServerFacts),
    "summary": FileFormat("summary.json", Summary),
    "compare": FileFormat("compare.json", ComparisonFile),
}
"""server.jsonl is left to the server: t_ns, and its own metrics under their own names."""

_LIBRARIES = ("builtins", "msgspec", "pydantic")
_UNITS = {
    "_per_s": "1/s", "_ns": "ns", "_us": "µs", "_ms": "ms", "_s": "s", "_mb": "MB", "_share": "share, 0 to 1",
    "_tokens": "tokens", "_at": "ISO 8601, UTC",
}  # fmt: skip


def command_parser(prog: str) -> CommandParser:
    """A format's name, or where the pages go."""
    parser = CommandParser(
        prog=prog,
        description="Print the JSON Schema of one format, or of all; or write the pages made of code.",
        example=f"{prog} turn > turn.schema.json",
    )
    known = ", ".join([*FORMATS, "sweep-plan"])
    parser.add_argument("name", nargs="?", metavar="NAME", choices=(*FORMATS, "sweep-plan"), help=known)
    parser.add_argument("--docs", metavar="DIR", type=Path, help="write the pages that are made of the code")
    parser.add_argument("--check", action="store_true", help="with --docs: exit 1 if a page is out of date")
    return parser


def main(arguments: list[str], prog: str = "turnbench schema") -> int:
    """0; 1 where --check finds a page out of date."""
    given = command_parser(prog).parse_args(arguments)
    if given.docs is not None:
        return _pages(given)
    wanted = [given.name] if given.name else [*FORMATS, "sweep-plan"]
    schemas = {name: schema_of(name) for name in wanted}
    print(json.dumps(schemas[given.name] if given.name else schemas, indent=2, ensure_ascii=False))
    return exits.OK


def _pages(given: argparse.Namespace) -> int:
    code = exits.OK
    for name, page in PAGES.items():
        file, text = given.docs / name, page()
        if not given.check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            print(f"{file} is out of date; write it: turnbench schema --docs {given.docs}", file=sys.stderr)
            code = exits.MISSED
    return code


# --- schema ---


def schema_of(name: str) -> dict[str, Any]:
    """JSON Schema 2020-12 of one format, with the meaning of every field."""
    if name == "sweep-plan":
        from turnbench.sweep.plan import SweepPlan

        schema = SweepPlan.model_json_schema()
        described: dict[str, tuple[type, Any]] = {"SweepPlan": (SweepPlan, schema)}
    else:
        schema = msgspec.json.schema(FORMATS[name].struct)
        structs = {each.__name__: each for each in _structs()}
        described = {key: (structs[key], part) for key, part in schema.get("$defs", {}).items()}
    for kind, part in described.values():
        for field, doc in field_docs(kind).items():
            if field in part.get("properties", {}):
                part["properties"][field]["description"] = doc
    if "CellSummary" in described:
        _spread_values(described["CellSummary"][1])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _spread_values(cell: dict[str, Any]) -> None:
    """In summary.json a cell's distributions stand beside its other fields, one for each metric."""
    from turnbench.metrics import METRICS

    fields: dict[str, Any] = {}
    for field, part in cell["properties"].items():
        if field != "values":
            fields[field] = part
            continue
        for metric in METRICS.values():
            fields[metric.key] = {"$ref": "#/$defs/Distribution", "description": metric.definition}
    cell["properties"] = fields
    cell["required"] = [
        key for field in cell["required"] for key in (METRICS if field == "values" else [field])
    ]


def field_docs(kind: type) -> dict[str, str]:
    """The docstring under each field of a class, its own and inherited ones."""
    found: dict[str, str] = {}
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in _LIBRARIES]
    for each in reversed(own):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(tree, ast.ClassDef)
        for field, after in zip(tree.body, tree.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[field.target.id] = " ".join(str(after.value.value).split())
    return found


def _structs() -> Iterator[type[msgspec.Struct]]:
    kinds = [*msgspec.Struct.__subclasses__()]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        yield kind


# --- pages ---


_FORMATS_HEAD = """\
# File formats

Generated from `turnbench/formats/` by `turnbench schema --docs docs`: change the fields' docstrings there.

Times in fields that end in `_ns` are integer nanoseconds since the Unix epoch. A field that is missing has
its default; readers ignore fields that they do not know.
"""


def formats_page() -> str:
    """docs/formats.md."""
    lines = [_FORMATS_HEAD]
    seen: set[str] = set()
    for name, kind in FORMATS.items():
        schema = schema_of(name)
        lines += [f"## {kind.file}", "", f"JSON Schema: `turnbench schema {name}`.", ""]
        for title, part in _in_order(kind.struct.__name__, schema["$defs"]):
            if title in seen:
                continue
            seen.add(title)
            if title != kind.struct.__name__:
                lines += [f"### {title}", ""]
            if doc := " ".join(part.get("description", "").split()):
                lines += [doc, ""]
            lines += ["| field | type | unit | meaning |", "|---|---|---|---|"]
            for field, value in part["properties"].items():
                meaning = value.get("description", "").replace("|", "\\|")
                lines.append(f"| `{field}` | {_type(value)} | {unit_of(field)} | {meaning} |")
            lines.append("")
    return "\n".join(lines)


def _in_order(first: str, parts: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(first, parts[first]), *((name, part) for name, part in parts.items() if name != first)]


def unit_of(field: str) -> str:
    """A field's unit by the end of its name; empty where it has none."""
    return next((unit for end, unit in _UNITS.items() if f"_{field}".endswith(end)), "")


def _type(value: dict[str, Any]) -> str:
    """A schema's type in a table's cell."""
    if "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    if "anyOf" in value:
        return " or ".join(_type(each) for each in value["anyOf"])
    if "enum" in value:
        return " or ".join(f"`{each}`" for each in value["enum"] if each is not None) + (
            " or null" if None in value["enum"] else ""
        )
    kind = value.get("type")
    if kind == "array":
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"object of {_type(inner)}" if isinstance(inner, dict) and inner else "object"
    return {None: "any"}.get(kind, str(kind))


def _options_page() -> str:
    from loadgen.options._command_line import options_page

    return options_page()


def _metrics_page() -> str:
    from turnbench.metrics import metrics_page

    return metrics_page()


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": reference.commands_page,
    "exits.md": reference.exits_page,
    "findings.md": reference.findings_page,
    "formats.md": formats_page,
    "metrics.md": _metrics_page,
    "options.md": _options_page,
}
"""Pages of docs/ that are made of code."""
