"""Signing in and out in a browser, and what a page of another port of this host can do: nothing."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.browser.accessibility import violations
from tests.support.browser.chat import asks
from tests.support.browser.profiles import Profile, Profiles
from tests.support.processes import RunningServer, running_server
from tests.support.upstream.storyteller import Storyteller

ANN, BOB = "token-of-ann-12345", "token-of-bob-12345"
#: What a browser says of a request that was refused, as it should be.
REFUSED = r"status of 40[13]"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"{ANN} name=ann role=admin\n{BOB} name=bob\n", encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture
def guarded(teller: Storyteller, tokens: Path, tmp_path: Path) -> Iterator[RunningServer]:
    """A server with users."""
    kept = ("--data-dir", str(tmp_path / "data"), "--auth-token-file", str(tokens))
    with running_server("--upstream", teller.url, *kept) as found:
        yield found


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Sign in").click()


def account(page: Page) -> Any:
    return page.get_by_role("group", name="Account")


def test_in_with_a_token_and_out_again(guarded: RunningServer, profiles: Profiles) -> None:
    profile = profiles.new(guarded)
    profile.watch.expect(REFUSED)
    page = profile.open("/#/settings")
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    assert violations(page) == []
    page.keyboard.type("token-that-is-wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The token is wrong")
    assert violations(page) == []
    page.keyboard.type(ANN)  # what was wrong is selected
    page.keyboard.press("Enter")
    expect(account(page)).to_contain_text("Signed in as ann, an admin")
    assert page.url.endswith("#/settings")
    assert page.evaluate("document.cookie") == ""
    page.reload()
    expect(account(page)).to_contain_text("ann")
    account(page).get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_label("Token", exact=True)).to_be_visible()
    assert profile.context.cookies() == []
    page.go_back()
    expect(page.get_by_label("Token", exact=True)).to_be_visible()


def test_all_tabs_go_in_and_out_together(guarded: RunningServer, profiles: Profiles) -> None:
    profile, elsewhere = profiles.new(guarded), profiles.new(guarded)
    for one in (profile, elsewhere):
        one.watch.expect(REFUSED)
    first, second, other = profile.open("/#/settings"), profile.open("/#/server"), elsewhere.open()
    sign_in(first, ANN)
    expect(second.get_by_role("navigation", name="History")).to_be_visible()
    sign_in(other, ANN)
    expect(other.get_by_role("navigation", name="History")).to_be_visible()
    account(first).get_by_role("button", name="Sign out everywhere").click()
    first.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    for page in (first, second, other):
        expect(page.get_by_label("Token", exact=True)).to_be_visible()
    sign_in(second, ANN)
    expect(second.get_by_role("navigation", name="History")).to_be_visible()
    assert second.url.endswith("#/server")
    expect(first.get_by_role("navigation", name="History")).to_be_visible()


def test_a_refusal_from_before_somebody_signed_in_signs_nobody_out(
    guarded: RunningServer, profiles: Profiles, teller: Storyteller
) -> None:
    profile = profiles.new(guarded)
    profile.watch.expect(REFUSED)
    page = profile.open("/#/settings")
    sign_in(page, ANN)
    expect(account(page)).to_contain_text("ann")
    seen = []

    def refuse(route: Route) -> None:
        seen.append(urlsplit(route.request.url).path)
        route.fulfill(status=401, json={})

    paths = ["/v1/events", "/v1/responses"]  # of these the page asks when there is a question
    for path in paths:
        profile.context.route(f"**{path}*", refuse, times=1)
    page.evaluate("location.hash = '#/'")
    teller.tell("Hello", "Good day.")
    asks(page, "Hello").sees_the_end()
    expect(page.get_by_role("navigation", name="History")).to_be_visible()
    assert sorted(seen) == paths


def test_nothing_of_one_user_is_left_for_the_next(
    guarded: RunningServer, profiles: Profiles
) -> None:
    profile = profiles.new(guarded)
    profile.watch.expect(REFUSED)
    headers = {"Authorization": f"Bearer {ANN}"}
    httpx.post(
        f"{profile.origin}/v1/conversations", json={"title": "Of Ann alone"}, headers=headers
    ).raise_for_status()
    page = profile.open()
    sign_in(page, ANN)
    expect(page.get_by_text("Of Ann alone").first).to_be_visible()
    httpx.delete(f"{profile.origin}/v1/session?all=true", headers=headers).raise_for_status()
    expect(page.get_by_label("Token", exact=True)).to_be_visible()
    sign_in(page, BOB)
    expect(page.get_by_role("navigation", name="History")).to_be_visible()
    expect(page.get_by_text("Of Ann alone")).to_have_count(0)


def test_nothing_lies_above_the_form(guarded: RunningServer, profiles: Profiles) -> None:
    """Dialogs, menus, messages and the title say what was of who was signed in."""
    profile = profiles.new(guarded)
    profile.watch.expect(rf"{REFUSED}|status of 500")
    headers = {"Authorization": f"Bearer {ANN}"}
    url = f"{profile.origin}/v1/conversations"
    made = httpx.post(url, json={"title": "Of Ann alone"}, headers=headers).json()
    page = profile.open(f"/#/c/{made['id']}")
    token = page.get_by_label("Token", exact=True)

    def choose(action: str) -> None:
        page.get_by_role("button", name="Actions for Of Ann alone").click()
        if action:
            page.get_by_role("menuitem", name=action).click()

    def is_signed_out() -> None:
        httpx.delete(f"{profile.origin}/v1/session?all=true", headers=headers).raise_for_status()
        expect(token).to_be_visible()
        for role in ("menu", "dialog", "alert"):
            expect(page.get_by_role(role)).to_have_count(0)
        expect(page.get_by_text("Ann")).to_have_count(0)
        expect(page).to_have_title("llcuda")

    sign_in(page, ANN)
    expect(page).to_have_title(re.compile("Of Ann alone"))
    failed = {"status": 500, "json": {"error": {"message": "the disk of Ann is full"}}}
    page.route(f"**/v1/conversations/{made['id']}", lambda route: route.fulfill(**failed))
    choose("Pin")
    expect(page.get_by_role("alert")).to_contain_text("the disk of Ann is full")
    choose("Delete")
    expect(page.get_by_role("dialog")).to_contain_text("Of Ann alone")
    is_signed_out()
    sign_in(page, ANN)
    expect(page).to_have_title(re.compile("Of Ann alone"))
    choose("")
    is_signed_out()


def test_a_token_that_is_gone_ends_it_under_the_page(
    guarded: RunningServer, profiles: Profiles, tokens: Path
) -> None:
    profile = profiles.new(guarded)
    profile.watch.expect(REFUSED)
    page = profile.open("/#/settings")
    sign_in(page, BOB)
    expect(account(page)).to_contain_text("bob")
    tokens.write_text(f"{ANN} name=ann role=admin\n", encoding="utf-8")
    guarded.process.send_signal(signal.SIGHUP)
    expect(page.get_by_label("Token", exact=True)).to_be_visible()
    expect(page.get_by_text("You were signed out")).to_be_visible()


#: What a page of another origin tries; the script fills `results` and sets the title when done.
_EVIL = """<!doctype html><title>tries</title>
<iframe name="sink"></iframe><iframe src="TARGET/"></iframe>
<form id="form" action="TARGET/v1/conversations" method="post" target="sink"
 enctype="text/plain"><input name='{"title": "planted by a form", "metadata": {"a": "'
 value='"}}'></form>
<form id="login" action="TARGET/v1/session" method="post" target="sink"
 enctype="text/plain"><input name='{"token": "TOKEN"}' value=""></form>
<img src="TARGET/v1/conversations"><script src="TARGET/v1/conversations"></script>
<script>
const results = [];
async function attempt(name, path, options) {
  try {
    const answer = await fetch("TARGET" + path, { credentials: "include", ...options });
    results.push([name, answer.type, answer.type === "opaque" ? 0 : answer.status]);
  } catch (error) {
    results.push([name, "error", 0]);
  }
}
const json = { "Content-Type": "application/json" };
const body = JSON.stringify({ title: "planted by a script" });
(async () => {
  await attempt("read", "/v1/conversations");
  await attempt("blind read", "/v1/conversations", { mode: "no-cors" });
  await attempt("write", "/v1/conversations", { method: "POST", headers: json, body });
  await attempt("blind write", "/v1/conversations", { method: "POST", mode: "no-cors", body });
  await attempt("delete", "/v1/session", { method: "DELETE" });
  await attempt("out", "/v1/session?all=true", { method: "DELETE", mode: "no-cors" });
  await attempt("in", "/v1/session", {
    method: "POST", mode: "no-cors", body: JSON.stringify({ token: "TOKEN" }),
  });
  document.getElementById("form").submit();
  await new Promise((done) => (document.querySelector("[name=sink]").onload = done));
  document.getElementById("login").submit();
  await new Promise((done) => (document.querySelector("[name=sink]").onload = done));
  document.cookie = "llcuda_PORT=" + "x".repeat(43) + "; path=/v1";
  document.title = "done";
})();
</script>
"""


@contextmanager
def other_page(target: str) -> Iterator[str]:
    """The address of a page on another port of the same host, which attacks this server."""
    text = _EVIL.replace("TARGET", target).replace("TOKEN", BOB)
    text = text.replace("PORT", target.rpartition(":")[2])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _attacked(profile: Profile, address: str) -> list[list[Any]]:
    page = profile.context.new_page()
    page.goto(address)
    expect(page).to_have_title("done")
    found = page.evaluate("results")
    assert isinstance(found, list)
    return found


def _titles(profile: Profile, headers: dict[str, str] | None = None) -> list[str]:
    found = httpx.get(f"{profile.origin}/v1/conversations", headers=headers).json()["data"]
    return [one["title"] for one in found]


def test_another_port_of_this_host_can_do_nothing_with_a_session(
    guarded: RunningServer, profiles: Profiles
) -> None:
    profile = profiles.new(guarded)
    profile.watch.expect(".")  # the other page is all trouble
    page = profile.open("/#/settings")
    sign_in(page, ANN)
    expect(account(page)).to_contain_text("ann")
    (before,) = profile.context.cookies()
    with other_page(profile.origin) as address:
        results = _attacked(profile, address)
    readable = [one for one in results if one[1] not in ("error", "opaque")]
    assert readable == []
    assert len(results) == 7
    headers = {"Authorization": f"Bearer {ANN}"}
    assert _titles(profile, headers) == []
    assert _titles(profile, {"Authorization": f"Bearer {BOB}"}) == []
    after = [one for one in profile.context.cookies() if one.get("path") == "/"]
    assert [one.get("value") for one in after] == [before.get("value")]
    page.reload()  # with a cookie that was planted beside ours
    expect(account(page)).to_contain_text("ann")


def test_another_port_of_this_host_gets_nothing_where_nobody_signs_in(
    server: RunningServer, profiles: Profiles
) -> None:
    profile = profiles.new(server)
    profile.watch.expect(".")
    with other_page(profile.origin) as address:
        results = _attacked(profile, address)
    assert [one for one in results if one[1] not in ("error", "opaque")] == []
    assert _titles(profile) == []
