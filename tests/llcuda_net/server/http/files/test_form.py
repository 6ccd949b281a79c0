"""Forms with a file: taken part by part, and refused where two programs could differ."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.files.form import Form
from tests.support.server.forms import BOUNDARY, TYPE, field, file, form

KNOWN = ("purpose", "other")
#: Contents that look like the end of the file, and are not.
TRICKY = b"\r\n--a-boundar\r\n--a-boundar-\r\n\r\r\n--"


def taken(body: bytes, *, size: int | None = None, type_: str = TYPE) -> tuple[Form, bytes]:
    """The form of a body that comes in parts of this size, and the contents of its file."""
    found = Form(type_, KNOWN)
    contents = b""
    step = size or max(1, len(body))
    for at in range(0, len(body), step):
        contents += b"".join(found.feed(body[at : at + step]))
    found.close()
    return found, contents


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, None])
@pytest.mark.parametrize("data", [b"", b"a", TRICKY, bytes(range(256)) * 20], ids=range(4))
def test_it_is_the_same_however_it_comes(data: bytes, size: int | None) -> None:
    for parts in ([field("purpose", "batch"), file(data)], [file(data), field("purpose", "batch")]):
        found, contents = taken(form(*parts), size=size)
        assert contents == data
        assert found.fields == {"purpose": "batch"}
        assert found.name == "lines.jsonl"


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 600), max_size=6))
def test_any_contents_in_any_parts(data: bytes, cuts: list[int]) -> None:
    body = form(field("purpose", "batch"), file(data))
    if f"--{BOUNDARY}".encode() in data:
        return
    found = Form(TYPE, KNOWN)
    places = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    contents = [one for start, end in pairwise(places) for one in found.feed(body[start:end])]
    found.close()
    assert b"".join(contents) == data


@given(st.binary(max_size=400))
def test_whatever_comes_is_taken_or_refused(body: bytes) -> None:
    for start in (b"", f"--{BOUNDARY}\r\n".encode(), file(b"x")[:-2]):
        found: HttpError | None = None
        try:
            taken(start + body)
        except HttpError as error:
            found = error
        assert found is None or (found.status == 400 and "\n" not in found.message)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no end"),
        (b"nothing of the kind, at all", "no end"),
        (b"--a-boundary\nContent-Disposition: form-data", "no multipart/form-data"),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\n".encode(), "no multipart/form-data"),
        (f"--{BOUNDARY}\r\n{'x' * 5000}".encode(), "headers too large"),
        (form(field("purpose", "batch")), "no file"),
        (form(field("purpose", "a"), field("purpose", "b"), file(b"")), "twice"),
        (form(file(b"a"), file(b"b")), "two files"),
        (form(field("file", "a")), "without a file name"),
        (form(field("prupose", "a"), file(b"")), "there is no field 'prupose'; the form has file"),
        (form(field("other", "x" * 1025), file(b"")), "more than 1024 bytes"),
        (form(*[field("purpose", "")] * 20), "twice"),
        (form(field("purpose", "batch"), file(b"abc"))[:-20], "no end"),
    ],
)
@pytest.mark.parametrize("size", [1, None])
def test_what_is_refused(body: bytes, why: str, size: int | None) -> None:
    with pytest.raises(HttpError, match=why) as caught:
        taken(body, size=size)
    assert caught.value.status == 400


@pytest.mark.parametrize("type_", ["", "application/json", "text/plain; boundary=a-boundary"])
def test_another_type_is_refused(type_: str) -> None:
    with pytest.raises(HttpError, match="multipart/form-data") as caught:
        Form(type_, KNOWN)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    "type_",
    [
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"Multipart/Form-Data; charset=utf-8; boundary={BOUNDARY} ; more=1",
    ],
)
def test_the_boundary_is_found(type_: str) -> None:
    assert taken(form(file(b"abc")), type_=type_)[1] == b"abc"


@pytest.mark.parametrize("given_", ["", "boundary", 'boundary="', "boundary=ä", "boundary=a b c"])
def test_a_boundary_that_is_none(given_: str) -> None:
    with pytest.raises(HttpError, match="boundary"):
        Form(f"multipart/form-data; {given_}", KNOWN)


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.jsonl", "a.jsonl"),
        ("a/", "file"),
        ("x" * 300, "x" * 255),
        ("zwei\u202e.jsonl", "zwei.jsonl"),
        ("grüße.jsonl", "grüße.jsonl"),
    ],
)
def test_names_of_files_are_harmless(given_: str, kept: str) -> None:
    assert taken(form(file(b"", given_)))[0].name == kept


def test_a_name_that_is_no_utf_8_is_refused_in_words() -> None:
    reader = Form('multipart/form-data; boundary="b"', ())
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="\xff"\r\n\r\n'
    with pytest.raises(HttpError, match=r"no multipart/form-data: [A-Z][\w /-]+\Z"):
        reader.feed(head)
