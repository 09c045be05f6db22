"""Locust's web UI: the start form is checked before a run starts, and a password can protect it."""

from __future__ import annotations

import hmac
import logging
import os
from typing import Any

from flask import jsonify, redirect, request, session, url_for
from flask_login import UserMixin, current_user, login_user
from werkzeug.datastructures import ImmutableMultiDict

from loadgen.options import _values as values
from loadgen.options._command_line import OptionErrors
from loadgen.options._prepare import prepare

logger = logging.getLogger(__name__)

_PASSWORD = "TURNBENCH_WEB_PASSWORD"


def check_start_form(web_ui: Any, adapter: Any) -> None:
    """Refuse a start whose options are wrong, in the form itself, before Locust starts anything."""

    @web_ui.app.before_request  # type: ignore[untyped-decorator]
    def check() -> Any:
        if request.method != "POST" or not request.path.endswith("/swarm"):
            return None
        if web_ui.web_login and not current_user.is_authenticated:
            return None  # Locust sends a stranger to the login page; nothing is looked up for one
        if adapter.busy:
            return _refusal(adapter, ["a run is under way or still draining; stop it, wait, and start again"])
        try:
            options = vars(adapter.options) | _typed(request.form.to_dict(), vars(adapter.options))
            options["turnbench_users_given"] = False  # the form always sends a number of people
            options["turnbench_again"] = True
            adapter.prepared = prepare(options)
        except OptionErrors as error:
            return _refusal(adapter, error.problems)
        # Our own clock ends the run: Locust's timer would stop the users before their turns are drained.
        request.form = ImmutableMultiDict({k: v for k, v in request.form.items() if k != "run_time"})
        return None


def _typed(form: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
    """The form's values with the types and names that the command line gives them; raises OptionErrors."""
    typed: dict[str, Any] = {
        key: value == "true" if isinstance(options.get(key), bool) else value for key, value in form.items()
    }
    try:
        if "user_count" in form:
            typed["num_users"] = values.positive_int(form["user_count"])
        if "spawn_rate" in form:
            typed["spawn_rate"] = values.number(0.001, 1e6)(form["spawn_rate"] or "1")
    except ValueError as error:
        raise OptionErrors([f"number of people and spawn rate: {error}"]) from None
    if typed.get("spawn_rate") == 1:
        typed["spawn_rate"] = None  # the form's default: that of the shape of load stands
    if form.get("run_time"):
        typed["turnbench_run_time_s"] = form["run_time"]
    return typed


def _refusal(adapter: Any, problems: list[str]) -> Any:
    for problem in problems:
        logger.error("not started: %s", problem)
    return jsonify({"success": False, "message": "; ".join(problems), "host": adapter.environment.host})


class _Operator(UserMixin):  # type: ignore[misc]
    """The one person who knows the password."""

    id = "operator"


def protect(web_ui: Any, options: Any) -> None:
    """With --web-login: ask for the password of TURNBENCH_WEB_PASSWORD; exit 2 if it is not set."""
    if options.web_host not in ("127.0.0.1", "localhost", "::1") and not options.web_login:
        logger.warning("the web UI is open to the network at %s: use --web-login", options.web_host)
    if not options.web_login:
        return
    password = os.environ.get(_PASSWORD)
    if not password:
        print(f"turnbench: --web-login needs a password in {_PASSWORD}")
        raise SystemExit(2)
    web_ui.login_manager.user_loader(lambda user: _Operator() if user == _Operator.id else None)
    web_ui.app.secret_key = os.urandom(32)
    web_ui.auth_args = {
        "username_password_callback": "/turnbench-login",
    }

    @web_ui.app.route("/turnbench-login", methods=["POST"])  # type: ignore[untyped-decorator]
    def check_password() -> Any:
        if hmac.compare_digest(request.form.get("password", "").encode(), password.encode()):
            login_user(_Operator())
            return redirect(url_for("locust.index"))
        session["auth_error"] = "Wrong password"
        return redirect(url_for("locust.login"))
