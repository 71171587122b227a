"""Answers the few calls that an operator may make to a node. Nothing else is ever executed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ivy import constants, files
from ivy.backend.dialect import Publication, Request
from ivy.utils.functions import procedure_names


def answer(request: Request, status: Callable[[], dict[str, Any]]) -> Publication:
    """Do what a call asks for, if it is one of those below, and word the answer. What stands in it is hostile."""
    result = _result(request, status)
    return Publication(request.answer_topic, json.dumps(result, separators=(",", ":")).encode())


def _result(request: Request, status: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    match request.method:
        case "ping":
            return {"success": True, "result": "pong"}
        case "status":
            return {"success": True, "result": status()}
        case "restart":
            return _restart(request.params)
    return _error('there is no such method; there are "ping", "status" and "restart"')


def _restart(params: Any) -> dict[str, Any]:
    """Leave word for `ivy-restart.service`, which may do what this service may not, and checks the name again."""
    name = params.get("name") if isinstance(params, dict) else params
    known = procedure_names()
    if name not in known:
        return _error(f'"params" must be the name of a procedure, or {{"name": it}}: {", ".join(known)}')
    try:
        files.make_directory(constants.IVY_RUN_DIR)
        Path(f"{constants.RESTART_FLAG}{name}").touch()
    except OSError as error:
        return _error(f"no word could be left for systemd: {error.strerror}")
    return {"success": True, "result": f"{name} is being restarted"}


def _error(text: str) -> dict[str, Any]:
    return {"success": False, "error": text}
