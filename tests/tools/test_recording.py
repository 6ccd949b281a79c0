"""A recorded terminal as a picture."""

from __future__ import annotations

from xml.etree import ElementTree

from tools.recording.drawing import Shown, drawing, pieces


def test_lines_are_broken_between_words_and_go_on_where_they_ended() -> None:
    shown = [Shown(0.5, "one two"), Shown(1.0, " three four"), Shown(2.0, "\n\nabcdefghijklm")]
    placed = [(one.row, one.column, one.text) for one in pieces(shown, columns=10)]
    assert placed == [
        (0, 0, "one two"),
        (0, 7, " "),
        (1, 0, "three four"),
        (3, 0, "abcdefghij"),
        (4, 0, "klm"),
    ]


def test_each_text_appears_at_its_moment() -> None:
    found = ElementTree.fromstring(drawing([Shown(0, "$ ", "prompt"), Shown(1.25, "a<b&c")], "T&T"))
    name = "{http://www.w3.org/2000/svg}"
    texts = found.findall(f"{name}text")
    assert [one.text for one in texts] == ["$", "a<b&c"]
    assert [one.get("style") for one in texts] == [
        "animation-delay:0.00s",
        "animation-delay:1.25s",
    ]
    assert float(texts[1].get("x", "")) > float(texts[0].get("x", ""))
    title = found.find(f"{name}title")
    assert title is not None
    assert title.text == "T&T"
