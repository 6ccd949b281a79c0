"""The parameters of a list are those of docs/http-api.md."""

from __future__ import annotations

from pathlib import Path

from llcuda_net.server.http.generations.wanted import PARAMETERS, Wanted

DOCUMENT = Path(__file__).parents[5] / "docs" / "http-api.md"


def test_the_table_has_the_parameters() -> None:
    _, found, rest = DOCUMENT.read_text(encoding="utf-8").partition("<!-- table: generations -->")
    assert found
    rows = rest.partition("<!-- end of table -->")[0].strip().splitlines()[2:]
    assert rows == [f"| `{name}` | {note} |" for name, note in PARAMETERS.items()]


def test_a_page_is_asked_for_with_one_entry_more() -> None:
    wanted = Wanted.of({"limit": "3"})
    assert (wanted.limit, wanted.selection.limit) == (3, 4)
    assert Wanted.of({"limit": "3", "q": "a"}).selection.limit == 3


def test_a_page_before_one_is_selected_the_other_way_round() -> None:
    for order, ascending in (("desc", True), ("asc", False)):
        wanted = Wanted.of({"before": "x", "order": order})
        assert (wanted.backwards, wanted.selection.after) == (True, "x")
        assert wanted.selection.ascending is ascending
