"""By keyboard alone, on a phone, in the dark, with a screen reader."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.test_chatting import MARKDOWN
from tests.support.browser.accessibility import violations
from tests.support.browser.chat import Chat, asks
from tests.support.browser.profiles import DESKTOP, NARROW, PHONE, Profiles, Scheme
from tests.support.processes import RunningServer
from tests.support.upstream.storyteller import Call, Hold, Storyteller, Thought, words

#: More focusable things than a page has.
MOST_STOPS = 200


def focused(page: Page) -> str:
    """The name of what has the focus, as it is read out, nearly."""
    name: str = page.evaluate(
        """() => {
          const element = document.activeElement;
          return element.ariaLabel || element.labels?.[0]?.innerText || element.innerText || "";
        }"""
    )
    return name.strip()


def tab_to(page: Page, name: str, back: bool = False) -> None:
    """Press Tab until something of this name has the focus."""
    seen = []
    for _ in range(MOST_STOPS):
        if re.match(name, focused(page)):
            return
        page.keyboard.press("Shift+Tab" if back else "Tab")
        seen.append(focused(page))
    raise AssertionError(f"Tab never comes to {name}; it comes to {seen}")


def test_a_conversation_without_a_mouse(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("How are you?", *words("Fine, thank"), hold, " you.")
    teller.tell("How are you?", "Still fine.")
    teller.tell("And you?", "Me, too.")
    page = profiles.new(server).open()
    keys = page.keyboard
    chat = Chat(page)
    expect(chat.question_box).to_be_focused()
    keys.type("How are you?")
    keys.press("Enter")
    chat.sees("Fine, thank")
    tab_to(page, "Stop the answer")
    hold.set()
    chat.sees_the_end()
    tab_to(page, "Answer again", back=True)
    keys.press("Enter")
    chat.sees("Still fine.")
    chat.sees_the_end()
    tab_to(page, "Earlier version of the answer", back=True)
    keys.press("Space")
    chat.sees("Fine, thank you.")
    tab_to(page, "Edit the question", back=True)
    keys.press("Enter")
    keys.press("Control+A")
    keys.type("And you?")
    keys.press("Control+Enter")
    chat.sees("Me, too.")
    chat.sees_the_end()
    # The history: a search, its first hit, a menu, a dialog.
    keys.press("Control+K")
    keys.type("fine")
    expect(page.get_by_role("region", name="By words").get_by_role("link").first).to_be_visible()
    keys.press("ArrowDown")
    keys.press("Enter")
    chat.sees("fine")
    tab_to(page, "Actions for")
    keys.press("Enter")
    expect(page.get_by_role("menu")).to_be_visible()
    keys.press("ArrowDown")
    keys.press("Escape")
    expect(page.get_by_role("menu")).to_have_count(0)
    page.evaluate("document.activeElement.blur()")
    keys.press("?")
    shortcuts = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(shortcuts).to_contain_text("New chat")
    keys.press("Escape")
    expect(shortcuts).to_have_count(0)
    keys.press("Alt+N")
    expect(chat.answers).to_have_count(0)
    expect(chat.question_box).to_be_focused()


def test_the_focus_is_always_seen(profiles: Profiles, server: RunningServer) -> None:
    page = profiles.new(server).open()
    expect(Chat(page).question_box).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        shown = page.evaluate(
            """() => {
              const style = getComputedStyle(document.activeElement);
              // Behind the last one there is nothing of the page.
              const body = document.activeElement === document.body;
              return body || style.outlineStyle !== "none" || style.boxShadow !== "none";
            }"""
        )
        assert shown, focused(page)


def fill(chat: Chat, teller: Storyteller) -> None:
    """A conversation with all that an answer may have."""
    teller.tell(
        "Show me everything",
        Thought("I think, "),
        Thought("therefore."),
        *words(MARKDOWN),
        "\n\n> A quote of ![an image](https://example.org/x.png)\n\n- [ ] a task\n\n$$x^2$$\n\n",
        "x" * 300,
        Call("weather", '{"city": "Rome"}'),
    )
    chat.ask("Show me everything")
    chat.sees_the_end()


VIEWS = {
    "a new chat": "/#/",
    "the server": "/#/server",
    "the settings": "/#/settings",
    "nothing": "/#/c/conv_0",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE, NARROW], ids=["desktop", "phone", "narrow"])
def test_axe_finds_nothing_and_nothing_is_too_wide(
    profiles: Profiles,
    teller: Storyteller,
    server: RunningServer,
    scheme: Scheme,
    size: ViewportSize,
) -> None:
    profile = profiles.new(server, size, scheme, reduced_motion="reduce")
    profile.watch.expect("status of 404")  # of the conversation that is not there
    page = profile.open()
    chat = Chat(page)

    def well(what: str) -> None:
        assert violations(page) == [], what
        wide = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{what} is {wide} pixels too wide"

    for name, path in VIEWS.items():
        page.goto(path)
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
        expect(page.locator("main")).not_to_be_empty()
        well(name)
    page.goto("/#/")
    fill(chat, teller)
    well("a conversation")
    chat.button("More").click()
    well("a menu")
    page.keyboard.press("Escape")
    chat.button("Edit the question").click()
    well("a question that is edited")
    page.keyboard.press("Escape")
    if size["width"] < 600:
        expect(chat.history).to_be_hidden()
        page.get_by_role("button", name="Open the history").click()
    expect(chat.history).to_be_visible()
    well("the history")
    page.get_by_role("searchbox", name=re.compile("Search the history")).fill("hello")
    expect(page.get_by_role("region", name="By words").get_by_role("link")).to_have_count(1)
    well("what is found")


def test_a_phone_has_a_drawer(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    chat = asks(profiles.new(server, PHONE).open(), "Do I fit?")
    chat.sees_the_end()
    chat.page.get_by_role("button", name="Open the history").tap()
    expect(chat.history).to_be_visible()
    chat.page.get_by_role("button", name="Close the history").tap()
    expect(chat.history).to_be_hidden()
    chat.page.get_by_role("button", name="Open the history").tap()
    chat.history.get_by_role("link", name="Settings").tap()
    expect(chat.history).to_be_hidden()
    expect(chat.page.get_by_role("heading", name="Settings")).to_be_visible()


def test_enter_on_a_phone_is_a_new_line(profiles: Profiles, server: RunningServer) -> None:
    box = Chat(profiles.new(server, PHONE).open()).question_box
    box.fill("one")
    box.press("Enter")
    box.press_sequentially("two")
    expect(box).to_have_value("one\ntwo")


def test_a_screen_reader_hears_of_the_answer(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("Speak", "I", hold, " speak.")
    page = profiles.new(server).open()
    polite = page.locator('[aria-live="polite"]')
    chat = asks(page, "Speak")
    expect(polite.filter(has_text="The answer begins.")).to_be_attached()
    hold.set()
    chat.sees_the_end()
    expect(polite.filter(has_text="The answer is complete.")).to_be_attached()
