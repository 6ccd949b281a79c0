#!/usr/bin/env python3
"""Pictures of the page: each view, light, dark and on a phone, with a scripted model's answers."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protocol")]  # runs from anywhere, without being installed

from PIL import Image
from playwright.sync_api import Page, expect

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tests.support.browser.chat import Chat
from tests.support.browser.profiles import DESKTOP, PHONE, Profile, Profiles, Scheme, chromium
from tests.support.processes import RunningServer, running_server
from tests.support.upstream.storyteller import Hold, Storyteller, Thought, Word, storyteller, words

EXAMPLE = """\
example:
  make page-screenshots                       all of them, into page-screenshots/
  python tools/page_screenshots.py --docs     the two of README and docs/page.md
"""
#: The pictures that the documentation has: view, colours, size, and the name there.
DOCS: tuple[tuple[str, Scheme, str, str], ...] = (
    ("conversation", "light", "desktop", "page-chat.png"),
    ("server", "dark", "desktop", "page-server.png"),
)
SIZES = {"desktop": DESKTOP, "phone": PHONE}
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

QUESTION = "Why does a server that streams tokens keep a journal?"
THOUGHT = "They ask about durability. A short table may help, and a few lines of code."
ANSWER = """\
Because a stream belongs to **nobody's connection**. A laptop sleeps, a tab is closed, a process \
is killed, and the answer must go on where it was.

| what ends | what is lost |
|---|---|
| the reader's connection | nothing: it reads on by the last event's id |
| the server (`kill -9`) | nothing that was shown: it was in the journal first |
| the machine's power | at most the last 20 ms |

So each batch of tokens is appended before anybody sees it:

```python
def publish(batch: list[Token]) -> None:
    journal.append(batch)   # one write for all streams
    for stream in readers:
        stream.wake()       # only now may it be shown
```

1. **Append** to the journal, one system call a batch.
2. **Show** it to every reader.
3. **Commit** the whole answer to the store, and forget the journal's part.
"""
OTHER = """\
So that an answer outlives its reader and its server. What was shown was written first, and \
after a crash the server goes on **from the last token**:

- the journal has what runs,
- the store has what is over,
- and a reader has the number of its last event.
"""
UNSURE = (
    *(Word(one) for one in words("The first public release was in")),
    Word(" March", 0.41, [(" April", 0.33), (" early", 0.11)]),
    Word(" 2023", 0.86, [(" 2024", 0.09)]),
    *(Word(one) for one in words(", and it was written by")),
    Word(" two", 0.22, [(" three", 0.21), (" a", 0.2), (" several", 0.12)]),
    *(Word(one) for one in words(" people over")),
    Word(" a", 0.61, [(" one", 0.2), (" the", 0.1)]),
    Word(" weekend", 0.52, [(" week", 0.3), (" month", 0.08)]),
    Word("."),
)
EARLIER = (
    ("Three names for a grey cat", "Ash, Pebble, or Thistle if it is a shy one."),
    ("Translate “the lid is closed” into French", "*Le capot est fermé.*"),
    ("What is a slot of llama-server?", "One of its parallel sequences: a place to run an answer."),
    ("Plan a walk along the Aare", "Begin in Thun, follow the river north, and swim in Bern."),
    ("Regular expression for a UUID", "`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`"),
    ("Sort a list of tuples by the second item", "`sorted(pairs, key=lambda pair: pair[1])`"),
)


@dataclass
class Studio:
    """What all pictures are taken of.

    Attributes:
        conversation: the place of the one that is shown.
        unsure: that of the one whose answer is shaded.
    """

    profiles: Profiles
    server: RunningServer
    conversation: str = ""
    unsure: str = ""

    def profile(self, size: str = "desktop", scheme: Scheme = "light") -> Profile:
        """A profile of a browser of this size."""
        return self.profiles.new(self.server, SIZES[size], scheme, reduced_motion="reduce")


def parser() -> Parser:
    """The command line."""
    out = Parser(description=__doc__, epilog=EXAMPLE)
    out.add_argument("--output", type=Path, default=Path("page-screenshots"), metavar="FOLDER")
    out.add_argument("--docs", action="store_true", help="only those of docs/images, into it")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Take them all."""
    args = parser().parse_args(argv)
    folder: Path = ROOT / "docs" / "images" if args.docs else args.output
    folder.mkdir(parents=True, exist_ok=True)
    with studio() as found:
        if args.docs:
            for view, scheme, size, name in DOCS:
                take(found, view, size, scheme, folder / name)
                _smaller(folder / name)
            return 0
        for size in SIZES:
            for scheme in SCHEMES:
                for view in VIEWS:
                    take(found, view, size, scheme, folder / f"{view}-{scheme}-{size}.png")
    return 0


@contextmanager
def studio() -> Iterator[Studio]:
    """A server with a history, an answer that is being written, and a browser."""
    with (
        tempfile.TemporaryDirectory() as folder,
        storyteller("Storyteller-7B-Q4_K_M", pause=0.015) as teller,
        running_server("--upstream", teller.url, "--data-dir", folder) as server,
        chromium() as browser,
    ):
        profiles = Profiles(browser)
        found = Studio(profiles, server)
        try:
            _fill(found, teller)
            yield found
        finally:
            profiles.close()


def _fill(found: Studio, teller: Storyteller) -> None:
    chat = Chat(found.profile().open())
    for question, answer in EARLIER:
        teller.tell(question, *words(answer))
        _ask(chat, question)
    teller.tell("When was it written?", *UNSURE)
    _ask(chat, "When was it written?")
    found.unsure = _place(chat)
    for text in (OTHER, ANSWER):
        teller.tell(QUESTION, *map(Thought, words(THOUGHT)), *words(text))
    _ask(chat, QUESTION)
    chat.button("Answer again").click()
    chat.sees("Append")
    chat.sees_the_end()
    found.conversation = _place(chat)
    # One that runs for as long as pictures are taken.
    teller.tell("Tell me a long story", *words("Long ago, when phones had cords,"), Hold())
    chat.new()
    chat.ask("Tell me a long story")
    chat.sees("cords")
    chat.page.close()


def _ask(chat: Chat, question: str) -> None:
    chat.new()
    chat.ask(question)
    chat.sees_the_end()


def _place(chat: Chat) -> str:
    return chat.page.url.partition("#")[2]


# -- views ----------------------------------------------------------------------------------------


def _new(page: Page, found: Studio) -> None:
    page.goto("/#/")
    expect(Chat(page).question_box).to_be_visible()


def _conversation(page: Page, found: Studio) -> None:
    page.goto(f"/#{found.conversation}")
    Chat(page).sees("Append")
    # On a phone the history is behind its button.
    expect(page.locator("nav a").nth(5)).to_be_attached()
    expect(page.get_by_text("Running now")).to_be_attached()


def _versions(page: Page, found: Studio) -> None:
    _conversation(page, found)
    Chat(page).button("Versions side by side").click()
    expect(page.get_by_text("outlives its reader").first).to_be_visible()


def _certainty(page: Page, found: Studio) -> None:
    page.goto(f"/#{found.unsure}")
    chat = Chat(page)
    chat.sees("The first public release")
    chat.button("How sure the model was").click()
    chat.answer.get_by_role("note").nth(6).focus()
    chat.sees("April")


def _history(page: Page, found: Studio) -> None:
    page.goto("/#/")
    if (page.viewport_size or DESKTOP)["width"] < 600:
        page.get_by_role("button", name="Open the history").click()
    page.get_by_role("searchbox").fill("the server")
    expect(page.get_by_role("region", name="By words").get_by_role("link").first).to_be_visible()


def _server(page: Page, found: Studio) -> None:
    page.goto("/#/server")
    expect(page.get_by_role("heading", name="Upstreams")).to_be_visible()


def _settings(page: Page, found: Studio) -> None:
    page.goto("/#/settings")
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()


def _sign_in(page: Page, found: Studio) -> None:
    answer = '{"object": "session", "user": null, "sign_in": "token", "expires_at": null}'
    page.route("**/v1/session", lambda route: route.fulfill(body=answer))
    page.goto("/")
    page.reload()
    expect(page.get_by_label("Token", exact=True)).to_be_visible()


VIEWS = {
    "new": _new,
    "conversation": _conversation,
    "versions": _versions,
    "certainty": _certainty,
    "history": _history,
    "server": _server,
    "settings": _settings,
    "sign-in": _sign_in,
}


def take(found: Studio, view: str, size: str, scheme: Scheme, file: Path) -> None:
    """Take a picture of a view."""
    profile = found.profile(size, scheme)
    page = profile.open()
    VIEWS[view](page, found)
    page.screenshot(path=file, animations="disabled", caret="hide")
    echo(f"{file} ({file.stat().st_size // 1000} kB)")
    profile.context.close()


def _smaller(file: Path) -> None:
    """Of few colours, since it is kept with the source."""
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(128).save(file, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
