"""A person asks, reads, stops, asks again, and looks at other versions."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.support.browser.chat import Chat, asks
from tests.support.browser.profiles import Profiles
from tests.support.processes import RunningServer, running_server
from tests.support.upstream.storyteller import Call, Hold, Storyteller, Thought, storyteller, words

MARKDOWN = """\
# A heading

Some **bold** words, a [link](https://example.org/) and `code`.

| fruit | pieces |
|---|---:|
| apples | 3 |

```python
print("hello")
```

1. first
2. second
"""


def test_markdown_is_read_while_it_comes(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    half, rest = MARKDOWN.split("| apples")
    hold = Hold()
    teller.tell("Show me", *words(half), hold, *words(f"| apples{rest}"))
    profile = profiles.new(server)
    chat = asks(profile.open(), "Show me")
    expect(chat.answer.get_by_role("heading", name="A heading")).to_be_visible()
    expect(chat.answer.get_by_role("columnheader", name="pieces")).to_be_visible()
    expect(chat.answer).to_have_attribute("aria-busy", "true")
    expect(chat.answer.get_by_role("cell")).to_have_count(0)
    hold.set()
    chat.sees_the_end()
    expect(chat.answer.get_by_role("cell", name="apples")).to_be_visible()
    expect(chat.answer.locator("strong", has_text="bold")).to_be_visible()
    expect(chat.answer.get_by_role("listitem")).to_have_text(["first", "second"])
    link = chat.answer.get_by_role("link", name="link")
    expect(link).to_have_attribute("rel", re.compile("noopener"))
    expect(link).to_have_attribute("target", "_blank")
    # Of a turn below, what is above is still there.
    chat.ask("And then?")
    chat.sees("I do not know.", answers=2)
    expect(chat.questions).to_have_count(2)
    assert teller.asked[-1]["messages"][0]["content"] == "Show me"


def test_code_is_copied(profiles: Profiles, teller: Storyteller, server: RunningServer) -> None:
    teller.tell("Show me", MARKDOWN)
    profile = profiles.new(server)
    profile.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat = asks(profile.open(), "Show me")
    chat.sees_the_end()
    read = "navigator.clipboard.readText()"
    chat.button("Copy the code").click()
    expect(chat.page.get_by_text("Copied", exact=True)).to_be_attached()
    assert chat.page.evaluate(read) == 'print("hello")\n'
    chat.button("Copy the answer").click()
    chat.page.wait_for_function(f"{read}.then((text) => text.startsWith('# A heading'))")
    assert chat.page.evaluate(read) == MARKDOWN


def test_an_answer_is_stopped(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("Go on", *words("It goes on"), hold, " and on")
    chat = asks(profiles.new(server).open(), "Go on")
    chat.sees("It goes on")
    chat.button("Stop the answer").click()
    chat.sees_the_end()
    chat.sees("Stopped before its end")
    assert chat.text() == "It goes on"
    chat.page.reload()
    chat.sees("Stopped before its end")
    assert chat.text() == "It goes on"
    chat.ask("And now?")
    chat.sees("I do not know.", answers=2)


def test_versions_of_an_answer(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    teller.tell("Heads or tails?", "Heads.")
    teller.tell("Heads or tails?", "Tails.")
    chat = asks(profiles.new(server).open(), "Heads or tails?")
    chat.sees("Heads.")
    chat.sees_the_end()
    chat.button("Answer again").click()
    chat.sees("Tails.", answers=1)
    chat.sees_the_end()
    versions = chat.page.get_by_role("group", name="Versions of the answer")
    expect(versions).to_contain_text("2/2")
    chat.button("Earlier version of the answer").click()
    chat.sees("Heads.")
    expect(versions).to_contain_text("1/2")
    chat.page.reload()
    chat.button("Versions side by side").click()
    side_by_side = chat.page.get_by_role("dialog", name="Versions of the answer")
    expect(side_by_side.get_by_text("Heads.", exact=True)).to_be_visible()
    expect(side_by_side.get_by_text("Tails.", exact=True)).to_be_visible()


def test_a_question_is_edited(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    teller.tell("How old is Ann?", "Seven.")
    teller.tell("How old is Bob?", "Eight.")
    chat = asks(profiles.new(server).open(), "How old is Ann?")
    chat.sees("Seven.")
    chat.sees_the_end()
    chat.ask("Are you sure?")
    chat.sees("I do not know.", answers=2)
    chat.sees_the_end()
    chat.questions.first.get_by_role("button", name="Edit the question").click()
    box = chat.page.get_by_role("textbox", name="The question, edited")
    expect(box).to_have_value("How old is Ann?")
    box.fill("How old is Bob?")
    chat.page.get_by_role("button", name="Ask", exact=True).click()
    chat.sees("Eight.", answers=1)
    chat.sees_the_end()
    assert [one["role"] for one in teller.asked[-1]["messages"]] == ["user"]
    chat.button("Earlier version of the question").click()
    expect(chat.answers).to_have_count(2)
    expect(chat.answers.first).to_contain_text("Seven.")
    expect(chat.answers.last).to_contain_text("I do not know.")


def test_reasoning_is_folded_and_calls_of_tools_are_shown(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell(
        "Is it raining?",
        *map(Thought, words("I should look.")),
        hold,
        "Let me see.",
        Call("weather", '{"city": "Rome"}'),
    )
    chat = asks(profiles.new(server).open(), "Is it raining?")
    thought = chat.answer.get_by_text("I should look.")
    chat.sees("I should look.")
    hold.set()
    chat.sees_the_end()
    chat.sees("Let me see.")
    expect(thought).to_be_hidden()
    chat.answer.get_by_text("Thought", exact=True).click()
    expect(thought).to_be_visible()
    chat.sees("weather")
    chat.sees(re.compile(r'"city":\s*"Rome"'))


def test_another_model_answers(profiles: Profiles) -> None:
    with storyteller("tall") as tall, storyteller("short") as short:
        tall.tell("Who are you?", "The tall one.")
        short.tell("Who are you?", "The short one.")
        arguments = ("--upstream", tall.url, "--upstream", short.url, "--default-model", "tall")
        with running_server(*arguments) as server:
            chat = asks(profiles.new(server).open(), "Who are you?")
            chat.sees("The tall one.")
            chat.sees_the_end()
            chat.choose("More", re.compile("another model"))
            chat.page.get_by_role("option", name=re.compile("short")).click()
            chat.sees("The short one.", answers=1)
            chat.sees_the_end()
            expect(chat.answer).to_contain_text("short")
            chat.button("Versions side by side").click()
            side_by_side = chat.page.get_by_role("dialog", name="Versions of the answer")
            expect(side_by_side.get_by_text("The tall one.")).to_be_visible()
            expect(side_by_side.get_by_text("The short one.")).to_be_visible()


def test_a_page_that_is_loaded_again_goes_on_reading(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("Tell me", *words("The first half,"), hold, *words(" and the *other* one."))
    chat = asks(profiles.new(server).open(), "Tell me")
    chat.sees("The first half,")
    chat.page.reload()
    chat.sees("The first half,")
    expect(chat.answer).to_have_attribute("aria-busy", "true")
    hold.set()
    chat.sees_the_end()
    assert chat.text() == "The first half, and the other one."
    assert len(teller.asked) == 1


def test_an_error_of_the_upstream_is_told(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    teller.refuse("Hello", 400, "the prompt is not to my taste")
    profile = profiles.new(server)
    chat = asks(profile.open(), "Hello")
    expect(chat.page.get_by_text("the prompt is not to my taste")).to_be_visible()
    teller.tell("Hello", "Now I like it.")
    chat.page.get_by_role("button", name="Try again").last.click()
    chat.sees("Now I like it.")
    chat.sees_the_end()


def test_two_tabs_show_the_same(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("Both of you", *words("I am seen"), hold, " twice.")
    profile = profiles.new(server)
    one = asks(profile.open(), "Both of you")
    one.sees("I am seen")
    other = Chat(profile.open(one.page.url))
    other.sees("I am seen")
    hold.set()
    for tab in (one, other):
        tab.sees_the_end()
        assert tab.text() == "I am seen twice."
    other.ask("More")
    one.sees("I do not know.", answers=2)
