"""The tests' own tools: what a page does wrong unseen is seen."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.support.browser.accessibility import violations
from tests.support.browser.profiles import Profile, Profiles
from tests.support.browser.unharmed import GUARD
from tests.support.processes import RunningServer, wait_until

PLAIN = "<!doctype html><html lang=en><title>Plain</title><main><h1>Plain</h1></main>"


def _plain(profile: Profile, html: str = PLAIN, **headers: str) -> Page:
    """A page of the server's origin with a content of ours."""
    found = {"content-type": "text/html; charset=utf-8", **headers}
    profile.context.route("**/plain", lambda route: route.fulfill(body=html, headers=found))
    return profile.open("/plain")


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("console.error('oh')", "console error: oh"),
        ("console.warn('hm')", "console warning: hm"),
        ("setTimeout(() => { throw new Error('lost') })", "exception: .*lost"),
        ("fetch('http://127.0.0.2:9/x').catch(() => 0)", "another host: http://127.0.0.2:9/x"),
        ("new Image().src = 'http://127.0.0.2:9/x.png'", "another host"),
        ("document.body.append(Object.assign(document.createElement('script'), {text: '1'}))",
         "policy: script-src-elem forbids inline"),
        ("alert('you')", "dialog: you"),
        ("open('/plain')", "a page opened itself"),
    ],
)  # fmt: skip
def test_trouble_is_noticed(
    profiles: Profiles, server: RunningServer, script: str, trouble: str
) -> None:
    profile = profiles.new(server)
    page = _plain(profile, **{"content-security-policy": "script-src 'none'"})
    profile.watch.check()
    page.evaluate(f"() => {{ {script} }}")
    wait_until(lambda: page.evaluate("true") and bool(profile.watch.troubles), trouble)
    with pytest.raises(AssertionError, match=trouble):
        profile.watch.check()
    profile.watch.troubles.clear()


@pytest.mark.parametrize(
    ("markup", "trouble"),
    [
        ("<img src=x>", "guard: an element img"),
        ("<p style=color:red>x</p>", "guard: an attribute style of p"),
        ("<p id=x>x</p>", "guard: an attribute id of p"),
        ("<p onclick=x()>x</p>", "guard: an attribute onclick"),
        ("<a href=javascript:1>x</a>", "guard: href leads to javascript:1"),
        ("<a href=/v1/session>x</a>", "guard: a link to /v1/session"),
        ("<template></template>", "guard: an element template"),
    ],
)
def test_the_guard_sees_what_is_there_for_a_moment_only(
    profiles: Profiles, server: RunningServer, markup: str, trouble: str
) -> None:
    profile = profiles.new(server)
    profile.context.add_init_script(GUARD)
    page = _plain(profile, PLAIN.replace("</main>", "</main><div class=blocks><p>x</p></div>"))
    page.evaluate("document.querySelector('.blocks').innerHTML = '<p class=x>harmless</p>'")
    profile.watch.check()
    page.evaluate(
        """(markup) => {
          const blocks = document.querySelector(".blocks");
          blocks.innerHTML = markup;
          blocks.innerHTML = "";
        }""",
        markup,
    )
    wait_until(lambda: page.evaluate("true") and bool(profile.watch.troubles), trouble)
    with pytest.raises(AssertionError, match=trouble):
        profile.watch.check()
    profile.watch.troubles.clear()


def test_what_axe_finds_is_told(profiles: Profiles, server: RunningServer) -> None:
    assert violations(_plain(profiles.new(server))) == []
    wrong = PLAIN.replace("</main>", "<img src=data:,><button></button></main>")
    profile = profiles.new(server)
    found = violations(_plain(profile, wrong))
    assert [one.split()[1] for one in found] == ["button-name:", "image-alt:"]
