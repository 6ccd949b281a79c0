"""What is around all views: menus, keys, titles."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.browser.profiles import PHONE, Profile, Profiles
from tests.support.processes import RunningServer
from tests.support.upstream.storyteller import Hold, Storyteller


@pytest.fixture
def profile(profiles: Profiles, server: RunningServer) -> Profile:
    return profiles.new(server)


@pytest.fixture
def page(profile: Profile, server: RunningServer) -> Page:
    """A new chat; there is a conversation of the title "One"."""
    url = f"http://{server.address}/v1/conversations"
    httpx.post(url, json={"title": "One"}).raise_for_status()
    return profile.open()


@pytest.mark.parametrize(
    ("name", "shown"), [("Actions for One", "menu"), (re.compile("Model: "), "dialog")]
)
def test_the_button_of_what_is_open_closes_it(
    page: Page, name: str | re.Pattern[str], shown: str
) -> None:
    button = page.get_by_role("button", name=name)
    button.click()
    expect(page.locator(f"[role={shown}]")).to_have_count(1)
    button.click()
    expect(page.locator(f"[role={shown}]")).to_have_count(0)
    expect(button).to_be_focused()
    button.click()
    page.get_by_role("main").click(position={"x": 5, "y": 5})
    expect(page.locator(f"[role={shown}]")).to_have_count(0)


def test_escape_closes_the_drawer_and_stops_no_answer(
    profiles: Profiles, server: RunningServer, teller: Storyteller
) -> None:
    teller.tell("Count", "one, two", Hold(), "three")
    page = profiles.new(server, PHONE).open()
    page.get_by_label("Your question").fill("Count")
    page.get_by_role("button", name="Send").click()
    turn = page.get_by_role("feed").get_by_role("article").last
    expect(turn).to_contain_text("one, two")
    page.get_by_role("button", name="Open the history").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("navigation", name="History")).not_to_be_in_viewport()
    expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(turn).to_contain_text("Stopped before its end.")


def test_escape_in_the_search_stops_no_answer(page: Page, teller: Storyteller) -> None:
    hold = Hold()
    teller.tell("Count", "one, two", hold, ", three")
    page.get_by_label("Your question").fill("Count")
    page.get_by_role("button", name="Send").click()
    turn = page.get_by_role("feed").get_by_role("article").last
    expect(turn).to_contain_text("one, two")
    page.keyboard.press("Control+k")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).to_be_focused()
    hold.set()
    expect(turn).to_contain_text("one, two, three")


def test_no_key_goes_behind_a_dialog(page: Page) -> None:
    page.goto("/#/settings")
    page.get_by_role("main").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_count(1)
    for key in ("?", "/", "Control+k", "Alt+n"):
        page.keyboard.press(key)
    expect(page.get_by_role("dialog")).to_have_count(1)
    expect(page.get_by_role("dialog").get_by_role("button", name="Close")).to_be_focused()
    expect(page).to_have_title(re.compile("Settings"))
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


#: A key as it is told: what it gives, where it is, and with which others it is pressed.
_PRESS = """
(event) => document.body.dispatchEvent(
  new KeyboardEvent("keydown", { bubbles: true, cancelable: true, ...event }))
"""


@pytest.mark.parametrize(
    "event",
    [
        {"key": "n", "code": "KeyN", "altKey": True},
        {"key": "Dead", "code": "KeyN", "altKey": True},  # Apple's
        {"key": "n", "code": "KeyL", "altKey": True},  # Dvorak's
        {"key": "т", "code": "KeyN", "altKey": True},
    ],
)
def test_a_key_is_known_on_every_keyboard(page: Page, event: dict[str, Any]) -> None:
    page.goto("/#/settings")
    expect(page).to_have_title(re.compile("Settings"))
    page.evaluate(_PRESS, event)
    expect(page).to_have_title(re.compile("New chat"))


def test_settings_follow_another_tab(profile: Profile, page: Page) -> None:
    page.goto("/#/settings")
    other = profile.open("/#/settings")
    for one, value in ((page, "dark"), (other, "light")):
        one.get_by_label("Colours").select_option(value)
        for tab in (page, other):
            expect(tab.get_by_label("Colours")).to_have_value(value)
    sure = "Ask how sure the model is"
    other.get_by_label(sure).uncheck()
    expect(page.get_by_label(sure)).not_to_be_checked()
    prompt = re.compile("System prompt")
    page.get_by_label(prompt).fill("Be brief.")
    expect(other.get_by_label(prompt)).to_have_value("Be brief.")
    other.get_by_label("Temperature").last.fill("hot")  # no value: it stays as it is written
    page.get_by_label("Colours").select_option("dark")
    expect(other.get_by_label("Colours")).to_have_value("dark")
    expect(other.get_by_label("Temperature").last).to_have_value("hot")


def test_each_view_has_its_title(page: Page) -> None:
    views = {"settings": "Settings", "server": "Server", "nowhere": "Not found", "": "New chat"}
    for path, title in views.items():
        page.goto(f"/#/{path}")
        expect(page).to_have_title(re.compile(f"^{title} . llcuda$"))
