"""An answer outlives its page, its server and the machine of its reader."""

from __future__ import annotations

import re
import signal
from contextlib import ExitStack
from pathlib import Path

import httpx
from openai import OpenAI
from playwright.sync_api import Page, expect

from tests.support.browser.chat import Chat, asks
from tests.support.browser.profiles import PHONE, Profiles
from tests.support.processes import PATIENCE, RunningServer, running_server
from tests.support.upstream.storyteller import Hold, Storyteller, Thought, words

#: What a browser says of requests to a server that is not there.
GONE = r"net::ERR_|Failed to (load resource|fetch)"
NOT_REACHED = re.compile("not reached", re.IGNORECASE)

STORY = """\
Once there was a **server** that

1. was killed,
2. came back,

```
and went on
```

| where | it |
|---|---|
| had | been |

as if nothing had happened.
"""


def told(teller: Storyteller, question: str, hold: Hold) -> None:
    """The story, held within its list and once more within its table."""
    first, rest = STORY.split(" came")
    teller.tell(question, Thought("I know one."), *words(first), hold, *words(f" came{rest}"))


def page_is_lost(page: Page) -> None:
    expect(page.get_by_role("status").filter(has_text=NOT_REACHED)).to_be_visible()


def test_kill_9_in_the_middle_of_an_answer(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    hold = Hold()
    told(teller, "Tell me a story", hold)
    arguments = ["--upstream", teller.url, "--data-dir", str(tmp_path)]
    with ExitStack() as stack:
        server = stack.enter_context(running_server(*arguments))
        laptop, phone = profiles.new(server), profiles.new(server, PHONE)
        one = asks(laptop.open(), "Tell me a story")
        one.sees("was killed,")
        tabs = [one, Chat(laptop.open(one.page.url)), Chat(phone.open(one.page.url))]
        for _ in range(2):
            for tab in tabs:
                tab.sees("was killed,")
                expect(tab.answer).to_have_attribute("aria-busy", "true")
            laptop.watch.expect(GONE)
            phone.watch.expect(GONE)
            server.stop(signal.SIGKILL)
            for tab in tabs:
                page_is_lost(tab.page)
            server = stack.enter_context(running_server(*arguments, "--port", str(server.port)))
            for tab in tabs:
                expect(tab.page.get_by_role("status").filter(has_text=NOT_REACHED)).to_be_hidden()
        hold.set()
        for tab in tabs:
            tab.sees_the_end()
            tab.sees("as if nothing had happened.")
        # Nothing disturbs this one.
        undisturbed = asks(profiles.new(server).open(), "Tell me a story")
        undisturbed.sees_the_end()
        html = undisturbed.answer.locator(".blocks").inner_html()
        assert {tab.answer.locator(".blocks").inner_html() for tab in tabs} == {html}
        one.page.reload()
        one.sees_the_end()
        assert one.answer.locator(".blocks").inner_html() == html


def test_a_question_that_is_asked_while_the_server_is_gone(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    arguments = ["--upstream", teller.url, "--data-dir", str(tmp_path)]
    with ExitStack() as stack:
        server = stack.enter_context(running_server(*arguments))
        profile = profiles.new(server)
        chat = Chat(profile.open())
        expect(chat.question_box).to_be_visible()
        profile.watch.expect(GONE)
        server.stop(signal.SIGKILL)
        page_is_lost(chat.page)
        chat.ask("Are you there?")
        expect(chat.questions).to_contain_text("Are you there?")
        stack.enter_context(running_server(*arguments, "--port", str(server.port)))
        chat.sees("I do not know.", answers=1)
        chat.sees_the_end()
        assert len(teller.asked) == 1


def test_an_answer_of_an_sdk_appears_is_read_and_stopped(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("From a program", *words("It comes from elsewhere"), hold, " and ends.")
    profile = profiles.new(server)
    chat = Chat(profile.open())
    expect(chat.question_box).to_be_visible()
    with OpenAI(base_url=f"http://{server.address}/v1", api_key="any", timeout=PATIENCE) as client:
        stream = client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "From a program"}],
            stream=True,
            extra_headers={"Idempotency-Key": "one"},
        )
        with stream:
            next(iter(stream))
            chat.go_back_to(re.compile("From a program"))
            chat.sees("It comes from elsewhere")
            chat.button("Stop the answer").click()
            chat.sees_the_end()
    chat.page.reload()
    chat.sees("It comes from elsewhere")


def test_an_answer_of_curl_is_gone_on_from(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("From curl", *words("It comes from elsewhere"), hold, " and ends.")
    body = {"input": "From curl", "background": True}
    httpx.post(f"http://{server.address}/v1/responses", json=body, timeout=PATIENCE)
    chat = Chat(profiles.new(server).open())
    chat.go_back_to(re.compile("From curl"))
    chat.sees("It comes from elsewhere")
    hold.set()
    chat.sees_the_end()
    chat.sees("and ends.")
    teller.tell("And now?", "We go on.")
    chat.ask("And now?")
    chat.sees("We go on.")
    chat.sees_the_end()
    said = [one["content"] for one in teller.asked[-1]["messages"]]
    assert said == ["From curl", "It comes from elsewhere and ends.", "And now?"]


#: Of one profile; a browser allows six connections to a host.
TABS = 20


def test_the_tabs_of_a_profile_share_one_stream(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("All of you", *words("We all see"), hold, *words(" the same."))
    profile = profiles.new(server)
    first = asks(profile.open(), "All of you")
    first.sees("We all see")
    others = [Chat(profile.open(first.page.url)) for _ in range(TABS - 1)]
    for tab in others:
        tab.sees("We all see")
    streams = [one for one in profile.watch.open_requests if "/v1/events" in one]
    assert len(streams) == 1, streams
    # The one that has it is closed: another one takes it over.
    first.page.close()
    hold.set()
    for tab in others:
        tab.sees_the_end()
        assert tab.text() == "We all see the same."


def test_what_another_browser_does_is_seen(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    """On loopback without tokens all are one user."""
    laptop, phone = Chat(profiles.new(server).open()), Chat(profiles.new(server).open())
    expect(phone.question_box).to_be_visible()
    laptop.ask("What is new?")
    laptop.sees_the_end()
    phone.go_back_to(re.compile("What is new"))
    phone.sees("I do not know.")
    phone.ask("And what is old?")
    laptop.sees("I do not know.", answers=2)
