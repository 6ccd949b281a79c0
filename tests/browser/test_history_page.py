"""The left column: its lists, what is done with an entry, and the search."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.browser.accessibility import violations
from tests.support.browser.profiles import NARROW, Profiles
from tests.support.processes import RunningServer, running_server, wait_until
from tests.support.storage.records import result
from tests.support.upstream.storyteller import Hold, Storyteller

HOSTILE = "<img src=x onerror=alert(1)>\u202e</a><script>alert(2)</script>"


@contextmanager
def filled(teller: Storyteller, folder: Path, *results: Any) -> Iterator[RunningServer]:
    """A server that has these results, of nobody."""
    folder.mkdir()
    store = SqliteStore(folder, write=True)
    store.put(list(results))
    while store.update_index():
        pass
    store.close()
    with running_server("--upstream", teller.url, "--data-dir", str(folder)) as found:
        yield found


def asked(number: int, prompt: str, **changes: Any) -> Any:
    return result(number, request={"prompt": prompt, "params": {}}, **changes)


def conversation(server: RunningServer, **members: Any) -> str:
    answer = httpx.post(f"http://{server.address}/v1/conversations", json=members)
    return str(answer.raise_for_status().json()["id"])


def conversations(server: RunningServer) -> list[dict[str, Any]]:
    answer = httpx.get(f"http://{server.address}/v1/conversations")
    found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
    return found


class History:
    """The left column of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.column = page.get_by_role("navigation", name="History")
        self.search = page.get_by_role("searchbox")

    def tab(self, name: str) -> Locator:
        self.column.get_by_role("button", name=name, exact=True).click()
        return self.list(name)

    def list(self, name: str) -> Locator:
        return self.column.get_by_role("list", name=name, exact=True)

    def titles(self, name: str) -> Locator:
        return self.list(name).locator(".entry-title")

    def menu(self, title: str, entry: str) -> None:
        """Choose an action of the entry with this title."""
        self.column.get_by_role("link", name=title).first.hover()
        self.column.get_by_role("button", name=f"Actions for {title}").first.click()
        self.page.get_by_role("menuitem", name=entry, exact=True).click()

    def results(self, name: str) -> Locator:
        return self.column.get_by_role("region", name=name)


def test_empty_lists_say_so(profiles: Profiles, server: RunningServer) -> None:
    history = History(profiles.new(server).open())
    expect(history.column).to_contain_text("No conversation yet. Begin one.")
    history.tab("All answers")
    expect(history.column).to_contain_text("No answer here.")


def test_a_server_that_keeps_nothing(profiles: Profiles, teller: Storyteller) -> None:
    with running_server("--upstream", teller.url, "--store", "none") as server:
        history = History(profiles.new(server).open())
        expect(history.column).to_contain_text("this server keeps nothing")


def test_conversations_the_pinned_ones_first(profiles: Profiles, server: RunningServer) -> None:
    conversation(server, title="Oldest", pinned=True)
    conversation(server, title="Older")
    newest = conversation(server, title=HOSTILE)
    page = profiles.new(server).open()
    history = History(page)
    titles = history.titles("Conversations")
    expect(titles).to_have_text(["Oldest", HOSTILE, "Older"])
    titles.nth(1).click()
    expect(page).to_have_url(re.compile(f"#/c/{newest}$"))
    expect(history.column.locator('[aria-current="page"]')).to_have_count(1)


def test_an_entry_is_renamed_pinned_and_deleted(profiles: Profiles, server: RunningServer) -> None:
    for title in ("First", "Second", "Third"):
        conversation(server, title=title)
    page = profiles.new(server).open()
    history = History(page)
    history.menu("Second", "Rename")
    page.get_by_role("textbox", name="Title").fill("  Renamed ")
    page.keyboard.press("Enter")
    expect(history.titles("Conversations")).to_have_text(["Third", "Renamed", "First"])
    history.menu("First", "Rename")
    page.get_by_role("textbox", name="Title").fill("never")
    page.keyboard.press("Escape")
    expect(history.titles("Conversations")).to_have_text(["Third", "Renamed", "First"])
    history.menu("First", "Delete")
    page.get_by_role("button", name="Cancel").click()
    history.menu("First", "Delete")
    expect(page.get_by_role("dialog")).to_contain_text("“First”")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(history.titles("Conversations")).to_have_text(["Third", "Renamed"])
    history.menu("Renamed", "Pin")
    page.reload()
    expect(history.titles("Conversations")).to_have_text(["Renamed", "Third"])
    assert [(one["title"], one["pinned"]) for one in conversations(server)] == [
        ("Renamed", True),
        ("Third", False),
    ]


def test_a_title_that_was_not_changed_is_none(profiles: Profiles, server: RunningServer) -> None:
    """What one reads there may be the question; that one it stays."""
    conversation(server)
    page = profiles.new(server).open()
    history = History(page)
    field = page.get_by_role("textbox", name="Title")
    row = history.list("Conversations").get_by_role("link")
    for end in ("Enter", "Tab"):
        row.press("F2")
        expect(field).to_have_value("Empty conversation")
        field.press(end)
        expect(field).to_have_count(0)
    history.menu("Empty conversation", "Pin")
    wait_until(lambda: page.evaluate("true") and conversations(server)[0]["pinned"], "it is pinned")
    assert conversations(server)[0]["title"] is None


def test_a_title_that_was_not_taken_is_not_lost(profiles: Profiles, server: RunningServer) -> None:
    one = conversation(server, title="First")
    profile = profiles.new(server)
    profile.watch.expect("429")
    page = profile.open()
    history = History(page)
    refused = {"status": 429, "json": {"error": {"message": "not now"}}}
    page.route(f"**/v1/conversations/{one}", lambda route: route.fulfill(**refused), times=1)
    history.menu("First", "Rename")
    field = page.get_by_role("textbox", name="Title")
    field.click(button="right")
    expect(page.get_by_role("menu")).to_have_count(0)
    field.fill("A long and well-considered title")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("“A long and well-considered title”: not now")
    page.get_by_role("alert").get_by_role("button", name="Try again").click()
    titles = history.titles("Conversations")
    expect(titles).to_have_text(["A long and well-considered title"])


def test_one_that_is_pinned_no_more_is_where_it_belongs(
    profiles: Profiles, server: RunningServer
) -> None:
    """Behind more than a page of newer ones."""
    conversation(server, title="Oldest")
    pinned = conversation(server, title="Pinned", pinned=True)
    with httpx.Client(base_url=f"http://{server.address}/v1") as client:
        for number in range(102):
            client.post("/conversations", json={"title": f"{number}"}).raise_for_status()
    history = History(profiles.new(server).open())
    titles = history.titles("Conversations")
    rows = history.list("Conversations").get_by_role("listitem")
    links = history.list("Conversations").get_by_role("link")
    expect(titles.first).to_have_text("Pinned")
    links.nth(1).press("End")
    expect(rows.last).to_have_attribute("aria-setsize", "104")  # all is known
    links.last.press("End")
    expect(titles.last).to_have_text("Oldest")
    url = f"http://{server.address}/v1/conversations/{pinned}"
    httpx.post(url, json={"pinned": False}).raise_for_status()
    row = rows.filter(has_text="Pinned")  # of one second with the oldest one, or before it
    expect(row).to_have_attribute("aria-posinset", re.compile("^10[34]$"))
    links.last.press("Home")
    expect(titles.first).to_have_text("101")
    conversation(server, title="Newest")  # the beginning is read again
    expect(titles.first).to_have_text("Newest")
    expect(rows.first).to_have_attribute("aria-setsize", "105")


def test_the_conversation_that_is_open_is_deleted(
    profiles: Profiles, server: RunningServer
) -> None:
    open_ = conversation(server, title="Open")
    page = profiles.new(server).open(f"/#/c/{open_}")
    history = History(page)
    history.menu("Open", "Delete")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page).to_have_url(re.compile("/#/$"))
    assert conversations(server) == []


def test_answers_of_any_api_filtered_and_saved(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    results = [
        asked(1, HOSTILE),
        asked(2, "Of another model", model={"name": "other"}),
        asked(3, "Why?", state="failed", error={"code": "internal", "message": "a bug"}),
    ]
    with filled(teller, tmp_path / "data", *results) as server:
        page = profiles.new(server).open()
        history = History(page)
        rows = history.tab("All answers").get_by_role("listitem")
        expect(history.titles("All answers")).to_have_text(["Why?", "Of another model", HOSTILE])
        expect(rows.first).to_contain_text("failed")
        expect(rows.first.get_by_role("link")).to_have_attribute("href", f"#/a/{results[2].id}")
        page.get_by_label("Filter by state").select_option("Done")
        expect(history.titles("All answers")).to_have_text(["Of another model", HOSTILE])
        page.get_by_label("Filter by model").select_option("other")
        expect(history.titles("All answers")).to_have_text(["Of another model"])
        page.get_by_label("Filter by time").select_option("Last day")
        expect(history.column).to_contain_text("No answer here.")
        page.get_by_label("Filter by time").select_option("Time")
        with page.expect_download() as saved:
            history.menu("Of another model", "Export as Markdown")
        assert saved.value.suggested_filename == "of-another-model.md"
        assert Path(saved.value.path()).read_text().startswith("# Of another model\n")
        with page.expect_download() as saved:
            history.menu("Of another model", "Export as JSON")
        assert json.loads(Path(saved.value.path()).read_text())["id"] == results[1].id


def test_an_answer_for_other_filters_is_not_waited_for(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    results = [asked(1, "Done"), asked(2, "Stopped", state="cancelled")]
    with filled(teller, tmp_path / "data", *results) as server:
        profile = profiles.new(server)
        held: list[Any] = []
        profile.context.route("**/v1/generations?*state=failed*", lambda route: held.append(route))
        page = profile.open()
        history = History(page)
        history.tab("All answers")
        expect(history.titles("All answers")).to_have_text(["Stopped", "Done"])
        page.get_by_label("Filter by state").select_option("Failed")
        wait_until(lambda: page.evaluate("true") and bool(held), "they are asked for")
        page.get_by_label("Filter by state").select_option("Stopped")
        expect(history.titles("All answers")).to_have_text(["Stopped"])
        held[0].continue_()
        page.get_by_label("Filter by state").select_option("State")
        expect(history.titles("All answers")).to_have_text(["Stopped", "Done"])


def test_words_are_found_and_marked(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    results = [asked(1, "\U0001f43c\U0001f43c eat bamboo"), asked(2, "Nothing of that")]
    with filled(teller, tmp_path / "data", *results) as server:
        conversation(server, title="The bamboo thicket")
        conversation(server, title="Else")
        page = profiles.new(server).open()
        history = History(page)
        expect(history.titles("Conversations")).to_have_count(2)
        page.get_by_role("main").focus()
        page.keyboard.press("/")
        page.keyboard.type("bamb")  # a word that is being written
        found = history.results("By words")
        expect(found.locator(".entry-title")).to_have_text(["\U0001f43c\U0001f43c eat bamboo"])
        expect(found.locator("mark")).to_have_text(["bamboo"])
        titles = history.results("Conversations").locator(".entry-title")
        expect(titles).to_have_text(["The bamboo thicket"])
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(f"#/a/{results[0].id}$"))
        page.keyboard.press("Control+k")
        expect(history.search).to_be_focused()
        history.search.fill("nowhere")
        expect(found).to_contain_text("Nothing found.")
        history.search.fill('"')  # no word
        expect(found).to_contain_text("Nothing found.")
        history.search.press("Escape")
        expect(history.search).to_have_value("")
        expect(history.titles("Conversations")).to_have_count(2)


@pytest.fixture
def long(teller: Storyteller, tmp_path: Path) -> Iterator[RunningServer]:
    """A server with 650 answers."""
    results = [asked(number, f"Question {number}") for number in range(650)]
    with filled(teller, tmp_path / "data", *results) as found:
        yield found


def test_a_long_list_has_few_elements(profiles: Profiles, long: RunningServer) -> None:
    page = profiles.new(long).open()
    history = History(page)
    rows = history.tab("All answers").get_by_role("listitem")
    expect(rows.first).to_contain_text("Question 649")
    expect(rows.first).to_have_attribute("aria-posinset", "1")
    expect(rows.first).to_have_attribute("aria-setsize", "-1")  # not known yet
    box = history.column.locator(".list:visible")
    last = rows.filter(has=page.get_by_text("Question 0", exact=True))
    expect(scrolled_to_the_end(page, box, last)).to_have_attribute("aria-setsize", "650")
    assert rows.count() < 60
    box.evaluate("(list) => (list.scrollTop = 0)")
    expect(rows.first).to_contain_text("Question 649")


def scrolled_to_the_end(page: Page, box: Locator, last: Locator) -> Locator:
    """The last row, after the list was scrolled to its end as often as it grew."""
    page.wait_for_function(
        """() => {
          const list = document.querySelector(".list-box:not([hidden]) .list");
          list.scrollTop = list.scrollHeight;
          const titles = [...list.querySelectorAll(".entry-title")];
          return titles.some((one) => one.textContent === "Question 0");
        }"""
    )
    return last


def test_a_long_list_by_keyboard(profiles: Profiles, long: RunningServer) -> None:
    page = profiles.new(long).open()
    history = History(page)
    history.tab("All answers")
    expect(history.titles("All answers").first).to_have_text("Question 649")
    history.search.focus()
    page.keyboard.press("ArrowDown")

    def focused(title: str) -> None:
        expect(page.locator(":focus .entry-title")).to_have_text(title)

    focused("Question 649")
    for key, number in (
        ("ArrowDown", 648),
        ("ArrowDown", 647),
        ("ArrowUp", 648),
        ("Home", 649),
        ("ArrowUp", 649),
    ):
        page.keyboard.press(key)
        focused(f"Question {number}")
    for _ in range(5):
        page.keyboard.press("PageDown")
    before = page.locator(":focus .entry-title").inner_text()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name=f"Actions for {before}")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#/a/"))
    page.keyboard.press("Home")
    focused("Question 649")
    page.keyboard.press("End")
    expect(page.locator(":focus .entry-title")).not_to_have_text("Question 649")


@pytest.mark.parametrize("status", [500, 404])
def test_a_list_that_cannot_be_read(profiles: Profiles, server: RunningServer, status: int) -> None:
    conversation(server, title="There")
    profile = profiles.new(server)
    profile.watch.expect("Failed to load resource")
    profile.context.route("**/v1/conversations?*", lambda route: route.fulfill(status=status))
    # It would have the list read again when it begins.
    profile.context.route("**/v1/events*", lambda route: None)
    page = profile.open()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(f"The list cannot be read: the server answered {status}")
    profile.context.unroute("**/v1/conversations?*")
    page.get_by_role("button", name="Try again").click()
    expect(History(page).titles("Conversations")).to_have_text(["There"])


def test_a_narrow_phone(profiles: Profiles, server: RunningServer) -> None:
    conversation(server, title="A title that is much longer than the column of a phone is wide")
    page = profiles.new(server, size=NARROW).open()
    page.get_by_role("button", name="Open the history").click()
    history = History(page)
    history.column.get_by_role("button", name=re.compile("^Actions for A title")).click()
    expect(page.get_by_role("menuitem", name="Rename")).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    profiles: Profiles, teller: Storyteller, tmp_path: Path, scheme: Any
) -> None:
    results = [asked(1, "bamboo"), asked(2, "bamboo too", state="failed")]
    with filled(teller, tmp_path / "data", *results) as server:
        conversation(server, title="Pinned", pinned=True)
        page = profiles.new(server, scheme=scheme).open()
        history = History(page)
        expect(history.titles("Conversations")).to_have_text(["Pinned"])
        assert violations(page) == []
        history.tab("All answers")
        expect(history.titles("All answers")).to_have_count(2)
        assert violations(page) == []
        history.search.fill("bamboo")
        expect(history.results("By words").get_by_role("listitem")).to_have_count(2)
        assert violations(page) == []


def ask(server: RunningServer, question: str) -> str:
    """Ask as an SDK does, in the background; the id of the generation."""
    body = {"input": question, "background": True}
    answer = httpx.post(f"http://{server.address}/v1/responses", json=body)
    return str(answer.raise_for_status().json()["id"]).removeprefix("resp_")


def test_what_runs_is_seen_and_stopped(
    profiles: Profiles, teller: Storyteller, server: RunningServer
) -> None:
    hold = Hold()
    teller.tell("A long story", "Once ", "upon ", hold, "a time.")
    teller.tell("Another", "Yes", Hold())
    page = profiles.new(server).open()
    history = History(page)
    answers = history.tab("All answers")
    expect(history.column).to_contain_text("No answer here.")
    first = ask(server, "A long story")
    running = history.column.get_by_role("list", name="Running now")
    expect(running.get_by_role("link")).to_have_attribute("href", f"#/a/{first}")
    expect(running).to_contain_text("2 tokens")
    expect(answers).to_contain_text("is written")
    ask(server, "Another")
    expect(history.titles("All answers")).to_have_text(["Another", "A long story"])
    running.get_by_role("button", name="Stop Another").click()
    expect(running.get_by_role("listitem")).to_have_count(1)
    expect(answers.get_by_role("listitem").first).to_contain_text("stopped")
    hold.set()
    expect(running).to_be_hidden()
    expect(answers.get_by_role("listitem").nth(1)).not_to_contain_text("is written")


def test_a_list_that_is_scrolled_stays_where_it_is(profiles: Profiles, long: RunningServer) -> None:
    page = profiles.new(long).open()
    history = History(page)
    titles = history.tab("All answers").locator(".entry-title")
    expect(titles.first).to_have_text("Question 649")
    box = history.column.locator(".list:visible")
    box.evaluate("(list) => (list.scrollTop = 1000)")
    row = history.list("All answers").get_by_role("listitem").filter(has_text="Question 625")
    expect(row).to_have_attribute("aria-posinset", "25")
    before = row.bounding_box()
    ask(long, "Something new")
    expect(row).to_have_attribute("aria-posinset", "26")
    assert row.bounding_box() == before
    box.evaluate("(list) => (list.scrollTop = 0)")
    expect(titles.first).to_have_text("Something new")


def test_what_others_do_with_conversations_is_seen(
    profiles: Profiles, server: RunningServer
) -> None:
    page = profiles.new(server).open()
    history = History(page)
    titles = history.titles("Conversations")
    expect(history.column).to_contain_text("No conversation yet.")
    one = conversation(server, title="One")
    expect(titles).to_have_text(["One"])
    two = conversation(server, title="Two")
    expect(titles).to_have_text(["Two", "One"])
    url = f"http://{server.address}/v1/conversations"
    httpx.post(f"{url}/{one}", json={"title": "Other"}).raise_for_status()
    expect(titles).to_have_text(["Two", "Other"])
    httpx.post(f"{url}/{one}", json={"pinned": True}).raise_for_status()
    expect(titles).to_have_text(["Other", "Two"])
    httpx.delete(f"{url}/{two}").raise_for_status()
    expect(titles).to_have_text(["Other"])


def test_the_focus_stays_while_the_search_goes_on(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    with filled(teller, tmp_path / "data", asked(1, "bamboo"), asked(2, "bamboo too")) as server:
        profile = profiles.new(server)
        held: list[Any] = []
        profile.context.route("**/v1/conversations?*q=*", lambda route: held.append(route))
        page = profile.open()
        history = History(page)
        history.search.fill("bamboo")
        found = history.results("By words").get_by_role("link")
        expect(found).to_have_count(2)
        history.search.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        expect(found.nth(1)).to_be_focused()
        wait_until(lambda: page.evaluate("true") and bool(held), "titles are searched")
        held[0].continue_()
        expect(history.column.locator(".searching")).to_have_count(0)
        expect(found.nth(1)).to_be_focused()
        # What is searched meanwhile counts, and nothing that was searched before.
        history.search.fill("nowhere")
        wait_until(lambda: page.evaluate("true") and len(held) > 1, "titles are searched again")
        history.search.fill("")
        held[1].abort()
        expect(history.titles("Conversations")).to_have_count(0)
        expect(history.results("By words")).to_have_count(0)


def test_by_meaning(profiles: Profiles, tmp_path: Path) -> None:
    """With the built-in engine and its model, which gives embeddings."""
    with running_server("--data-dir", str(tmp_path), LLCUDA_ANALYSIS="true") as server:
        url = f"http://{server.address}/v1"
        for question in ("What is a slot?", "How do I keep a stream alive?"):
            body = {"input": question, "max_output_tokens": 40}
            httpx.post(f"{url}/responses", json=body, timeout=60).raise_for_status()

        def analysed() -> bool:
            query = {"semantic": "x", "limit": "1"}
            answer = httpx.get(f"{url}/generations", params=query, timeout=300)
            return bool(answer.json()["search"]["searched"] == 2)

        wait_until(analysed, "both are analysed")
        page = profiles.new(server).open()
        history = History(page)
        history.search.fill("my connection dropped")
        found = history.results("By meaning").locator(".entry-title")
        expect(found).to_have_text(["How do I keep a stream alive?", "What is a slot?"])


def test_where_nothing_can_be_found_by_meaning(profiles: Profiles, server: RunningServer) -> None:
    page = profiles.new(server).open()
    history = History(page)
    history.search.fill("anything")
    note = history.results("By meaning")
    expect(note).to_contain_text("Search by meaning is not available here: the server analyses no")


def test_another_user_sees_nothing_of_it(
    profiles: Profiles, teller: Storyteller, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("ann-token-0123456789 name=ann\nbob-token-0123456789 name=bob\n")
    tokens.chmod(0o600)
    with running_server("--upstream", teller.url, "--auth-token-file", str(tokens)) as server:
        url = f"http://{server.address}/v1"
        ann = {"Authorization": "Bearer ann-token-0123456789"}
        httpx.post(f"{url}/conversations", json={"title": "Ann's"}, headers=ann)
        httpx.post(f"{url}/responses", json={"input": "bamboo"}, headers=ann, timeout=60)

        def sign_in(token: str) -> None:
            page.get_by_label("Token", exact=True).fill(token)
            page.get_by_role("button", name="Sign in").click()

        profile = profiles.new(server)
        # The stream of events of the one who leaves may ask once more before the other is let in.
        profile.watch.expect(r"401 \(Unauthorized\) \(.*/v1/events")
        page = profile.open()
        history = History(page)
        sign_in("ann-token-0123456789")
        expect(history.titles("Conversations")).to_have_text(["Ann's"])
        history.tab("All answers")
        expect(history.titles("All answers")).to_have_text(["bamboo"])
        history.search.fill("bamboo")
        expect(history.column.locator("mark")).to_have_count(1)
        page.goto("/#/settings")
        page.get_by_role("button", name="Sign out", exact=True).click()
        sign_in("bob-token-0123456789")
        expect(history.column).to_contain_text("No conversation yet.")
        expect(history.search).to_have_value("")
        history.tab("All answers")
        expect(history.column).to_contain_text("No answer here.")
        assert "bamboo" not in page.content()
