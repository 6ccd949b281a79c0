"""What is known of a conversation, after changes of which nobody has told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.browser.modules import Run

#: A server with the responses `r1` to `r50`, each behind the one before, of which the newest
#: `given.known` are known; then what `CHANGE` says becomes of `all`, and the stream begins anew.
_WORLD = """
const { createStore } = await import("/page/js/core/store.js");
const { chatReducer, conversationOf } = await load("state");
const { createLoader } = await load("loader");
const made = (number) => ({ id: `r${number}`, generation: `${number}`, status: "completed",
  created_at: number, previous: number > 1 ? `r${number - 1}` : null });
let all = Array.from({ length: 50 }, (_, at) => made(at + 1));
const gone = (...ids) => {
  const left = (id) => (ids.includes(id) ? left(made(Number(id.slice(1))).previous) : id);
  all = all.filter(({ id }) => !ids.includes(id))
    .map((node) => ({ ...node, previous: left(node.previous) }));
};
const asked = [];
const get = async (path, { query: { after, limit } }) => {
  asked.push(after ?? null);
  const newest = [...all].reverse();
  if (after && !all.some(({ id }) => id === after)) throw new Error(`there is no ${after}`);
  const at = after ? newest.findIndex(({ id }) => id === after) + 1 : 0;
  const data = newest.slice(at, at + limit);
  return { data, last_id: data.at(-1)?.id, has_more: at + limit < all.length, conversation: {} };
};
const store = createStore({ chat: chatReducer });
const loader = createLoader({ store, api: { get } });
const one = () => conversationOf(store.get(), "c");
await loader.open("c");
while (one().nodes.length < given.known) await loader.older("c");
all = all.map((node) => ({ ...node, status: "completed" }));
asked.length = 0;
CHANGE;
store.send({ type: "live/event", event: { snapshot: true } });
await loader.refresh("c");
const reads = asked.length;
while (one().older) await loader.older("c");
return { reads, nodes: one().nodes, all, leaf: one().leaf, gaps: one().gaps };
"""


def _after(js: Run, change: str, known: int = 40) -> Any:
    return js(_WORLD.replace("CHANGE", change), {"known": known})


@pytest.mark.parametrize("numbers", [[30], [50], [1], [11, 12], [31], list(range(11, 51))])
def test_what_was_deleted_in_a_gap_is_gone(js: Run, numbers: list[int]) -> None:
    found = _after(js, f"gone(...{[f'r{one}' for one in numbers]})")
    assert found["nodes"] == found["all"]
    assert found["gaps"] == 0


def test_who_reads_what_was_deleted_in_a_gap_reads_on_above_it(js: Run) -> None:
    reads = 'store.send({ type: "chat/conversation", id: "c", changes: { leaf: "r30" } })'
    found = _after(js, f'{reads}; gone("r29", "r30")')
    assert found["leaf"] == "r28"


def test_what_ended_in_a_gap_has_ended_wherever_it_is(js: Run) -> None:
    """Also on a branch that is not the newest."""
    runs = """
    store.send({ type: "chat/nodes", id: "c", nodes: [{ ...made(12), status: "in_progress" }] })
    """
    found = _after(js, runs)
    assert {one["status"] for one in found["nodes"]} == {"completed"}


def test_no_more_is_read_after_a_gap_than_was_known(js: Run) -> None:
    found = _after(js, 'all.push({ ...made(51), previous: "r50" })', known=20)
    assert found["reads"] == 2
    assert found["nodes"] == found["all"]


def test_older_ones_are_read_where_the_oldest_known_one_was_deleted(js: Run) -> None:
    told = 'store.send({ type: "live/event", event: { deleted: ["11"] } })'
    found = _after(js, f'gone("r11"); {told}; await loader.older("c")')
    assert found["nodes"] == found["all"]


def test_what_comes_while_it_is_read_stays(js: Run) -> None:
    """A question that is sent meanwhile, and is in no page yet."""
    sent = """
    const later = made(60);
    queueMicrotask(() => store.send({ type: "chat/nodes", id: "c", nodes: [later] }));
    """
    found = _after(js, sent.strip().rstrip(";"))
    assert found["nodes"][-1]["id"] == "r60"
