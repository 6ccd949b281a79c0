"""What GET /v1/events gives."""

from __future__ import annotations

from typing import Any

from llcuda_net.server.http.events.asked import MOST_ANSWERS, PARAMETERS
from llcuda_net.server.http.openapi.operations import EVENTS, Operation, query

_ONE = r"[^:,\s]+(:[0-9]+(:[0-9]+)?)?"
_SWITCH: dict[str, Any] = {"enum": ["1", "0", "true", "false"], "default": "0"}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "generations": {
        "type": "string",
        "pattern": f"^({_ONE}(,{_ONE}){{0,{MOST_ANSWERS - 1}}})?$",
    },
    "status": _SWITCH,
    "all": _SWITCH,
}

OPERATIONS = {
    ("GET", "/v1/events"): Operation(
        "generations",
        None,
        contents={
            EVENTS: "server-sent events (HTML standard); data is what has changed since the last "
            "one: runs, ended, deleted, conversations, answers, status"
        },
        errors=(403,),
        parameters=tuple(query(name, PARAMETERS[name], _SCHEMAS[name]) for name in PARAMETERS),
    ),
}
