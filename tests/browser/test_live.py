"""The live stream in a browser: one for all tabs, which is opened again for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

from tests.support.browser.profiles import Profile, Profiles
from tests.support.processes import RunningServer, running_server, wait_until
from tests.support.upstream.storyteller import Hold, Storyteller

_PLAIN = "<!doctype html><html lang=en><title>Plain</title>"
_START = """async () => {
  const { createStore } = await import("/page/js/core/store.js");
  const { startLive, liveReducers } = await import("/page/js/core/live/index.js");
  window.events = [];
  const events = (state = 0, action) => {
    if (action.type === "live/event") window.events.push(action.event);
    return state;
  };
  window.store = createStore({ ...liveReducers, events, session: () => ({ state: "known" }) });
  window.live = startLive({ store: window.store });
}"""
#: What a page would show of an answer, as text.
_SHOWN = """(id) => {
  const answer = window.store.get().live.answers[id];
  if (!answer) return "";
  const of = ({ html, text, more = [] }) => {
    const element = document.createElement("div");
    element.innerHTML = html ?? "";
    return element.textContent.trim() + (text ?? "") + more.join("");
  };
  return [...answer.blocks, ...(answer.open ? [answer.open] : [])].map(of).join("|");
}"""


def _tab(profile: Profile) -> Page:
    """A tab with nothing but the live stream."""
    headers = {"content-type": "text/html; charset=utf-8"}
    profile.context.route("**/plain", lambda route: route.fulfill(body=_PLAIN, headers=headers))
    page = profile.open("/plain")
    page.evaluate(_START)
    return page


def _live(page: Page) -> Any:
    return page.evaluate("window.store.get().live")


def _ask(server: RunningServer, question: str) -> str:
    body = {"model": "m", "input": question, "background": True, "store": True}
    answer = httpx.post(f"http://{server.address}/v1/responses", json=body, timeout=60)
    return str(answer.raise_for_status().json()["id"]).removeprefix("resp_")


def _shows(page: Page, id_: str, text: str) -> None:
    wait_until(lambda: page.evaluate(_SHOWN, id_) == text, f"{text!r} is shown")


def _opens(page: Page) -> None:
    wait_until(lambda: _live(page)["connection"] == "open", "the stream is open")


def _runs(page: Page, id_: str) -> None:
    wait_until(lambda: id_ in _live(page)["runs"], "it runs")


def _over(page: Page, id_: str) -> None:
    wait_until(lambda: id_ not in _live(page)["runs"], "its end is known")


def _watch(page: Page, id_: str) -> None:
    page.evaluate("(id) => { window.unwatch = window.live.watch(id); }", id_)


def test_tabs_share_a_stream_and_each_has_what_it_follows(
    profiles: Profiles, server: RunningServer, teller: Storyteller
) -> None:
    first, second = Hold(), Hold()
    teller.tell("go", "One *two*\n\n", "thr", first, "ee ", "four", second, "\n\nfive")
    profile = profiles.new(server)
    tabs = [_tab(profile) for _ in range(3)]
    for tab in tabs:
        _opens(tab)
    id_ = _ask(server, "go")
    for tab in tabs:
        _runs(tab, id_)
    _watch(tabs[0], id_)
    _shows(tabs[0], id_, "One two|thr")
    _watch(tabs[2], id_)
    _shows(tabs[2], id_, "One two|thr")
    first.set()
    for tab in (tabs[0], tabs[2]):
        _shows(tab, id_, "One two|three four")
    assert _live(tabs[1])["answers"] == {}
    tabs[0].close()  # it may have been the leader
    second.set()
    _shows(tabs[2], id_, "One two|three four|five")
    # Who does not follow it may have no stream while it ends, and knows of it by what runs then.
    for tab in tabs[1:]:
        _over(tab, id_)
    wait_until(lambda: _live(tabs[2])["answers"][id_]["ended"] is not None, "its end is told")
    assert _live(tabs[2])["answers"][id_]["ended"]["state"] == "done"


def test_an_answer_that_is_over_comes_whole(
    profiles: Profiles, server: RunningServer, teller: Storyteller
) -> None:
    teller.tell("go", "# A\n\nb")
    id_ = _ask(server, "go")
    tab = _tab(profiles.new(server))
    _watch(tab, id_)
    _shows(tab, id_, "A|b")
    _watch(tab, "nobody")
    wait_until(lambda: "nobody" in _live(tab)["answers"], "it is said")
    assert _live(tab)["answers"]["nobody"]["error"]["code"] == "generation_not_found"


def test_a_server_that_is_killed_is_come_back_to(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    hold = Hold()
    teller.tell("go", "One\n\ntwo ", hold, "three\n\nfour")
    options = ("--upstream", teller.url, "--data-dir", str(tmp_path / "data"))
    with running_server(*options, LLCUDA_STORE="sqlite") as server:
        profile = profiles.new(server)
        profile.watch.expect("ERR_|Failed to load resource")
        tab, other = _tab(profile), _tab(profile)
        id_ = _ask(server, "go")
        for one in (tab, other):
            _watch(one, id_)
            _shows(one, id_, "One|two")
        server.process.kill()
        server.process.wait()
        wait_until(lambda: _live(other)["connection"] == "lost", "it is lost")
        port = str(server.port)
        hold.set()
        with running_server(*options, "--port", port, LLCUDA_STORE="sqlite"):
            for one in (tab, other):
                _shows(one, id_, "One|two three|four")
            assert _live(tab)["connection"] == "open"


_NO_LOCKS = "Object.defineProperty(navigator, 'locks', {value: undefined})"
#: As in a browser that lets pages keep nothing.
_DENIED = """
if (navigator.locks)
    navigator.locks.request = async () => { throw new DOMException("", "SecurityError"); };
"""


@pytest.mark.parametrize("script", [_NO_LOCKS, _DENIED])
def test_a_tab_alone_where_there_are_no_locks(
    profiles: Profiles, server: RunningServer, teller: Storyteller, script: str
) -> None:
    teller.tell("go", "a")
    profile = profiles.new(server)
    asked: list[str] = []
    profile.context.on("request", lambda one: asked.append(one.url))
    profile.context.add_init_script(script)
    tabs = [_tab(profile), _tab(profile)]
    id_ = _ask(server, "go")
    for tab in tabs:
        _watch(tab, id_)
        _shows(tab, id_, "a")
    assert sum("/v1/events" in one for one in asked) >= 2


def test_one_that_sleeps_leads_no_longer(
    profiles: Profiles, server: RunningServer, teller: Storyteller
) -> None:
    teller.tell("go", "a")
    profile = profiles.new(server)
    sleeper = _tab(profile)
    _opens(sleeper)
    other = _tab(profile)
    session = profile.context.new_cdp_session(sleeper)
    session.send("Debugger.enable")
    session.send("Debugger.pause")
    id_ = _ask(server, "go")
    _watch(other, id_)
    _shows(other, id_, "a")
    session.send("Debugger.resume")
