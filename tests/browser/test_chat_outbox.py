"""Questions on their way: none is lost, and none is asked twice, whatever the server does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.browser.modules import Run

#: A world of `given`: what the server answers, one after the other, to each kind of request (null:
#: it is not reached), what is in the storage, and what is done. Pauses take no time.
_WORLD = """
const { createStore } = await import("/page/js/core/store.js");
const { createApi } = await import("/page/js/core/api.js");
const { chatReducer } = await load("state");
const { createOutbox } = await load("outbox");
const kept = new Map();
for (const [key, one] of Object.entries(given.kept)) kept.set(key, JSON.stringify(one));
const storage = {
  get length() { return kept.size; },
  key: (at) => [...kept.keys()][at],
  getItem: (key) => kept.get(key) ?? null,
  setItem: (key, text) => kept.set(key, text),
  removeItem: (key) => kept.delete(key),
};
const store = createStore({ session: () => ({ state: "known", user: "ann" }), chat: chatReducer });
const asked = [];
const real = { fetch, setTimeout };
const settled = () => new Promise((resolve) => real.setTimeout.call(window, resolve, 20));
globalThis.setTimeout = (call) => real.setTimeout.call(window, call, 0);
globalThis.fetch = async (path, { method, body, headers, signal }) => {
  const name = `${method} ${path.split("?")[0]}`;
  asked.push({ name, key: headers["Idempotency-Key"] ?? null, body: JSON.parse(body ?? "null") });
  const answers = given.answers[name] ?? [];
  const [status, document] = (answers.length > 1 ? answers.shift() : answers[0]) ?? [0];
  signal?.throwIfAborted();
  if (status === 0) throw new TypeError("not reached");
  return new Response(document === "cut" ? "{" : JSON.stringify(document), { status });
};
const outbox = createOutbox({ store, api: createApi(() => {}) }, storage);
const turns = () => Object.values(store.get().chat.turns);
const until = async (holds) => {
  for (let count = 0; !holds(); count += 1) {
    if (count === 200) throw new Error(`it does not come to be: ${holds}`);
    await settled();
  }
};
try {
  const result = await (async () => { DO })();
  return { result, asked, kept: [...kept.keys()], turns: turns(), chat: store.get().chat };
} finally {
  Object.assign(globalThis, real);
}
"""
POST, CONVERSATION = "POST /v1/responses", "POST /v1/conversations"
LIST = "GET /v1/conversations"
MADE = [200, {"id": "conv_1", "metadata": {}}]
BEGUN = [200, {"id": "resp_1", "created_at": 5, "model": "demo", "status": "queued", "output": []}]
GONE = [0]
NONE = [200, {"data": []}]
World = Callable[..., Any]


@pytest.fixture
def world(js: Run) -> World:
    def run(do: str, answers: dict[str, Any], kept: dict[str, Any] | None = None) -> Any:
        return js(_WORLD.replace("DO", do), {"answers": answers, "kept": kept or {}})

    return run


def _error(status: int, code: str) -> list[Any]:
    return [status, {"error": {"message": "no", "code": code}}]


def _posts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found["asked"] if one["name"] == POST]


_SEND = """
outbox.send({ conversation: given.to ?? null, base: null, body: { input: "?" } });
await until(() => turns().length === 0 || turns()[0].state === "failed");
"""


def test_a_first_question_makes_a_conversation(world: World) -> None:
    found = world(_SEND, {CONVERSATION: [MADE], POST: [BEGUN]})
    (post,) = _posts(found)
    assert post["body"] == {"input": "?", "conversation": "conv_1"}
    assert (found["kept"], found["turns"]) == ([], [])
    (node,) = found["chat"]["conversations"]["conv_1"]["nodes"]
    assert (node["id"], node["key"], node["previous"]) == ("resp_1", post["key"], None)
    assert found["chat"]["places"] == {f"new-{post['key']}": "conv_1"}


def test_while_the_server_is_away_it_is_sent_again(world: World) -> None:
    away = _error(503, "shutting_down")
    found = world(_SEND, {CONVERSATION: [MADE], POST: [GONE, away, GONE, BEGUN]})
    posts = _posts(found)
    assert len(posts) == 4
    assert len({one["key"] for one in posts}) == 1
    assert found["turns"] == []


def test_a_browser_that_denies_locks_sends_it(world: World) -> None:
    do = f"""
    const denied = new DOMException("", "SecurityError");
    Object.defineProperty(navigator.locks, "request",
        {{ configurable: true, value: () => Promise.reject(denied) }});
    try {{ {_SEND} }} finally {{ delete navigator.locks.request; }}
    """
    found = world(do, {CONVERSATION: [MADE], POST: [BEGUN]})
    assert (len(_posts(found)), found["turns"]) == (1, [])


@pytest.mark.parametrize("answer", [[502, "cut"], [504, "cut"], [200, "cut"]])
def test_an_answer_that_a_proxy_gives_or_cuts_off_is_none(world: World, answer: list[Any]) -> None:
    found = world(_SEND, {CONVERSATION: [answer, MADE], POST: [answer, BEGUN], LIST: [NONE]})
    assert len({one["key"] for one in _posts(found)}) == 1
    assert (len(_posts(found)), found["turns"]) == (2, [])


def test_what_the_server_says_of_an_upstream_is_an_answer(world: World) -> None:
    error = _error(502, "upstream_error")
    (turn,) = world(_SEND, {POST: [error, BEGUN], CONVERSATION: [MADE]})["turns"]
    assert (turn["state"], turn["error"]["status"]) == ("failed", 502)


def test_a_conversation_is_made_once(world: World) -> None:
    """The answer to its creation is lost: it is found by what it was made with."""
    do = """
    const send = outbox.send({ conversation: null, base: null, body: { input: "?" } });
    const mine = { id: "conv_1", metadata: { page_turn: send } };
    given.answers["GET /v1/conversations"] = [[200, { data: [{ id: "conv_2" }, mine] }]];
    await until(() => turns().length === 0);
    """
    found = world(do, {CONVERSATION: [GONE], POST: [BEGUN]})
    names = [one["name"] for one in found["asked"]]
    assert names == [CONVERSATION, LIST, POST]
    assert _posts(found)[0]["body"]["conversation"] == "conv_1"


@pytest.mark.parametrize(
    ("code", "same"), [("rate_limit_exceeded", True), ("idempotency_key_in_use", False)]
)
def test_what_is_refused_is_tried_again_when_one_says_so(
    world: World, code: str, same: bool
) -> None:
    do = f"""
    {_SEND}
    const refused = turns()[0];
    await settled();
    outbox.again(refused.key);
    await until(() => turns().length === 0);
    return refused;
    """
    found = world(do, {CONVERSATION: [MADE], POST: [_error(409, code), BEGUN]})
    refused = found["result"]
    assert (refused["state"], refused["error"]["code"]) == ("failed", code)
    first, second = _posts(found)
    assert (first["key"] == second["key"]) is same
    assert (found["turns"], found["kept"]) == ([], [])


def test_what_is_not_wanted_any_more_is_not_sent(world: World) -> None:
    do = """
    const key = outbox.send({ conversation: "conv_1", base: null, body: { input: "?" } });
    await until(() => turns()[0].state === "waiting");
    outbox.drop(key);
    await settled();
    const before = asked.length;
    await settled();
    return asked.length - before;
    """
    found = world(do, {POST: [GONE]})
    assert (found["result"], found["turns"], found["kept"]) == (0, [], [])


@pytest.mark.parametrize(
    ("about", "deleted"), [({"entries": 0}, 1), ({"entries": 1}, 0), (None, 0)]
)
def test_a_conversation_that_was_made_for_it_is_not_left(
    world: World, about: dict[str, Any] | None, deleted: int
) -> None:
    """Also when the server is away for a while; never one in which there is something."""
    do = f"""
    {_SEND}
    outbox.giveUp(turns()[0].key);
    for (let count = 0; count < 5; count += 1) await settled();
    """
    one = "GET /v1/conversations/conv_1"
    shown = _error(404, "conversation_not_found") if about is None else [200, about]
    answers = {CONVERSATION: [MADE], POST: [_error(429, "")], one: [GONE, shown]}
    found = world(do, {**answers, "DELETE /v1/conversations/conv_1": [[200, {}]]})
    names = [asked["name"] for asked in found["asked"]]
    assert names[:4] == [CONVERSATION, POST, one, one]
    assert names[4:] == ["DELETE /v1/conversations/conv_1"] * deleted
    assert (found["turns"], found["kept"]) == ([], [])


def test_one_that_was_there_before_is_left_alone(world: World) -> None:
    do = f"{_SEND} outbox.giveUp(turns()[0].key); await settled();"
    found = world(do.replace("given.to ?? null", '"conv_1"'), {POST: [_error(429, "")]})
    assert [asked["name"] for asked in found["asked"]] == [POST]


def _left(**changes: Any) -> dict[str, Any]:
    turn = {
        "key": "k1",
        "user": "ann",
        "place": "conv_1",
        "conversation": "conv_1",
        "base": None,
        "body": {"input": "?"},
        "state": "sending",
        "error": None,
        "begun": False,
        **changes,
    }
    return {f"llcuda.turn.{turn['key']}": turn}


_START = "outbox.start(); await settled(); await settled();"


def test_what_an_earlier_page_left_is_sent(world: World) -> None:
    found = world(_START, {POST: [BEGUN]}, _left())
    assert [one["key"] for one in _posts(found)] == ["k1"]
    assert (found["turns"], found["kept"]) == ([], [])


def test_one_that_was_not_let_in_is_sent_after_signing_in(world: World) -> None:
    refused = _left(state="failed", error={"status": 401, "code": "", "message": ""})
    assert len(_posts(world(_START, {POST: [BEGUN]}, refused))) == 1


def test_what_had_failed_waits_for_its_user(world: World) -> None:
    failed = _left(state="failed", error={"status": 429, "code": "", "message": "full"})
    found = world(_START, {POST: [BEGUN]}, failed)
    assert (_posts(found), [one["key"] for one in found["turns"]]) == ([], ["k1"])


def test_that_of_another_user_is_left_alone(world: World) -> None:
    found = world(_START, {POST: [BEGUN]}, {**_left(user="bob"), "other": 1})
    assert (found["asked"], found["turns"], len(found["kept"])) == ([], [], 2)


def test_what_another_tab_has_seen_to_is_not_sent_again(world: World) -> None:
    """The other tab holds the lock, sends it, and forgets it."""
    do = """
    let release;
    const held = new Promise((resolve) => (release = resolve));
    navigator.locks.request("llcuda.turn.k1", () => held);
    outbox.start();
    await settled();
    const shown = turns().length;
    storage.removeItem("llcuda.turn.k1");
    release();
    await until(() => turns().length === 0);
    return shown;
    """
    found = world(do, {POST: [BEGUN]}, _left())
    assert (found["result"], _posts(found)) == (1, [])
