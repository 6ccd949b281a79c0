"""Two people on one server, each with what is theirs."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser.chat import Chat
from tests.support.browser.profiles import Profile, Profiles
from tests.support.processes import RunningServer, running_server
from tests.support.upstream.storyteller import Hold, Storyteller, words

TOKENS = """\
secret-of-ann  name=ann
secret-of-bob  name=bob
secret-of-root name=root role=admin
"""
#: Of Chromium, where a request is answered so; the page says it in words.
REFUSED = r"status of 401"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(TOKENS, encoding="utf-8")
    return path


@pytest.fixture
def server(teller: Storyteller, tmp_path: Path, tokens: Path) -> Iterator[RunningServer]:
    arguments = ("--upstream", teller.url, "--auth-token-file", str(tokens))
    with running_server(*arguments, "--data-dir", str(tmp_path / "data")) as found:
        yield found


def sign_in(page: Page, token: str) -> Chat:
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Sign in").click()
    return Chat(page)


def come_in(profile: Profile, token: str) -> Chat:
    chat = sign_in(profile.open(), token)
    expect(chat.question_box).to_be_visible()
    return chat


def test_two_people_see_nothing_of_each_other(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("A secret of Ann", *words("Nobody knows"), hold, " it.")
    ann, bob = profiles.new(server), profiles.new(server)
    bob.watch.expect(r"status of 404")
    hers, his = come_in(ann, "secret-of-ann"), come_in(bob, "secret-of-bob")
    hers.ask("A secret of Ann")
    hers.sees("Nobody knows")
    expect(hers.history.get_by_role("link", name=re.compile("secret of Ann"))).not_to_have_count(0)
    his.ask("What of Bob?")
    his.sees("I do not know.")
    expect(his.history).to_contain_text("What of Bob?")
    expect(his.history).not_to_contain_text("Ann")
    his.page.goto(hers.page.url)
    expect(
        his.page.get_by_text(re.compile("not (there|found)|no such", re.IGNORECASE)).first
    ).to_be_visible()
    expect(his.page.locator("body")).not_to_contain_text("Nobody knows")
    expect(hers.history).not_to_contain_text("Bob")
    hold.set()
    hers.sees_the_end()


def test_a_session_survives_the_server(
    profiles: Profiles, teller: Storyteller, tmp_path: Path, tokens: Path
) -> None:
    kept = ("--data-dir", str(tmp_path / "data"))
    arguments = ("--upstream", teller.url, "--auth-token-file", str(tokens), *kept)
    with running_server(*arguments) as server:
        profile = profiles.new(server)
        chat = come_in(profile, "secret-of-ann")
        profile.watch.expect(r"net::ERR_|Failed to (load resource|fetch)")
        server.stop(signal.SIGKILL)
        with running_server(*arguments, "--port", str(server.port)):
            chat.ask("Do you know me?")
            chat.sees("I do not know.")
            chat.sees_the_end()
