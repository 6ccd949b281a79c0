"""What is around all views: menus, keys, titles."""

from __future__ import annotations

import re

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


def test_each_view_has_its_title(page: Page) -> None:
    views = {"settings": "Settings", "server": "Server", "nowhere": "Not found", "": "New chat"}
    for path, title in views.items():
        page.goto(f"/#/{path}")
        expect(page).to_have_title(re.compile(f"^{title} . llcuda$"))
