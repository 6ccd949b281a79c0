"""Blocks of an answer in the document: made once, and never again."""

from __future__ import annotations

from typing import Any

from tests.support.browser.modules import Run

#: `show` shows blocks; `mark` marks all elements that are there, `kept` tells which of the blocks'
#: elements have been marked; `texts` are those of the blocks, in their order.
_WORLD = """
const { createBlocks } = await load("blocks");
const prefs = { reasoningOpen: Boolean(given?.open) };
const app = { store: { get: () => ({ prefs }) }, announce() {}, notify() {} };
const view = createBlocks(app);
document.body.replaceChildren(view.element);
const all = () => [...view.element.querySelectorAll(".block, .tool-call")];
const show = view.show;
const mark = () => view.element.querySelectorAll("*").forEach((one) => (one.marked = true));
const kept = () => all().map((one) => Boolean(one.marked));
const texts = () => all().map((one) => one.textContent);
const text = (n, html) => ({ n, channel: "text", html });
"""


def _run(js: Run, body: str, given: Any = None) -> Any:
    return js(_WORLD + body, given)


def test_a_final_block_is_made_once(js: Run) -> None:
    body = """
    const first = text(0, "<p>one</p>");
    show([first]);
    mark();
    show([first, text(1, "<p>two</p>"), text(2, "<p>three</p>")]);
    return [texts(), kept()];
    """
    assert _run(js, body) == [["one", "two", "three"], [True, False, False]]


def test_the_open_block_grows_and_becomes_final_in_its_place(js: Run) -> None:
    body = """
    const first = text(0, "<p>one</p>");
    const open = text(1, "<p>tw");
    show([first], open);
    mark();
    const seen = [texts()];
    show([first], { ...open, more: ["o", " "] });
    show([first], { ...open, more: ["o", " ", "& <b>"] });
    seen.push(texts());
    show([first], text(1, "<p>two &amp; <b>bold</b></p>"));
    seen.push(texts());
    show([first, text(1, "<p>two &amp; <b>bold</b>!</p>")]);
    return [...seen, texts(), kept()];
    """
    assert _run(js, body) == [
        ["one", "tw"],
        ["one", "two & <b>"],
        ["one", "two & bold"],
        ["one", "two & bold!"],
        [True, True],
    ]


def test_text_that_is_added_goes_where_the_open_block_ends(js: Run) -> None:
    body = """
    const code = '<pre><code class="language-python">def f():\\n</code></pre>\\n';
    show([], { ...text(0, code), more: ["  <pass>\\n"] });
    const first = view.element.querySelector("code").textContent;
    const list = "<ul>\\n<li>one</li>\\n<li>\\n<p>tw</p>\\n</li>\\n</ul>\\n";
    show([], { ...text(1, list), more: ["o"] });
    return [first, view.element.querySelector("li:last-child p").textContent];
    """
    assert _run(js, body) == ["def f():\n  <pass>\n", "two"]


def test_an_open_block_that_is_no_more_is_gone(js: Run) -> None:
    body = """
    show([text(0, "<p>one</p>")], text(1, "<p>tw</p>"));
    show([text(0, "<p>one</p>")]);
    return texts();
    """
    assert _run(js, body) == ["one"]


def test_blocks_that_are_others_take_the_place_of_all(js: Run) -> None:
    body = """
    show([text(0, "<p>one</p>"), text(1, "<p>two</p>")]);
    show([text(0, "<p>one</p>")]);
    const fewer = texts();
    show([text(0, "<p>other</p>"), text(1, "<p>two</p>")]);
    return [fewer, texts()];
    """
    assert _run(js, body) == [["one"], ["other", "two"]]


def test_the_same_blocks_from_elsewhere_change_nothing(js: Run) -> None:
    """At its end an answer is read as it is stored: whoever has selected some of it keeps that."""
    body = """
    const call = { n: 1, channel: "tool_call", name: "f", text: "{}" };
    const told = () => [text(0, "<p>one</p>"), { ...call }];
    show(told());
    mark();
    show(told());
    return kept();
    """
    assert _run(js, body) == [True, True]


_THOUGHT = """
const thought = { n: 0, channel: "reasoning", html: "<p>Hm.</p>" };
const details = () => view.element.querySelector("details");
"""


def test_thinking_is_folded_when_it_is_over(js: Run) -> None:
    body = f"""{_THOUGHT}
    show([], thought);
    const during = [details().open, details().querySelector("summary").textContent];
    show([thought, text(1, "<p>Four.</p>")]);
    return [during, [details().open, details().querySelector("summary").textContent]];
    """
    assert _run(js, body, {"open": True}) == [[True, "Thinking…"], [False, "Thought"]]
    assert _run(js, body)[0] == [False, "Thinking…"]


def test_thinking_that_was_opened_stays_open(js: Run) -> None:
    body = f"""{_THOUGHT}
    show([], thought);
    details().querySelector("summary").click();
    show([thought, text(1, "<p>Four.</p>")]);
    view.settle();
    return details().open;
    """
    assert _run(js, body) is True


def test_text_of_a_model_is_text(js: Run) -> None:
    body = """
    const evil = "<img src=x onerror='window.bad = 1'><script>window.bad = 1</script>";
    const call = { n: 1, channel: "tool_call", name: evil, text: evil };
    show([{ n: 0, channel: "plain", text: evil }, call]);
    return [view.element.querySelectorAll("img, script").length, all()[0].textContent === evil];
    """
    assert _run(js, body) == [0, True]


def test_what_is_added_to_code_tables_and_links(js: Run) -> None:
    body = """
    const code = '<pre><code class="language-c++">int i;</code></pre>';
    const table = "<table><tbody><tr><td>1</td></tr></tbody></table>";
    const link = '<p><a href="https://example.org:8443/a">x</a> <a href="mailto:a@b.c">m</a></p>';
    show([text(0, code), text(1, table), text(2, link)]);
    const find = (name) => view.element.querySelector(name);
    const [web, mail] = view.element.querySelectorAll("a");
    return {
      language: find(".code-head").textContent,
      copy: find(".code button").getAttribute("aria-label"),
      table: [find(".table").tabIndex, find(".table > table") !== null],
      web: [web.target, web.rel, web.title],
      mail: mail.title,
    };
    """
    assert _run(js, body) == {
        "language": "c++",
        "copy": "Copy the code",
        "table": [0, True],
        "web": [
            "_blank",
            "nofollow noopener noreferrer",
            "Opens example.org:8443 in a new tab",
        ],
        "mail": "mailto:a@b.c",
    }


def test_arguments_of_a_tool_are_made_readable_at_the_end(js: Run) -> None:
    body = """
    const call = { n: 0, channel: "tool_call", name: "f", text: '{"a":' };
    show([], { ...call, more: ["1}"] });
    const open = view.element.querySelector("code").textContent;
    show([{ ...call, text: '{"a":1}' }]);
    const final = view.element.querySelector("code").textContent;
    show([{ ...call, text: '{"a":1}' }, { ...call, n: 1, text: "no JSON" }]);
    return [open, final, [...view.element.querySelectorAll("code")].at(-1).textContent];
    """
    assert _run(js, body) == ['{"a":1}', '{\n  "a": 1\n}', "no JSON"]
