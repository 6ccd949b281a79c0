"""The state of a long list: pages come, go and come again while entries are added and moved."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.support.browser.profiles import Profiles
from tests.support.processes import RunningServer

#: A list of a server, and the page's list beside it, that hears of changes at its beginning only.
MODEL = """
const list = await import("/page/js/history/list.js");
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
let number = 0;
const entry = () => ({ id: `e${++number}`, created: number });
/** As the server answers: null where there is nothing `after`. */
function asked(entries, after, limit = list.PAGE) {
  const first = after === null ? 0 : entries.findIndex((one) => one.id === after) + 1;
  if (after !== null && !first) return null;
  return { data: entries.slice(first, first + limit), more: first + limit < entries.length };
}
function load(known, server, number) {
  const after = list.cursorOf(known, number);
  const page = asked(server, after);
  if (!page) return list.cut(known, number - 1);
  return list.withPage(known, number, after, page.data, page.more);
}
function head(known, server) {
  const page = asked(server, null);
  return list.withHead(known, page.data, page.more);
}
const idsOf = (known) => list.slice(known, 0, list.sizeOf(known)).map((one) => one && one.id);
/** Fetch until all of it is known. */
function whole(known, server) {
  for (let turn = 0; turn < 1000; turn++) {
    const missing = known.pages.findIndex((page) => !page.entries);
    if (missing < 0 && !known.more) return idsOf(known);
    known = load(known, server, missing < 0 ? known.pages.length : missing);
  }
  throw new Error("it never ends");
}
"""


@pytest.fixture
def page(profiles: Profiles, server: RunningServer) -> Page:
    return profiles.new(server).open()


def run(page: Page, script: str, argument: Any = None) -> Any:
    return page.evaluate(f"async (argument) => {{ {MODEL} {script} }}", argument)


def test_pages_follow_each_other(page: Page) -> None:
    assert run(
        page,
        """
        const server = Array.from({ length: 250 }, entry).reverse();
        let known = list.emptyList({});
        const sizes = [];
        while (known.more) {
          known = load(known, server, known.pages.length);
          sizes.push(list.sizeOf(known));
        }
        return [sizes, idsOf(known).join() === server.map((one) => one.id).join(),
          list.placeOf(known, 249), list.placeOf(known, 250), list.indexOf(known, "e1")];
        """,
    ) == [[100, 200, 250], True, {"number": 2, "index": 49}, None, 249]


def test_what_is_far_is_let_go_and_comes_again(page: Page) -> None:
    assert run(
        page,
        """
        const server = Array.from({ length: 3000 }, entry).reverse();
        let known = list.emptyList({});
        while (known.more) known = load(known, server, known.pages.length);
        known = list.withSeen(known, 2000, 2020);
        const here = [...known.pages.keys()].filter((number) => known.pages[number].entries);
        const middle = list.slice(known, 1010, 1012);
        known = load(known, server, 10);
        return [list.sizeOf(known), here, middle, list.slice(known, 1010, 1011)[0].id];
        """,
    ) == [3000, [0, *range(16, 25)], [None, None], "e1990"]


def test_an_answer_that_is_late_changes_nothing(page: Page) -> None:
    assert run(
        page,
        """
        const server = Array.from({ length: 250 }, entry).reverse();
        const known = load(load(list.emptyList({}), server, 0), server, 1);
        return [list.withPage(known, 1, "another", [], false) === known,
          list.withPage(known, 5, null, [], false) === known];
        """,
    ) == [True, True]


def test_what_begins_and_ends_meanwhile(page: Page) -> None:
    assert run(
        page,
        """
        const server = Array.from({ length: 150 }, entry).reverse();
        let known = load(list.emptyList({}), server, 0);
        const [one, two] = [entry(), entry()];
        known = list.withEntry(list.withEntry(known, two), one); // not in their order
        known = list.withEntry(known, { ...one, state: "done" });
        const beginning = list.slice(known, 0, 3).map(({ id, state }) => [id, state ?? ""]);
        known = list.withEntry(known, { id: "old", created: 0 });
        const counts = known.pages.map((page) => page.count);
        known = list.without(known, new Set([two.id, one.id, "e150"]));
        return [beginning, counts, list.indexOf(known, "old"), idsOf(known)[0]];
        """,
    ) == [[["e152", ""], ["e151", "done"], ["e150", ""]], [1, 101], -1, "e149"]


def test_what_is_pinned_no_more_moves_to_its_place(page: Page) -> None:
    """By when it was used; where that is not known, it comes with its page."""
    assert run(
        page,
        """
        const used = (number) => ({ id: `e${number}`, updated: number });
        const server = Array.from({ length: 400 }, (_, at) => used(400 - at));
        const unpinned = (number, more = server.length) => {
          const pin = { ...used(number + 0.5), pinned: true };
          const all = [pin, ...server.slice(0, more)];
          let known = list.emptyList({});
          while (known.more && list.sizeOf(known) < 350) {
            known = load(known, all, known.pages.length);
          }
          known = list.withUnpinned(known, pin.id);
          const at = list.indexOf(known, pin.id);
          return at < 0 ? list.sizeOf(known)
            : [at, list.slice(known, at, at + 1)[0].pinned, list.sizeOf(known)];
        };
        return [unpinned(400), unpinned(250), unpinned(0), unpinned(0, 250)];
        """,
    ) == [[0, False, 400], [150, False, 400], 399, [250, False, 251]]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_server_has_whatever_happens(page: Page, seed: int) -> None:
    """Entries are added, moved to the beginning and deleted, some of them unheard of."""
    wrong = run(
        page,
        """
        for (let round = 0; round < 60; round++) {
          const next = random(argument * 1000 + round);
          const below = (most) => Math.floor(next() * most);
          const server = Array.from({ length: below(700) }, entry).reverse();
          let known = list.emptyList({});
          for (let step = 0; step < 60; step++) {
            const what = below(8);
            // Often what a cursor names.
            const last = known.pages[below(known.pages.length)]?.last;
            const named = server.findIndex((one) => one.id === last);
            const at = named >= 0 && next() < 0.5 ? named : below(server.length);
            const heard = next() < 0.7;
            if (what === 0) server.unshift(entry());
            else if (what === 1 && server.length) server.unshift(...server.splice(at, 1));
            else if (what === 2 && server.length) {
              const [gone] = server.splice(at, 1);
              if (heard) known = list.without(known, new Set([gone.id]));
            } else if (what === 3 && known.pages.length) known = head(known, server);
            else if (what === 4) {
              known = list.withSeen(known, below(list.sizeOf(known) + 1), below(700));
            } else if (known.more || known.pages.length) {
              const missing = known.pages.findIndex((one) => !one.entries);
              const number = missing >= 0 && next() < 0.5 ? missing : known.pages.length;
              if (known.more || number < known.pages.length) known = load(known, server, number);
            }
            const ids = idsOf(known).filter((id) => id !== null);
            if (new Set(ids).size !== ids.length) return `round ${round}: twice in the list`;
            const kept = known.pages.filter((one) => one.entries);
            if (kept.some((one) => one.count !== one.entries.length)) return `${round}: counts`;
            if (kept.some((one) => one.last !== one.entries.at(-1).id)) return `${round}: cursors`;
          }
          // All is quiet: what changed is fetched at the beginning, the rest as it is seen.
          const ids = whole(head(known, server), server);
          const unknown = server.filter((one) => !ids.includes(one.id));
          if (unknown.length) return `round ${round}: ${unknown.length} are missing`;
          if (new Set(ids).size !== ids.length) return `round ${round}: twice at the end`;
        }
        return null;
        """,
        seed,
    )
    assert wrong is None
