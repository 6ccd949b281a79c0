"""The page is there, and all that it is made of comes from this server."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import expect

from tests.support.browser.chat import Chat
from tests.support.browser.profiles import Profiles
from tests.support.processes import PATIENCE, RunningServer


def test_it_opens(profiles: Profiles, server: RunningServer) -> None:
    chat = Chat(profiles.new(server).open())
    expect(chat.page).to_have_title(re.compile("llcuda"))
    expect(chat.question_box).to_be_focused()
    expect(chat.history).to_be_visible()


def test_it_is_under_a_strict_policy(server: RunningServer) -> None:
    answer = httpx.get(f"http://{server.address}/", timeout=PATIENCE)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


def test_an_unknown_place_says_so(profiles: Profiles, server: RunningServer) -> None:
    page = profiles.new(server).open("/#/no/such/place?a=b&c")
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    page.locator("main").get_by_role("link", name="New chat").click()
    expect(Chat(page).question_box).to_be_visible()
