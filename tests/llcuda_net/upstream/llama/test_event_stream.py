"""Server-sent events by the standard: compared with its text, followed line by line."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llcuda_net.upstream.llama.sse import EventStream


def by_the_standard(body: bytes) -> list[tuple[str, bytes]]:
    """WHATWG HTML, 9.2.6 "Interpreting an event stream", sentence by sentence; slow."""
    lines, line, at = [], bytearray(), 3 if body.startswith(b"\xef\xbb\xbf") else 0
    while at < len(body):
        if body[at : at + 2] == b"\r\n":
            lines.append(bytes(line))
            line.clear()
            at += 2
        elif body[at : at + 1] in (b"\r", b"\n"):
            lines.append(bytes(line))
            line.clear()
            at += 1
        else:
            line.append(body[at])
            at += 1
    events, data, kind = [], b"", b""
    for one in lines:  # what no line end follows is not processed
        if not one:
            if data:  # "if the data buffer is an empty string, …return"
                events.append((kind.decode("utf-8", "replace"), data.removesuffix(b"\n")))
            data, kind = b"", b""
        elif not one.startswith(b":"):
            field, colon, value = one.partition(b":")
            if colon and value.startswith(b" "):
                value = value[1:]
            if field == b"event":
                kind = value
            elif field == b"data":
                data += value + b"\n"
    return events


def parsed(*chunks: bytes) -> list[tuple[str, bytes]]:
    stream = EventStream()
    return [(kind, bytes(data)) for chunk in chunks for kind, data in stream.feed(chunk)]


LINE = st.sampled_from(
    [
        b"",
        b"",
        b'data: {"a":1}',
        b'data:{"a":1}',
        b"data:  two",
        b"data",
        b"data:",
        b": comment",
        b":",
        b"event: x",
        b"event",
        b"id: 7",
        b"retry: 10",
        b"error: e",
        b"dat: a: b",
        b" data: no",
        b"data: \xff\xc3",
        b"\xef\xbb\xbfdata: late",
    ]
)
BODY = st.builds(
    lambda bom, lines: bom + b"".join(itertools.chain.from_iterable(lines)),
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb"]),
    st.lists(st.tuples(LINE, st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])), max_size=12),
)


@given(BODY, st.binary(max_size=4))
@example(b": a comment\ndata: one\n\n", b"")
@example(b"data: one\r\n\r\ndata: two\r\r", b"")
@example(b"data: one\n\n\n\ndata: two\n\n", b"data: cut\n")
def test_whole_and_split_at_every_byte(body: bytes, trailing: bytes) -> None:
    body += trailing
    expected = by_the_standard(body)
    assert parsed(body) == expected
    assert parsed(*(body[i : i + 1] for i in range(len(body)))) == expected
    for cut in range(len(body) + 1):
        assert parsed(body[:cut], body[cut:]) == expected


@given(BODY, st.lists(st.integers(0, 200), max_size=6))
def test_however_it_is_cut(body: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    assert parsed(*(body[a:b] for a, b in itertools.pairwise(edges))) == by_the_standard(body)


@pytest.mark.parametrize(
    ("body", "unfinished"),
    [
        (b"data: a\n\n", b""),
        (b"data: a\n\n: comment", b""),
        (b"data: a\n\ndata: b", b"b"),
        (b"data: a\n\ndata: b\n", b"b"),
        (b"data: a\n\ndata: b\ndata: c", b"b\nc"),
        (b"data: a\n\nda", b"da"),
    ],
)
def test_an_event_without_an_end_is_known(body: bytes, unfinished: bytes) -> None:
    stream = EventStream()
    assert stream.feed(body) == [("", b"a")]
    assert stream.unfinished == unfinished


def test_the_error_field_of_older_servers() -> None:
    body = b'error: {"code":1}\n\n'
    assert parsed(body) == []
    assert EventStream(error_field=True).feed(body) == [("error", b'{"code":1}')]
