"""SPEC.md says what the code does: its tables, diagrams and worked example are compared with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from llcuda_protocol import Connection, ErrorCode, Kind, Role, events, kinds, schema
from llcuda_protocol import frames as wire
from llcuda_protocol.frames import ON_CONNECTION
from llcuda_protocol.kinds import PREFACE, SENT_BY
from llcuda_protocol.states import CONNECTION_TABLE, diagram
from llcuda_protocol.values import chat
from tests.support.protocol.every import every
from tools.protocol_starts import STARTS

PROTOCOL = Path(__file__).parents[2] / "protocol"
SPEC = (PROTOCOL / "SPEC.md").read_text()
GUIDE = (PROTOCOL / "vectors" / "README.md").read_text()
#: The events by the name of their kind, where they carry a map.
COLD = {
    event.KIND.name.lower(): event.FIELDS
    for event in (getattr(events, name) for name in events.__all__)
    if hasattr(event, "FIELDS")
}


def section(title: str) -> str:
    """The text under a heading that begins with the title, up to the next heading."""
    found = re.search(rf"^#+ {title}.*?$(.*?)(?=^#+ |\Z)", outside_code(), re.M | re.S)
    assert found, title
    return found[1]


def outside_code() -> str:
    """SPEC.md with comments in code blocks, which look like headings, indented."""
    parts = SPEC.split("```")
    parts[1::2] = [part.replace("\n#", "\n #") for part in parts[1::2]]
    return "```".join(parts)


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the tables whose first heading is this, without the headings."""
    found: list[list[str]] = []
    inside: bool | None = None  # outside every table
    for line in text.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|"):
            inside = None
        elif inside is None:
            inside = cells[0] == first
        elif inside and not line.startswith("|---"):
            found.append(cells)
    return found


def blocks(text: str) -> list[str]:
    return re.findall(r"```\n(.*?)\n```", text, re.S)


#: Replies to requests that a client of text alone does not make.
NOT_ASKED_FOR = {
    *(Kind.VECTORS, Kind.REPORT, Kind.HITS, Kind.LISTING),
    *(Kind.CHANNEL, Kind.DELETED, Kind.FACTS),
}
#: The blocks of section 17: a connection, two of a generation that is resumed, one of a splice.
EXAMPLES = blocks(section("17. A connection in hex"))


def heading(name: str) -> str:
    return next(line for line in SPEC.splitlines() if re.match(rf"### .*\b{name} \(\d+\)", line))


def test_kinds() -> None:
    expected = []
    for kind in Kind:
        senders = [role for role in Role if kind in SENT_BY[role]]
        stream = "0" if kind in ON_CONNECTION else "1 and up"
        if kind is Kind.ERROR:
            stream = "0; from a server also 1 and up"
        who = senders[0] if len(senders) == 1 else "both"
        expected.append([str(int(kind)), kind.name.lower(), who, stream])
    assert [row[:4] for row in rows(section("3. Frames"), "kind")] == expected


def test_every_kind_has_a_section() -> None:
    sections = {row[1]: row[5] for row in rows(section("3. Frames"), "kind")}
    for kind in Kind:
        name = kind.name.lower()
        assert f"({int(kind)})" in heading(name)
        assert heading(name).split()[1] == sections[name]


def test_the_core_profile() -> None:
    """It names the kinds that the file lists, and those that a client of it skips."""
    core = json.loads((PROTOCOL / "vectors" / "profiles.json").read_text())["profiles"]["core"]
    text = " ".join(section("19. The core profile").split())
    for name in core["kinds"]:
        assert re.search(rf"\b{name}\b", text), name
    skipped = {int(n) for n in re.findall(r"\((\d+)\)", text.split("skip ")[1].split(":")[0])}
    for name in ("queue", "go_away", "pong", "durable", "splice"):
        assert Kind[name.upper()] in skipped
    unasked = {Kind.PING, *NOT_ASKED_FOR}
    read = {Kind[name.upper()] for name in core["kinds"]} & SENT_BY[Role.SERVER]
    assert read | skipped | unasked == SENT_BY[Role.SERVER]


def test_fields() -> None:
    every(((name, name) for name in COLD), fields_are_those_of_the_code)


def fields_are_those_of_the_code(name: str) -> None:
    title = heading(name)
    text = section(re.escape(title.lstrip("# ")))
    found = {row[0]: row[1:3] for row in rows(text, "key") if len(row) == 4}
    assert found == {
        key: [field.check.says, "yes" if field.required else "no"]
        for key, field in COLD[name].items()
    }


def test_positional_fields() -> None:
    id_says, first = wire._TOKEN_ID.says, wire._FIRST.says

    def types(title: str) -> list[list[str]]:
        return [row[:2] for row in rows(section(title), "element")]

    assert types("9.8 credit") == [["add", wire._ADD.says]]
    assert types("9.9 ping") == [["payload", wire._PAYLOAD.says]]
    assert types("9.25 upload") == [["data", wire._PIECE.says], ["more", schema.boolean.says]]
    assert types("9.13 durable") == [["count", first]]
    assert types("9.18 vectors") == [["first", first], ["vectors", wire._VECTOR_LIST.says]]
    tokens = types("9.12 tokens")
    assert tokens[0] == ["first", first]
    assert tokens[3] == ["ids", f"list of: {id_says}, or nil"]
    assert tokens[5:] == [
        ["id", id_says],
        ["bytes", wire._TOKEN_BYTES.says],
        ["logprob", f"{wire._LOGPROB.says}, or nil"],
    ]


def test_messages_and_options() -> None:
    messages, options = section("Messages"), section("Options of a chat")

    def told(fields: Mapping[str, schema.Field]) -> dict[str, list[str]]:
        return {k: [f.check.says, "yes" if f.required else "no"] for k, f in fields.items()}

    def found(text: str, first: str) -> dict[str, list[str]]:
        return {row[0]: row[1:3] for row in rows(text, first)}

    assert found(messages, "in a message") == told(chat.MESSAGE_FIELDS)
    assert found(options, "in a function") == told(chat.FUNCTION_FIELDS)
    assert {row[0]: row[1] for row in rows(options, "an option")} == {
        key: field.check.says for key, field in chat.CHAT_FIELDS.items()
    }
    parts = {row[0]: row[1] for row in rows(messages, "a part of type")}
    assert set(parts) == set(chat.PART_FIELDS)
    for name, text in parts.items():
        for key in set(chat.PART_FIELDS[name]) - {"type"}:
            assert f"{key}`" in text


def test_limits() -> None:
    found = {row[0]: int(row[1]) for row in rows(section("15. Limits"), "name")}
    code = {
        name: value
        for module in (kinds, schema)
        for name, value in vars(module).items()
        if isinstance(value, int) and name.isupper()
    }
    assert found == code


def test_numbers_in_the_text() -> None:
    assert f"at most {kinds.HANDSHAKE_MAX_FRAME} until the handshake" in SPEC
    assert f"It must never exceed {kinds.MAX_CREDIT}" in SPEC
    assert f"an integer of 0 to {kinds.MAX_STREAM}" in SPEC
    assert f"at most {schema.MAX_DEPTH} deep" in SPEC
    assert f"at most {schema.MAX_VALUES} values" in SPEC
    assert PREFACE.hex(" ") in SPEC
    assert f"{kinds.MAX_LINGER}: never" in SPEC
    ignored = f"{kinds.FIRST_IGNORED} to {kinds.LAST_IGNORED}"
    assert len(re.findall(rf"kinds?\b[^.]* {ignored}\b", SPEC)) >= 3


def test_error_codes() -> None:
    found = rows(section("11. Errors"), "code")
    assert [row[0] for row in found] == list(ErrorCode)
    about = [row[1] for row in found]
    # The list in the code has the connection's codes first, then the requests'.
    split = list(ErrorCode).index(ErrorCode.INVALID_REQUEST)
    assert about == ["connection"] * split + ["request"] * (len(ErrorCode) - split)
    assert all(len(row) == 4 and all(row) for row in found)


def test_diagrams() -> None:
    found = blocks(section("10. States"))
    assert found == [diagram(CONNECTION_TABLE), diagram()]


def played(example: str) -> tuple[dict[str, Connection], list[events.Frame]]:
    """Both ends, fed with the example's bytes: they take them, and would have sent them."""
    turns: list[tuple[str, str]] = []
    after_comment = True
    for line in example.splitlines():
        if line.lstrip().startswith("#"):
            after_comment = True
            continue
        who, part = line.split("> ")
        if after_comment:
            turns.append((who, part))
        else:
            assert turns[-1][0] == who
            turns[-1] = (who, turns[-1][1] + part)
        after_comment = False
    ends = {"C": Connection(Role.CLIENT), "S": Connection(Role.SERVER)}
    seen: list[events.Frame] = []
    for who, text in turns:
        data = bytes.fromhex(text)
        other = ends["S" if who == "C" else "C"]
        other.receive_data(data)
        event = other.next_event()
        assert event is not None
        assert not isinstance(event, events.ConnectionClosed | events.Invalid)
        assert other.next_event() is None
        assert ends[who].send(event) == data
        seen.append(event)
    return ends, seen


def test_worked_example() -> None:
    ends, seen = played(EXAMPLES[0])
    assert {type(event).__name__ for event in seen} >= {
        "Hello",
        "Welcome",
        "Generate",
        "Accepted",
        "Tokens",
        "Credit",
        "Done",
        "GoAway",
    }
    assert ends["C"].open_streams == 0


def test_example_explains_the_credit() -> None:
    left = [int(n) for n in re.findall(r"(-?\d+)(?: bytes of credit)? are left", EXAMPLES[0])]
    assert left == [24, -5, 44]
    assert "credit: 55" in EXAMPLES[0]


def test_example_of_a_resumed_stream() -> None:
    """It loses its connection, is ahead, and then has the whole generation."""
    assert len(EXAMPLES) == 4
    pieces: list[str] = []
    epoch, error = 0, None
    for example in EXAMPLES[1:3]:
        ends, seen = played(example)
        for event in seen:
            if isinstance(event, events.Attach):
                assert (event.first, event.epoch) == (len(pieces), epoch)
            elif isinstance(event, events.Accepted):
                epoch = event.epoch
            elif isinstance(event, events.Tokens):
                assert event.first == len(pieces)
                pieces += event.pieces
            elif isinstance(event, events.Error):
                error = event
                del pieces[event.durable :]
    assert error is not None
    assert (error.code, error.durable) == ("ahead", 2)
    assert epoch > 0
    assert isinstance(seen[-1], events.Done)
    assert seen[-1].splices == [2]
    assert pieces == [" one", " two", " and", " three"]
    assert ends["C"].open_streams == 0


def test_example_of_a_splice() -> None:
    """It waits, is told why, and is told where another upstream goes on; then it is listed."""
    ends, seen = played(EXAMPLES[3])
    waits = [e for e in seen if isinstance(e, events.Accepted | events.Queue)]
    assert [e.position for e in waits] == [2, 1, 0]
    assert all(e.reason and e.wait for e in waits if e.position)
    pieces: list[str] = []
    for event in seen:
        if isinstance(event, events.Splice):
            assert event.position == len(pieces) == 2
        elif isinstance(event, events.Tokens):
            pieces += event.pieces
    (asked,) = (e for e in seen if isinstance(e, events.Generate))
    assert asked.splices
    done = [e for e in seen if isinstance(e, events.Done)]
    assert [(e.reason, e.splices) for e in done] == [("length", [2]), ("complete", [])]
    (listing,) = (e for e in seen if isinstance(e, events.Listing))
    assert [(e["id"], e["tokens"]) for e in listing.entries] == [(done[0].id, len(pieces))]
    assert ends["C"].open_streams == 0


def test_what_the_pseudo_code_understands() -> None:
    """It reads every frame that a server may send it, and no other."""
    code = section("18. A client in pseudo-code")
    known = {int(n) for n in re.findall(r"kind (?:==|!=) (\d+)", code)}
    for several in re.findall(r"kind in \(([\d, ]+)\)", code):
        known |= set(map(int, several.split(", ")))
    assert known == SENT_BY[Role.SERVER] - NOT_ASKED_FOR
    ignored = re.search(r"(\d+) <= kind <= (\d+)", code)
    assert ignored is not None
    assert tuple(map(int, ignored.groups())) == (kinds.FIRST_IGNORED, kinds.LAST_IGNORED)


def test_links_in_the_contents() -> None:
    headings = re.findall(r"^## (.+)$", outside_code(), re.M)
    anchors = [re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings]
    listed = re.findall(r"^\d+\. \[(.+)\]\(#(.+)\)$", SPEC, re.M)
    assert [anchor for _, anchor in listed] == anchors
    assert [f"{n}. {title}" for n, (title, _) in enumerate(listed, 1)] == headings


def test_guide_to_the_vectors() -> None:
    states = {row[0] for row in rows(GUIDE, "state")}
    assert states == set(STARTS)
    files = {row[0]: int(row[1]) for row in rows(GUIDE, "file")}
    assert files == {
        path.name: len(vectors)
        for path in (PROTOCOL / "vectors").glob("*.json")
        if (vectors := json.loads(path.read_text()).get("vectors")) is not None
    }
