"""Every vector, as it is, one byte at a time, and with trailing data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llcuda_protocol import (
    Connection,
    ConnectionClosed,
    ErrorCode,
    Event,
    Invalid,
    LocalProtocolError,
    RemoteProtocolError,
    Role,
)
from llcuda_protocol.kinds import HEADER, PREFACE
from tests.support.protocol.every import every
from tools.protocol_starts import LIMITS, STARTS, begin

FOLDER = Path(__file__).parents[2] / "protocol" / "vectors"
FILES = sorted(set(FOLDER.glob("*.json")) - {FOLDER / "states.json", FOLDER / "profiles.json"})
IN_FILES: dict[str, list[dict[str, Any]]] = {
    path.stem: json.loads(path.read_text())["vectors"] for path in FILES
}
STATES = json.loads((FOLDER / "states.json").read_text())["states"]
PROFILES = json.loads((FOLDER / "profiles.json").read_text())["profiles"]
#: The greatest integer that every language's numbers hold.
_EXACT = (1 << 53) - 1
VECTORS = [vector for vectors in IN_FILES.values() for vector in vectors]
BY_FILE = pytest.mark.parametrize("file", IN_FILES)
Outcome = tuple[list[Any], str | None]


def plain(value: Any) -> Any:
    """A value as vectors write it."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if type(value) is int and abs(value) > _EXACT:
        return {"integer": str(value)}
    return value


def describe(event: Event) -> dict[str, Any]:
    if isinstance(event, ConnectionClosed):
        return {"kind": "connection_closed"}
    if isinstance(event, Invalid):  # its message is for people
        return {
            "kind": "invalid",
            "stream": event.stream,
            "request": event.request.name.lower(),
            "code": "invalid_request",
        }
    fields: dict[str, Any] = plain(dataclasses.asdict(event))
    return {"kind": event.KIND.name.lower(), **fields}


def drain(connection: Connection) -> Outcome:
    events: list[Any] = []
    try:
        while (event := connection.next_event()) is not None:
            events.append(describe(event))
            if isinstance(event, ConnectionClosed):
                break
    except RemoteProtocolError as error:
        return events, error.code
    return events, None


def start(vector: dict[str, Any]) -> Connection:
    return begin(Role(vector["role"]), vector["state"])


def expected(vector: dict[str, Any]) -> Outcome:
    return vector.get("events", []), vector.get("error")


def run(vector: dict[str, Any], feed: Callable[[Connection, bytes], Outcome]) -> None:
    connection = start(vector)
    data = bytes.fromhex(vector["hex"])
    events, error = feed(connection, data)
    if vector.get("end") and error is None:
        connection.receive_data(b"")
        more, error = drain(connection)
        events += more
    assert (events, error) == expected(vector)


def whole(connection: Connection, data: bytes) -> Outcome:
    if data:
        connection.receive_data(data)
    return drain(connection)


def byte_by_byte(connection: Connection, data: bytes) -> Outcome:
    events: list[Any] = []
    for i in range(len(data)):
        connection.receive_data(data[i : i + 1])
        assert connection.buffered <= HEADER + connection.limits.max_frame
        more, error = drain(connection)
        events += more
        if error is not None:
            return events, error
    return events, None


def named(file: str) -> list[tuple[str, dict[str, Any]]]:
    return [(vector["name"], vector) for vector in IN_FILES[file]]


@BY_FILE
def test_whole(file: str) -> None:
    every(named(file), lambda vector: run(vector, whole))


@BY_FILE
def test_byte_by_byte(file: str) -> None:
    every(named(file), lambda vector: run(vector, byte_by_byte))


@BY_FILE
def test_with_trailing_data(file: str) -> None:
    every(named(file), with_trailing_data)


def with_trailing_data(vector: dict[str, Any]) -> None:
    connection = start(vector)
    data = bytes.fromhex(vector["hex"])
    events, error = expected(vector)
    if vector.get("end"):
        # Nothing can follow the end: more is the caller's mistake, and changes nothing.
        connection.receive_data(data)
        connection.receive_data(b"")
        with pytest.raises(LocalProtocolError):
            connection.receive_data(b"\0")
        assert drain(connection) == (events, error)
    elif error is not None:
        assert whole(connection, data + b"\xc1" * 50) == (events, error)
        assert connection.buffered == 0
    else:
        incomplete = start(vector)
        whole(incomplete, data)
        if incomplete.buffered:
            return  # what follows would be the rest of it
        assert whole(connection, data + b"\0\0") == (events, None)


def test_format() -> None:
    names = [vector["name"] for vector in VECTORS]
    assert len(names) == len(set(names)) >= 60
    for vector in VECTORS:
        assert vector["role"] in list(Role)
        assert vector["state"] in STARTS
        assert vector["meaning"]
        assert ("error" in vector) or ("events" in vector) or vector["meaning"].endswith("yet.")
        assert set(vector) <= {
            *("name", "role", "state", "hex", "meaning", "events", "error", "end", "strict"),
        }
        assert vector.get("strict", True) is True
        assert vector.get("end", True) is True


def test_strict_vectors_are_wrong_in_a_value() -> None:
    """What a lenient decoder hides is an error; what is only valid needs no strictness."""
    strict = [vector for vector in VECTORS if "strict" in vector]
    assert len(strict) > 30
    for vector in strict:
        kinds = {event["kind"] for event in vector.get("events", [])}
        assert vector.get("error") == "malformed_frame" or kinds == {"invalid"}


def test_numbers_are_exact_in_every_language() -> None:
    def exact(value: Any) -> None:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for entry in value:
                exact(entry)
        elif type(value) is int:
            assert abs(value) <= _EXACT

    every(((v["name"], v.get("events", [])) for v in VECTORS), exact)


def test_states_are_those_of_the_code() -> None:
    """A program in another language reaches each state by playing what the file says."""
    assert STATES.keys() == STARTS.keys()
    every(((name, name) for name in STATES), played_to)


def played_to(name: str) -> None:
    frames: list[dict[str, str]] = []
    after: str | None = name
    while after is not None:
        frames = STATES[after]["frames"] + frames
        after = STATES[after]["after"]
    ends = {role: Connection(role, LIMITS) for role in Role}
    for role in Role:
        if any(frame["by"] == role for frame in frames):
            ends[Role.SERVER if role is Role.CLIENT else Role.CLIENT].receive_data(PREFACE)
    sent = iter(STARTS[name])
    for frame in frames:
        role = Role(frame["by"])
        receiver = ends[Role.SERVER if role is Role.CLIENT else Role.CLIENT]
        data = bytes.fromhex(frame["hex"])
        receiver.receive_data(data)
        event = receiver.next_event()
        assert (role, event) == next(sent)
        assert event is not None
        assert not isinstance(event, ConnectionClosed | Invalid)
        assert ends[role].send(event).removeprefix(PREFACE) == data
    assert {role: ends[role].state for role in Role} == STATES[name]["connection"]
    for end in ends.values():
        found = [
            {
                "stream": number,
                "state": stream.state,
                "credit": stream.credit,
                "next": stream.sequence,
            }
            for number, stream in end._streams.items()
        ]
        assert found == STATES[name]["streams"]


def test_profiles_name_vectors() -> None:
    """The core profile: seven kinds, and what a client that knows only them sends and reads."""
    by_name = {vector["name"]: vector for vector in VECTORS}
    core = PROFILES["core"]
    assert len(core["kinds"]) == 7
    for name in core["vectors"]:
        kinds = {event["kind"] for event in by_name[name].get("events", [])}
        assert kinds <= {*core["kinds"]}
        assert "strict" not in by_name[name]
    assert {by_name[name]["role"] for name in core["vectors"]} == set(Role)


def test_parts_of_a_list_come_in_order() -> None:
    """Hits are nearest first, and each part says how many were before it (section 9.20)."""
    for vector in VECTORS:
        for kind, entries in (("hits", "hits"), ("listing", "entries")):
            parts = [e for e in vector.get("events", []) if e["kind"] == kind and e["stream"] == 1]
            if vector["state"] not in ("searching", "listing") or len(parts) < 2:
                continue
            count = 1  # the state has sent one
            for part in parts:
                assert part["first"] == count, vector["name"]
                count += len(part[entries])
            scores = [entry.get("score", 0) for part in parts for entry in part[entries]]
            assert scores == sorted(scores, reverse=True), vector["name"]


def test_good_and_bad() -> None:
    codes = {vector.get("error") for vector in VECTORS}
    # Codes of a request, and the two that need a clock or a socket, cannot come from bytes.
    by_bytes = list(ErrorCode)[: list(ErrorCode).index(ErrorCode.INVALID_REQUEST)]
    beyond = {ErrorCode.UNAUTHORIZED, ErrorCode.HANDSHAKE_TIMEOUT, ErrorCode.TOO_MANY_CONNECTIONS}
    assert codes == {None, *(set(by_bytes) - beyond)}


def test_each_file_says_what_it_is() -> None:
    assert {path.name for path in FILES} >= {"handshake.json", "malformed.json", "fuzz.json"}
    for path in FILES:
        assert json.loads(path.read_text())["about"]
