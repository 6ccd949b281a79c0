"""The view of the server: what stands there is what the server does, now and lately."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.browser.accessibility import violations
from tests.support.browser.profiles import NARROW, Profiles
from tests.support.processes import RunningServer, running_server, wait_until
from tests.support.upstream.storyteller import Hold, Storyteller, words

VIEW = "/#/server"


def ask(server: RunningServer, question: str, **headers: str) -> dict[str, Any]:
    """An answer that goes on without a reader."""
    reply = httpx.post(
        f"http://{server.address}/v1/responses",
        json={"input": question, "background": True},
        headers=headers,
        timeout=60,
    )
    reply.raise_for_status()
    found: dict[str, Any] = reply.json()
    return found


def figure(page: Page, name: str) -> str:
    """A figure that stands beside its name."""
    term = page.locator("dt", has_text=name).first
    return term.locator("xpath=following-sibling::dd").inner_text()


def shows(page: Page, name: str, value: str) -> None:
    wait_until(lambda: figure(page, name) == value, f"{name} is {value}")


def evaluated(page: Page, module: str, expression: str) -> Any:
    """What an expression is, in which `m` is a module of the page."""
    url = f"new URL('server/{module}.js', document.querySelector('script[type=module]').src)"
    return page.evaluate(f"import({url}).then((m) => {expression})")


def test_what_runs_and_what_ended(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("Hello", *words("One two"), hold, " three.")
    page = profiles.new(server).open(VIEW)
    shows(page, "Done", "0")
    ask(server, "Hello")
    slots = page.get_by_role("img", name="1 of 4 slots busy")
    expect(slots).to_be_visible()
    assert slots.locator(".slot.busy").count() == 1
    shows(page, "Running", "1 of 4")
    hold.set()
    shows(page, "Done", "1")
    expect(page.get_by_role("img", name="0 of 4 slots busy")).to_be_visible()
    expect(page.get_by_text("The mean of 1 request that ended")).to_be_visible()
    assert figure(page, "Stored since the start") == "1 result"
    assert figure(page, "Free on this disk").endswith("iB")


def test_charts_have_their_figures_in_words_and_as_a_table(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    teller.tell("Hello", *words("One two three."))
    ask(server, "Hello")
    status = f"http://{server.address}/v1/status"
    wait_until(lambda: httpx.get(status).json()["sample"] is not None, "the first sample")
    page = profiles.new(server).open(VIEW)
    for title in ("Tokens per second", "Requests", "Until the first token"):
        chart = page.get_by_role("img", name=f"{title}, the last two minutes.")
        expect(chart).to_be_visible()
    expect(page.get_by_role("img", name="Requests, the")).to_have_accessible_name(
        r"Requests, the last two minutes. running: now 0, least 0, mean 0, most 0; waiting: now 0, "
        r"least 0, mean 0, most 0."
    )
    page.get_by_text("The same as a table").click()
    rows = page.get_by_role("table", name="The last two minutes").get_by_role("row")
    expect(rows.nth(1)).to_be_visible()


def test_another_user_sees_his_own(profiles: Profiles, teller: Storyteller, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("root-token name=root role=admin\ntom-token name=tom\neve-token name=eve\n")
    tokens.chmod(0o600)
    hold = Hold()
    teller.tell("Hello", "One", hold, " two.")
    data = ("--data-dir", str(tmp_path / "data"), "--auth-token-file", str(tokens))
    with running_server("--upstream", teller.url, *data) as server:
        ask(server, "Hello", Authorization="Bearer tom-token")
        seen = {}
        for name in ("root", "tom", "eve"):
            profile = profiles.new(
                server, extra_http_headers={"Authorization": f"Bearer {name}-token"}
            )
            page = profile.open(VIEW)
            shows(page, "Running", "1 of 4")
            users = page.get_by_role("table", name="Requests by user")
            kept = page.get_by_role("heading", name="Journal and store")
            busy = page.locator(".slot.busy").get_attribute("title")
            sizes = page.locator("dt", has_text="Free on this disk").count()
            seen[name] = users.locator("tbody tr").all_inner_texts(), busy, sizes
            assert kept.count() == 1
        hold.set()
    assert [one[0].split("\t")[0] for one, _, _ in seen.values() if one] == ["tom", "tom"]
    assert [busy for _, busy, _ in seen.values()] == [
        "slot 0: busy (tom)",
        "slot 0: busy (tom)",
        "slot 0: busy",
    ]
    assert [sizes for _, _, sizes in seen.values()] == [1, 0, 0]


def test_an_upstream_that_goes_and_comes(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    gone = ("--upstream", "http://127.0.0.1:9", "--upstream", teller.url)
    with running_server(*gone, "--data-dir", str(tmp_path / "data")) as server:
        page = profiles.new(server).open(VIEW)
        down = page.locator("li.card", has_text="127.0.0.1:9")
        expect(down.locator(".chip")).to_have_text("down")
        expect(down.locator("p")).not_to_be_empty()
        up = page.locator("li.card", has_text=teller.url)
        expect(up.locator(".chip")).to_have_text("up")


def test_a_model_is_unloaded_and_loaded(profiles: Profiles, tmp_path: Path) -> None:
    with running_server("--data-dir", str(tmp_path / "data")) as server:
        page = profiles.new(server).open(VIEW)
        row = page.get_by_role("table", name="Models").get_by_role("row", name="demo")
        button = page.get_by_role("button", name="Unload demo")
        button.focus()
        page.keyboard.press("Enter")
        expect(row).to_contain_text("unloaded")
        load = page.get_by_role("button", name="Load demo")
        expect(load).to_be_focused()  # it is the same button
        load.click()
        expect(row).to_contain_text("loaded")
        expect(page.get_by_role("button", name="Unload demo")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(
    profiles: Profiles, teller: Storyteller, server: RunningServer, scheme: Any
) -> None:
    teller.tell("Hello", *words("One two three."))
    ask(server, "Hello")
    page = profiles.new(server, scheme=scheme).open(VIEW)
    page.get_by_text("The same as a table").click()
    expect(page.get_by_text("Up for")).to_be_visible()
    assert violations(page) == []
    page.set_viewport_size(NARROW)
    wide = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    assert wide <= 0
    assert violations(page) == []


def test_a_server_that_is_not_reached_is_said(profiles: Profiles, server: RunningServer) -> None:
    profile = profiles.new(server)
    profile.watch.expect("Failed to load resource")
    for path in ("**/v1/status*", "**/v1/events*"):
        profile.context.route(path, lambda route: route.abort())
    page = profile.open(VIEW)
    expect(page.get_by_text("No figures: the server is not reached.")).to_be_visible()
    profile.context.unroute("**/v1/status*")
    page.get_by_role("button", name="Try again").click()
    shows(page, "Done", "0")


def test_samples_are_joined_each_moment_once(profiles: Profiles, server: RunningServer) -> None:
    page = profiles.new(server).open(VIEW)

    def merged(have: list[int], more: list[int]) -> list[int]:
        def samples(moments: list[int]) -> str:
            return "[" + ",".join(f"{{at: {one}}}" for one in moments) + "]"

        call = f"m.merged({samples(have)}, {samples(more)}).map((one) => one.at)"
        found: list[int] = evaluated(page, "state", call)
        return found

    assert merged([], []) == []
    assert merged([1, 2], [3]) == [1, 2, 3]
    assert merged([1, 2], [2]) == [1, 2]
    assert merged([2, 5], [1, 2, 3]) == [1, 2, 3, 5]
    assert merged([1, 2], [200]) == [200]
    assert len(merged([*range(120)], [*range(60, 180)])) == 120


def test_figures_as_people_read_them(profiles: Profiles, server: RunningServer) -> None:
    page = profiles.new(server).open(VIEW)
    calls = "[m.span(3.25), m.span(75), m.span(7300), m.span(200000), m.bytes(1023), m.bytes(1536),"
    calls += " m.bytes(2 ** 30 - 1), m.figure(1234.5), m.figure(0.26), m.milliseconds(null)]"
    assert evaluated(page, "format", calls) == [
        *("3.3 s", "1 m 15 s", "2 h 1 m", "2 d 7 h", "1,023 B", "1.5 KiB"),
        *("1 GiB", "1,235", "0.3", "\u2013"),
    ]
    tops = evaluated(page, "chart", "[0, 0.3, 1, 3, 7, 51, 120].map(m.roundUp)")
    assert tops == [0, 0.5, 1, 5, 10, 100, 200]
    rows = evaluated(
        page,
        "charts",
        "m.rows([1, 2, 6].map((at) => ({ at, running: at, first_token: at > 1 ? 4 * at : null })))",
    )
    assert rows == [
        {"at": 10, "running": 6, "first_token": 24},
        {"at": 5, "running": 1.5, "first_token": 8},
    ]
