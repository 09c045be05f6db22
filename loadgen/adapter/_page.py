"""What of Locust's page is turnbench's: the tab Conversations, the choices of the start form, and what is
hidden since it would mix tasks.

Locust's page is a program of its own, so ours is added beside it: the files in `page/`, and what they ask.
The tab is one that Locust has a place for (`extended_tabs`); its content is drawn by `page/conversations.js`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from flask import Blueprint, Response, jsonify, request, send_from_directory

from loadgen.dialects import DIALECTS
from loadgen.options._command_line import OptionErrors, settings_from
from loadgen.options._prepare import served_models
from scenarios import load, names

logger = logging.getLogger(__name__)

_FILES = Path(__file__).with_name("page")
_FIRST_TAB = (
    "<head><script>if (!new URL(location).searchParams.has('tab')) "
    "history.replaceState(null, '', '?tab=conversations')</script>"
)
"""Before Locust's own script looks which tab it should open."""
_HEAD_END = (
    '<link rel="stylesheet" href="./turnbench/page.css">'
    '<script type="module" src="./turnbench/start-form.js"></script>'
    '<script type="module" src="./turnbench/conversations.js"></script></head>'
)


def add_to_page(web_ui: Any, adapter: Any) -> None:
    """Add the tab, the choices, and the addresses that they ask."""
    web_ui.template_args["extended_tabs"] = [{"title": "Conversations", "key": "conversations"}]
    ours = Blueprint("turnbench", __name__, url_prefix=f"{adapter.options.web_base_path or ''}/turnbench")

    def route(path: str, work: Callable[..., Any], *methods: str) -> None:
        ours.add_url_rule(path, path, web_ui.auth_required_if_enabled(work), methods=[*methods] or ["GET"])

    route("/live", lambda: _as_json(adapter.look()))
    route("/choices", _choices)
    route("/models", lambda: _models(adapter))
    route("/report", lambda: _report(adapter))
    route("/end-after-level", lambda: jsonify({"accepted": adapter.end_after_level()}), "POST")
    ours.add_url_rule("/<name>", "file", lambda name: send_from_directory(_FILES, name))
    web_ui.app.register_blueprint(ours)

    @web_ui.app.after_request  # type: ignore[untyped-decorator]
    def change(response: Response) -> Response:
        if response.status_code != 200 or response.direct_passthrough:
            return response
        if response.mimetype == "text/html" and 'id="root"' in (page := response.get_data(as_text=True)):
            response.set_data(page.replace("<head>", _FIRST_TAB, 1).replace("</head>", _HEAD_END, 1))
        elif request.path.endswith("/stats/requests"):
            response.set_data(_without_mixed_times(response.get_data()))
        return response


def _without_mixed_times(body: bytes) -> str:
    """Locust's numbers for its table without the row `Aggregated`, whose times are of all tasks together."""
    report = json.loads(body)
    report["stats"] = [row for row in report["stats"] if row["name"] != "Aggregated"]
    return json.dumps(report)


def _as_json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), mimetype="application/json")


def _choices() -> Response:
    """Scenarios and dialects for the start form, each with a sentence."""
    dialects = {"auto": "by the path of the host, else chat"}
    dialects |= {name: f"asks {each.path}" for name, each in DIALECTS.items()}
    return jsonify({"scenarios": _scenarios(), "dialects": dialects})


@cache
def _scenarios() -> list[dict[str, Any]]:
    found = []
    for name in names():
        scenario = load(name)
        tasks = sorted(scenario.tasks)
        found.append({"name": name, "tasks": tasks, "size": scenario.size, "what": scenario.description})
    return found


def _models(adapter: Any) -> Response:
    """The models that a host lists, or why nobody knows."""
    try:
        settings = settings_from(vars(adapter.options) | {"host": request.args.get("host", "")})
        return jsonify({"models": served_models(settings)})
    except OptionErrors as error:
        return jsonify({"models": [], "problem": error.problems[0]})


def _report(adapter: Any) -> Response | tuple[str, int]:
    """The report of the newest run that has one."""
    path = adapter.last_report
    if path is None or not path.is_file():
        return "there is no report yet: stop the run and wait for its analysis", 404
    return send_from_directory(path.parent.resolve(), path.name)
