"""The chat's pure functions, in the browser that runs them; no server is needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.browser.modules import Run

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(js: Run) -> Call:
    """Calls an exported function."""

    def run(name: str, *args: Any) -> Any:
        module, _, function = name.partition(".")
        return js(f"return (await load('{module}')).{function}(...given);", list(args))

    return run


# Figures.


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.2, "<1 ms"),
        (12.4, "12 ms"),
        (999.4, "999 ms"),
        (999.6, "1.0 s"),
        (59_940, "59.9 s"),
        (59_960, "1 min 0 s"),
        (125_000, "2 min 5 s"),
        (3_599_600, "1 h 0 min"),
        (-1, ""),
    ],
)
def test_durations(call: Call, ms: float, text: str) -> None:
    assert call("figures.duration", ms) == text


def test_counts_and_rates(call: Call) -> None:
    assert call("figures.counted", 1, "token") == "1 token"
    assert call("figures.counted", 12_345, "token") == "12,345 tokens"
    assert call("figures.rateText", 7.26) == "7.3 tokens/s"
    assert call("figures.rateText", 1450.4) == "1,450 tokens/s"
    assert call("figures.rateText", None) == ""


def test_parts_of_the_time_do_not_overlap(call: Call) -> None:
    timings = {"queue": 100, "first_token": 50, "prompt": 40, "generation": 300, "total": 500}
    parts = call("figures.phasesOf", timings)
    assert [(one["phase"], one["ms"]) for one in parts] == [
        ("queue", 100),
        ("prompt", 40),
        ("first_token", 10),
        ("generation", 300),
    ]
    assert sum(one["share"] for one in parts) == pytest.approx(0.9)
    assert call("figures.phasesOf", None) == []


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (None, "Asked…"),
        ({"phase": "queue", "queue": {"position": 0}}, "Waiting for a free slot…"),
        (
            {"phase": "queue", "queue": {"position": 3, "of": 7, "wait": 12.4, "reason": ""}},
            "Number 3 of 7 in the queue, about 12 s…",
        ),
        (
            {"phase": "queue", "queue": {"position": 1, "of": 1, "wait": 0.2, "reason": "loading"}},
            "Next in the queue, about 1 s: loading",
        ),
        ({"phase": "prompt"}, "The model reads the conversation…"),
        ({"phase": "answer"}, ""),
    ],
)
def test_what_one_waits_for(call: Call, run: dict[str, Any] | None, text: str) -> None:
    assert call("figures.waitingText", run) == text


# The tree of a conversation.


def _node(name: str, previous: str | None, at: float, question: str = "?") -> dict[str, Any]:
    content = [{"type": "input_text", "text": question}]
    item = {"type": "message", "role": "user", "content": content, "id": f"msg_{name}"}
    return {"id": name, "previous": previous, "created_at": at, "input": [item]}


#: a ─ b ─ d, and beside b: c (answered again) ─ f, e (the question edited).
NODES = [
    _node("a", None, 1),
    _node("b", "a", 2, "how many?"),
    _node("c", "a", 3, "how many?"),
    _node("d", "b", 4),
    _node("e", "a", 5, "how large?"),
    _node("f", "c", 6),
]


PATHS = """
const { treeOf, leafBelow, pathTo } = await load("tree");
const tree = treeOf(given.nodes);
const leaf = given.node && leafBelow(tree, given.node);
return pathTo(tree, leaf).map((node) => node.id);
"""
VERSIONS = """
const { treeOf, versionsOf } = await load("tree");
const tree = treeOf(given.nodes);
return versionsOf(tree, tree.nodes.get(given.node));
"""


@pytest.mark.parametrize(
    ("node", "path"),
    [(None, "acf"), ("b", "abd"), ("c", "acf"), ("d", "abd"), ("e", "ae"), ("a", "acf")],
)
def test_the_path_through_a_node(js: Run, node: str | None, path: str) -> None:
    assert js(PATHS, {"nodes": NODES, "node": node}) == list(path)


def test_a_path_begins_where_nodes_are_known(js: Run) -> None:
    assert js(PATHS, {"nodes": [], "node": None}) == []
    assert js(PATHS, {"nodes": NODES[3:], "node": "d"}) == ["d"]
    # What no server says: it ends all the same.
    circle = [_node("a", "b", 1), _node("b", "a", 2)]
    assert js(PATHS, {"nodes": circle, "node": None}) == ["a", "b"]


def test_versions_of_answers_and_of_questions(js: Run) -> None:
    found = js(VERSIONS, {"nodes": NODES, "node": "c"})
    assert found == {
        "questions": [["b", "c"], ["e"]],
        "question": 0,
        "answers": ["b", "c"],
        "answer": 1,
    }
    assert js(VERSIONS, {"nodes": NODES, "node": "e"})["question"] == 1
    assert js(VERSIONS, {"nodes": NODES, "node": "a"})["answers"] == ["a"]


def test_nodes_are_put_in_the_place_of_their_older_state(call: Call) -> None:
    more = [{**_node("b", "a", 2), "status": "completed"}, _node("0", None, 0.5)]
    known = [{**one, "key": f"turn {one['id']}"} for one in NODES[:3]]
    found = call("tree.merged", known, more)
    assert [one["id"] for one in found] == ["0", "a", "b", "c"]
    assert (found[2]["status"], found[2]["key"]) == ("completed", "turn b")


def test_versions_that_are_not_known_yet(js: Run) -> None:
    body = """
    const { treeOf, pathTo, lacksVersions } = await load("tree");
    const tree = treeOf(given);
    return lacksVersions(tree, pathTo(tree));
    """
    assert js(body, [{**NODES[0], "versions": ["a", "z"]}]) is True
    assert js(body, [{**NODES[0], "versions": ["a"]}]) is False


# Turns.


def test_the_request_of_a_turn(call: Call) -> None:
    turn = {
        "conversation": "conv_1",
        "text": "Hello",
        "images": [{"url": "data:image/png;base64,AA=="}],
        "model": "demo",
        "previous": "resp_1",
        "instructions": "Be brief.",
        "sampling": {"temperature": 0, "seed": 3},
        "certainty": True,
    }
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    text = {"type": "input_text", "text": "Hello"}
    assert call("turn.bodyOf", turn) == {
        "conversation": "conv_1",
        "background": True,
        "store": True,
        "input": [{"type": "message", "role": "user", "content": [image, text]}],
        "model": "demo",
        "previous_response_id": "resp_1",
        "instructions": "Be brief.",
        "temperature": 0,
        "seed": 3,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 3,
    }
    beside = call("turn.bodyOf", {**turn, "insteadOf": "resp_2", "certainty": False})
    assert beside["instead_of"] == "resp_2"
    assert beside.keys().isdisjoint({"previous_response_id", "include", "top_logprobs"})


def test_what_is_seen_of_a_question(call: Call) -> None:
    svg = "data:image/svg+xml;base64,AA=="
    parts = [
        {"type": "input_text", "text": "one"},
        {"type": "input_image", "image_url": "https://example.org/a.png"},
        {"type": "input_image", "image_url": svg},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    items = [
        {"type": "message", "role": "system", "content": "Be brief."},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        {"type": "message", "role": "user", "content": parts},
        {"role": "user", "content": "two"},
    ]
    assert call("turn.questionOf", items) == {
        "text": "one\n\ntwo",
        "images": ["data:image/png;base64,AA=="],
        "results": [{"id": "c", "output": "42"}],
        "system": ["Be brief."],
    }
    assert call("turn.questionOf", None)["text"] == ""


def test_a_question_is_asked_again_without_its_ids(call: Call) -> None:
    item = {"type": "message", "role": "user", "content": "?", "id": "msg_1", "status": "completed"}
    assert call("turn.again", [item]) == [{"type": "message", "role": "user", "content": "?"}]


# Settings.


@pytest.mark.parametrize(
    ("name", "text", "value", "problem"),
    [
        ("temperature", " 0,5 ", 0.5, ""),
        ("temperature", "", None, ""),
        ("temperature", "2.1", None, "This must be 0 to 2."),
        ("temperature", "warm", None, "This must be a number."),
        ("top_k", "1.5", None, "This must be a whole number."),
        ("top_k", "40", 40, ""),
        ("seed", "Infinity", None, "This must be a whole number."),
        ("stop", "END\n\n###\n", ["END", "###"], ""),
        ("stop", "\n", None, ""),
    ],
)
def test_what_stands_in_a_setting(js: Run, name: str, text: str, value: Any, problem: str) -> None:
    body = """
    const { SETTINGS, parsed } = await load("sampling");
    const setting = SETTINGS.find((one) => one.name === given[0]);
    const { value = null, problem } = parsed(setting, given[1]);
    return [value, problem];
    """
    assert js(body, [name, text]) == [value, problem]


def test_only_known_settings_with_sane_values_are_taken(call: Call) -> None:
    given = {"temperature": 0, "top_p": 7, "seed": None, "n_probs": 3, "stop": "END", "min_p": "x"}
    assert call("sampling.known", given) == {"temperature": 0, "stop": ["END"]}
    assert call("sampling.known", None) == {}


def test_whose_settings_hold(js: Run) -> None:
    body = """
    const { settingsOf } = await load("settings");
    const prefs = { chat: { model: "small", temperature: 1, instructions: "Short." } };
    return settingsOf({ prefs, chat: { settings: given.set } }, "here", given.path);
    """
    answer = {"id": "r", "type": "response", "model": "large", "sampling": {"top_k": 5}}
    new = {"model": "small", "instructions": "Short.", "sampling": {"temperature": 1}}
    had = {"model": "large", "instructions": "", "sampling": {"top_k": 5}}
    assert js(body, {"set": {}, "path": []}) == new
    assert js(body, {"set": {}, "path": [answer]}) == had
    assert js(body, {"set": {"here": {"model": "x"}}, "path": [answer]}) == {**had, "model": "x"}
    # What is only being sent has no settings yet.
    assert js(body, {"set": {}, "path": [answer, {"id": "t", "turn": {}}]}) == had


# Errors.


def test_errors_in_words(call: Call) -> None:
    found = call(
        "problem.problemOf", {"status": 429, "code": "rate_limit_exceeded", "message": "m"}
    )
    assert (found["detail"], found["again"]) == ("m", True)
    assert "quota" in found["title"]
    assert "model is not there" in call("problem.problemOf", {"code": "model_not_found"})["title"]
    assert call("problem.problemOf", {"status": 0})["title"] == "The server cannot be reached"
    assert call("problem.problemOf", {"status": 418})["title"] == "That did not work"
    assert call("problem.problemOf", None)["again"] is True
    # Names that every object has are no codes.
    assert call("problem.problemOf", {"code": "constructor"})["title"] == "That did not work"


def test_how_an_answer_ended(call: Call) -> None:
    assert call("problem.endingOf", {"status": "completed"}) is None
    assert "limit" in call("problem.endingOf", {"status": "incomplete"})["title"]
    assert "Stopped" in call("problem.endingOf", {"status": "cancelled"})["title"]
    error = {"code": "interrupted", "message": "gone"}
    assert call("problem.endingOf", {"status": "failed", "error": error})["detail"] == "gone"


# Certainty.


def _token(text: str, probability: float, **others: float) -> dict[str, Any]:
    top = [{"token": name, "logprob": math.log(value)} for name, value in others.items()]
    return {
        "token": text,
        "bytes": list(text.encode()),
        "logprob": math.log(probability),
        "top_logprobs": [{"token": text, "logprob": math.log(probability)}, *top],
    }


def test_words_have_the_certainty_of_their_least_likely_token(call: Call) -> None:
    tokens = [_token("Par", 0.95), _token("is", 0.4, a=0.3), _token(" is", 0.99), _token(".", 0.7)]
    words = call("certainty.wordsOf", tokens)
    assert [(one["text"], one["level"]) for one in words] == [("Paris", 2), (" is.", 1)]
    assert words[0]["probability"] == pytest.approx(0.4)
    assert call("certainty.spoken", words[0]) == "40 % unsure; instead: a 30 %"


def test_a_character_of_several_tokens_is_one(call: Call) -> None:
    first, second = "🙂".encode()[:2], "🙂".encode()[2:]
    tokens = [{**_token("", 0.5), "bytes": list(part)} for part in (first, second)]
    words = call(
        "certainty.wordsOf", [_token("a", 0.9), *tokens, _token("\n", 0.9), _token("b", 1)]
    )
    assert [one["text"] for one in words] == ["a🙂", "\n", "b"]
    # A log that ends within a character, and one without bytes.
    assert call("certainty.wordsOf", tokens[:1])[0]["text"] == "\ufffd"
    assert call("certainty.wordsOf", [{"token": "x", "logprob": 0}])[0]["text"] == "x"
    assert call("certainty.wordsOf", None) == []


@pytest.mark.parametrize(
    ("probability", "text", "level"),
    [
        (1, "100 %", 0),
        (0.9, "90 %", 0),
        (0.3, "30 %", 2),
        (0.012, "1.2 %", 3),
        (0.0001, "<0.1 %", 3),
        (0, "0 %", 3),
    ],
)
def test_probabilities(call: Call, probability: float, text: str, level: int) -> None:
    assert call("certainty.percent", probability) == text
    assert call("certainty.levelOf", probability) == level


# Models.


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ({"state": "loaded"}, "ready", "loaded"),
        (
            {"state": "loading", "status": {"ready_in": 11.2}},
            "loading",
            "is being loaded, about 12 s more",
        ),
        ({"state": "unloaded", "status": {}}, "idle", "not loaded; a question loads it"),
        ({"state": "down", "status": {}}, "bad", "not reached"),
        (
            {"state": "unloaded", "status": {"failed": True, "error": "no memory"}},
            "bad",
            "could not be loaded: no memory",
        ),
    ],
)
def test_how_a_model_stands(call: Call, model: dict[str, Any], kind: str, words: str) -> None:
    assert call("models.standing", model) == {"kind": kind, "words": words}


def test_which_model_is_meant(call: Call) -> None:
    models = [{"id": "demo", "aliases": ["d"]}, {"id": "Qwen3-8B", "aliases": []}]
    assert call("models.modelOf", models, "")["id"] == "demo"
    assert call("models.modelOf", models, "d")["id"] == "demo"
    assert call("models.modelOf", models, "gone") is None
    assert call("models.modelOf", None, "demo") is None
    assert [one["id"] for one in call("models.matching", models, "8b qwen")] == ["Qwen3-8B"]
    assert call(
        "models.chatModels", [{"id": "e", "capabilities": ["embeddings"]}, {"id": "x"}]
    ) == [{"id": "x"}]


# The state.


def _reduced(js: Run, *actions: dict[str, Any]) -> Any:
    body = """
    const { chatReducer } = await load("state");
    return given.reduce(chatReducer, chatReducer(undefined, { type: "start" }));
    """
    return js(body, list(actions))


def test_a_turn_becomes_a_response(js: Run) -> None:
    turn = {"key": "k", "place": "new-k", "conversation": None}
    settled = {**turn, "conversation": "conv_1"}
    node = {**_node("r", None, 1), "key": "k"}
    sent = {"type": "turn/sent", "key": "k", "id": "conv_1", "node": node}
    waiting = _reduced(js, {"type": "turn/changed", "turn": turn})
    assert (waiting["turns"], waiting["places"]) == ({"k": turn}, {})
    found = _reduced(
        js,
        {"type": "turn/changed", "turn": turn},
        {"type": "chat/settings", "place": "new-k", "settings": {"model": "x", "seed": 3}},
        {"type": "turn/changed", "turn": settled},
        sent,
    )
    assert found["places"] == {"new-k": "conv_1"}
    assert found["turns"] == {}
    assert found["settings"]["conv_1"] == {"seed": 3}
    assert found["conversations"]["conv_1"]["nodes"] == [node]
    assert found["conversations"]["conv_1"]["leaf"] == "r"


def test_what_another_tab_changes_is_noticed(js: Run) -> None:
    nodes = [{**one, "generation": f"g{one['id']}"} for one in NODES[:4]]
    known = {"type": "chat/nodes", "id": "conv_1", "nodes": nodes, "changes": {"state": "ready"}}

    def stale(event: dict[str, Any]) -> Any:
        found = _reduced(js, known, {"type": "live/event", "event": event})
        return found["conversations"]["conv_1"]

    assert stale({"conversations": {"conv_2": "added"}})["stale"] == 0
    assert stale({"conversations": {"conv_1": "added"}})["stale"] == 1
    assert stale({"conversations": {"": "changed"}})["stale"] == 1
    assert stale({"snapshot": True, "runs": []})["stale"] == 1
    fewer = stale({"deleted": ["gb"]})
    assert [(one["id"], one["previous"]) for one in fewer["nodes"]] == [
        ("a", None),
        ("c", "a"),
        ("d", "a"),
    ]


@pytest.mark.parametrize(
    ("leaf", "deleted", "after"),
    [("d", ["gd"], "b"), ("d", ["gd", "gb"], "a"), ("d", ["gc"], "d"), ("a", ["ga"], None)],
)
def test_who_reads_an_answer_that_is_deleted_reads_on_above_it(
    js: Run, leaf: str, deleted: list[str], after: str | None
) -> None:
    nodes = [{**one, "generation": f"g{one['id']}"} for one in NODES[:4]]
    changes = {"state": "ready", "leaf": leaf}
    found = _reduced(
        js,
        {"type": "chat/nodes", "id": "conv_1", "nodes": nodes, "changes": changes},
        {"type": "live/event", "event": {"deleted": deleted}},
    )
    assert found["conversations"]["conv_1"]["leaf"] == after


# Answers of other APIs.


def test_a_generation_as_entries(call: Call) -> None:
    about = {
        "id": "g",
        "state": "interrupted",
        "created": 5.5,
        "model": "demo",
        "text": "Four.",
        "blocks": [{"n": 0, "channel": "text", "html": "<p>Four.</p>"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3},
        "timings": {"generation": 100},
        "error": {"code": "interrupted", "message": "gone"},
        "finish_reason": None,
        "request": {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "<b>Hi</b>"},
                {"role": "user", "content": [{"type": "text", "text": "2+2?"}]},
            ],
            "params": {"n_probs": 3, "temperature": 0.5},
        },
    }
    system, hello, hi, last = call("generation.nodesOfGeneration", about)
    assert [one["role"] for one in (system, hello, hi)] == ["system", "user", "assistant"]
    # What a model said in an earlier turn is shown as text, whatever it is.
    assert hi["blocks"] == [{"n": 0, "channel": "plain", "text": "<b>Hi</b>"}]
    assert (last["id"], last["status"], last["logprobs"]) == ("resp_g", "failed", 3)
    assert last["tokens_per_second"] == pytest.approx(20)
    assert call("turn.questionOf", last["asked"])["text"] == "2+2?"
    prompt = {**about, "state": "done", "finish_reason": "length", "request": {"prompt": "Once"}}
    (only,) = call("generation.nodesOfGeneration", prompt)
    assert only["status"] == "incomplete"
    assert call("turn.questionOf", only["input"])["text"] == "Once"


def test_an_answer_that_was_begun_elsewhere_shows_what_came_before(call: Call) -> None:
    said = [{"type": "output_text", "text": "Hi"}]
    items = [
        {"type": "message", "role": "user", "content": "Hello"},
        {"type": "message", "role": "assistant", "content": said},
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
        {"type": "message", "role": "user", "content": "And?"},
    ]
    node = {"id": "r", "type": "response", "input": items}
    found = call("generation.expanded", node)
    assert [one["id"] for one in found] == ["r-0", "r-1", "r-2", "r"]
    assert [one.get("text") for one in found[:3]] == [None, "Hi", "f({})"]
    assert found[3] == {**node, "asked": items[3:]}
    assert call("turn.parted", items) == {"before": items[:3], "asked": items[3:]}
    short = {"id": "r", "type": "response", "input": items[:1]}
    assert call("generation.expanded", short) == [short]


def test_what_can_be_asked_again_in_a_conversation(call: Call) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [{"type": "text", "text": "?"}, image]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    system, user = call("generation.itemsAgain", {"request": {"messages": messages}})
    assert system == {"type": "message", "role": "system", "content": "Be brief."}
    assert user["content"] == [
        {"type": "input_text", "text": "?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
    ]
    tool = {"role": "tool", "content": "4", "tool_call_id": "c"}
    for others in ([*messages, tool], [], None):
        assert call("generation.itemsAgain", {"request": {"messages": others}}) is None
