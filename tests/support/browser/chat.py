"""A chat in a tab, as a person uses it."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect


class Chat:
    """One tab with the page in it.

    Attributes:
        page: of Playwright, for what is only done once.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    # -- what is there ----------------------------------------------------------------------------

    @property
    def question_box(self) -> Locator:
        return self.page.get_by_role("textbox", name="Your question")

    @property
    def answers(self) -> Locator:
        """All answers of the conversation that is shown."""
        return self.page.get_by_role("group", name="Answer", exact=True)

    @property
    def answer(self) -> Locator:
        """The last one."""
        return self.answers.last

    @property
    def questions(self) -> Locator:
        return self.page.get_by_role("group", name="Question", exact=True)

    @property
    def history(self) -> Locator:
        """The left column; on a phone, where it has been opened."""
        return self.page.get_by_role("navigation", name="History")

    def button(self, name: str) -> Locator:
        """The last button of this name: that of the last answer or question."""
        return self.page.get_by_role("button", name=name, exact=True).last

    # -- what a person does -----------------------------------------------------------------------

    def ask(self, question: str) -> None:
        """Type a question and send it."""
        self.question_box.fill(question)
        self.button("Send").click()

    def new(self) -> None:
        """Begin another conversation."""
        self.page.get_by_role("button", name="New chat").first.click()
        expect(self.answers).to_have_count(0)

    def choose(self, button: str, entry: str | re.Pattern[str]) -> None:
        """Open a menu and choose an entry."""
        self.button(button).click()
        self.page.get_by_role("menuitem", name=entry).click()

    def go_back_to(self, title: str | re.Pattern[str]) -> None:
        """Open a conversation of the history."""
        self.history.get_by_role("link", name=title).first.click()

    # -- what a person sees -----------------------------------------------------------------------

    def sees(self, text: str | re.Pattern[str], answers: int | None = None) -> None:
        """The last answer has this text, now or soon; it may still grow."""
        if answers is not None:
            expect(self.answers).to_have_count(answers)
        expect(self.answer).to_contain_text(text)

    def sees_the_end(self) -> None:
        """The last answer is over."""
        expect(self.answer).to_have_attribute("aria-busy", "false")

    def text(self) -> str:
        """What the last answer says: its blocks, without what is written below."""
        return self.answer.locator(".blocks").inner_text()


def asks(page: Page, question: str) -> Chat:
    """A chat in which a question was asked."""
    chat = Chat(page)
    chat.ask(question)
    return chat


def turn_of(page: Page, number: int = -1) -> Locator:
    """A question and its answer; the last one unless it is said."""
    turns = page.get_by_role("feed").get_by_role("article")
    return turns.last if number < 0 else turns.nth(number)


def answered(turn: Locator, text: str) -> None:
    """It has this answer, whole."""
    expect(turn.get_by_role("button", name="Copy the answer")).to_be_visible()
    expect(turn.get_by_label("Answer", exact=True).locator(".blocks")).to_have_text(text)
