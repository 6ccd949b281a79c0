"""Words in texts of all scripts, for full-text search: how they are indexed, asked for and shown.

SQLite's tokenizers find words between spaces, and know the letters of an old Unicode. So text is
normalised here, and SQLite only splits it at spaces and at ASCII's punctuation:

- Compatibility forms become plain ones (full-width letters, ligatures, ①), case goes (ß is ss, and
  all of the Turkish i are i), and so do accents and the vowel points of Arabic and Hebrew. What is
  part of a letter stays: the marks of Indic scripts, of Thai, and of Japanese kana.
- Han, kana and Hangul, and the scripts of South East Asia, are written without spaces, or with
  particles at their words. Each of their characters becomes a word of its own, and a query of
  several of them a phrase, so that any part of a text is found.
- So does an emoji, whatever its colour.
- Punctuation and other symbols separate words.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llcuda_net.errors import StorageError

#: Marks around what a search found.
HIGHLIGHT = ("\x02", "\x03")
#: Characters of the longest beginnings of words that the index has.
PREFIX = 3
#: Characters of an excerpt, and of what it shows before the first match.
_EXCERPT, _BEFORE = 160, 30
#: Matches at which an excerpt may begin, at most.
_PLACES = 50
#: Characters of which it is remembered what becomes of them, at most.
_CHARACTERS = 1 << 15
#: Scripts whose characters are words, as ranges of code points.
_SPLIT = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul, in parts
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # 々〆〇
    (0x3021, 0x31FF),  # kana, bopomofo
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),  # Han
    (0x1AFF0, 0x1B16F),  # kana
    (0x20000, 0x3FFFD),  # Han
)
#: Emoji, the symbols among them.
_EMOJI = ((0x2600, 0x27BF), (0x2B00, 0x2BFF), (0x1F000, 0x1FAFF))
#: Skin colours; and what is invisible within a word: joiners, variations, the soft hyphen, tatweel.
_DROPPED = {*range(0x1F3FB, 0x1F400), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
_DROPPED |= {0xAD, 0x640, 0x200D, 0x2060, 0xFEFF}
#: Combining classes of marks that go: points of Hebrew and Arabic, accents above and below.
_POINTS, _ACCENTS = range(10, 37), 200
_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
_WORD = re.compile(r"[0-9A-Za-z\x80-\U0010ffff]+")


class _Marks(dict[int, int | None]):
    """A table for str.translate that leaves out accents; filled as characters come."""

    def __missing__(self, point: int) -> int | None:
        _bound(self)
        kind = unicodedata.combining(chr(point))
        gone = kind in _POINTS or kind >= _ACCENTS or point in _DROPPED
        self[point] = found = None if gone else ord("i") if point == 0x131 else point
        return found


class _Splits(dict[int, str]):
    """A table for str.translate that separates words; filled as characters come."""

    def __missing__(self, point: int) -> str:
        _bound(self)
        text = chr(point)
        if _in(point, _SPLIT) or (_in(point, _EMOJI) and not text.isalnum()):
            found = f" {text} "
        elif point > 127 and (text.isalnum() or unicodedata.category(text)[0] == "M"):
            found = text
        elif point > 127 or text == '"' or text == "\0":
            found = " "
        else:
            found = text
        self[point] = found
        return found


def _bound(table: dict[Any, Any]) -> None:
    """There are a million characters; no text needs that many at a time."""
    if len(table) >= _CHARACTERS:
        table.clear()


def _in(point: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first <= point <= last for first, last in ranges)


class _Alone(dict[str, str]):
    """What a character becomes; empty if it may belong to the one before it."""

    def __missing__(self, character: str) -> str:
        _bound(self)
        self[character] = found = "" if _continues(character) else _short(character)
        return found


_marks, _splits, _alone = _Marks(), _Splits(), _Alone()


def normal(text: str) -> str:
    """The text as it is indexed: words between spaces and ASCII's punctuation."""
    if text.isascii():
        return text.replace("\0", " ")
    return _NON_ASCII.sub(lambda found: _run(found[0]), text).replace("\0", " ")


@lru_cache(maxsize=4096)
def _short(run: str) -> str:
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", run).casefold())
    return unicodedata.normalize("NFC", decomposed.translate(_marks)).translate(_splits)


def _run(run: str) -> str:
    return _short(run) if len(run) <= 8 else _short.__wrapped__(run)


def words_of(text: str) -> Iterator[str]:
    """The words of a text, in their order, as they are indexed."""
    return (found[0] for found in _WORD.finditer(normal(text).translate(_LOWER)))


def is_alone(word: str) -> bool:
    """Whether a word is a character of a script without spaces, or an emoji."""
    return len(word) == 1 and word > "\x7f" and (_in(ord(word), _SPLIT) or _in(ord(word), _EMOJI))


# -- queries ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phrase:
    """Words that follow each other; with `prefix` the last of them may go on."""

    words: tuple[str, ...]
    prefix: bool


#: All phrases of at least one of these.
Wanted = list[list[Phrase]]


def parse(query: str) -> Wanted:
    """What a user's search words ask for; see storage.results.interface.Store.

    Raises:
        StorageError: they hold no word.
    """
    out: Wanted = [[]]
    for number, part in enumerate(query.split('"')):
        quoted = number % 2 == 1
        for word in [part] if quoted else part.split():
            if word == "OR" and not quoted:
                if out[-1]:
                    out.append([])
            elif words := tuple(_WORD.findall(normal(word).translate(_LOWER))):
                out[-1].append(Phrase(words, not quoted and word.endswith("*")))
    if not out[-1]:
        out.pop()
    if not out:
        raise StorageError("give at least one word to search for", StorageError.INVALID)
    return out


def match_expression(wanted: Wanted) -> str:
    """FTS5's expression."""
    return " OR ".join(f"({' AND '.join(map(_expression, every))})" for every in wanted)


def _expression(phrase: Phrase) -> str:
    return f'"{" ".join(phrase.words)}"' + "*" * phrase.prefix


def word_expressions(phrase: Phrase) -> list[str]:
    """FTS5's expressions for each of its words alone; a prefix as long as the index has them."""
    exact, last = phrase.words[:-1], phrase.words[-1]
    if phrase.prefix:
        return [*map(_quoted, exact), f"{_quoted(last[:PREFIX])}*"]
    return [_quoted(word) for word in phrase.words]


def _quoted(word: str) -> str:
    return f'"{word}"'


# -- excerpts ---------------------------------------------------------------------------------


class Text:
    """A text with its words, and where in it each of them is."""

    def __init__(self, text: str) -> None:
        # Other highlights than ours would mark what was not found.
        self._text = text.translate(dict.fromkeys(map(ord, HIGHLIGHT), " "))
        normalised, starts, ends = _aligned(self._text)
        spans = [found.span() for found in _WORD.finditer(normalised)]
        self._words = [normalised[start:end] for start, end in spans]
        if not isinstance(starts, range):  # else all is where it was
            spans = [(starts[start], ends[end - 1]) for start, end in spans]
        self._places = spans

    def __repr__(self) -> str:
        return f"<Text {len(self._words)} words: {self._text[:20]!r}>"

    def find(self, phrase: Phrase) -> list[tuple[int, int]]:
        """Where a phrase is, as half-open ranges of characters."""
        *exact, last = phrase.words
        count, words = len(exact), enumerate(self._words)
        if phrase.prefix and not exact:
            firsts = [at for at, word in words if word.startswith(last)]
        else:
            firsts = [at for at, word in words if word == phrase.words[0]]
        out = []
        for at in firsts:
            end = at + count
            if end >= len(self._words) or self._words[at:end] != exact:
                continue
            found = self._words[end]
            if found.startswith(last) if phrase.prefix else found == last:
                out.append((self._places[at][0], self._places[end][1]))
        return out

    def excerpt(self, spans: list[tuple[int, int]]) -> str:
        """The part of the text with the most of these spans in it, each between HIGHLIGHT."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted(spans):
            if merged and start < merged[-1][1]:
                start, end = merged[-1][0], max(end, merged.pop()[1])
            merged.append((start, end))
        begin = end = 0
        if merged:
            best = max(merged[:_PLACES], key=lambda one: self._within(one[0], merged))
            begin, end = self._border(best[0] - _BEFORE), best[1]
        end = self._end(begin + _EXCERPT, end)
        out, at = "…" if begin else "", begin
        for start, stop in merged:
            if start >= begin and stop <= end:
                out += self._text[at:start] + HIGHLIGHT[0] + self._text[start:stop] + HIGHLIGHT[1]
                at = stop
        return out + self._text[at:end] + ("…" if end < len(self._text) else "")

    def _within(self, start: int, spans: list[tuple[int, int]]) -> int:
        end = start - _BEFORE + _EXCERPT
        return sum(start <= one[0] and one[1] <= end for one in spans)

    def _border(self, at: int) -> int:
        """Where the first word from there on begins."""
        if at <= 0:
            return 0
        number = bisect_left(self._places, (at, 0))
        return self._places[number][0] if number < len(self._places) else at

    def _end(self, at: int, least: int) -> int:
        """Where the last word up to there ends, but not before `least`."""
        if at >= len(self._text):
            return len(self._text)
        number = bisect_left(self._places, (at, 0)) - 1
        while number >= 0 and self._places[number][1] > at:
            number -= 1
        return max(least, self._places[number][1] if number >= 0 else at)


def marked_parts(excerpt: str) -> Iterator[tuple[str, bool]]:
    """The parts of an excerpt, each with whether it is what was found."""
    begin, end = HIGHLIGHT
    head, *others = excerpt.split(begin)
    yield head.replace(end, ""), False
    for part in others:
        found, _, rest = part.partition(end)
        yield found, True
        yield rest.replace(end, ""), False


def highlights(excerpt: str) -> tuple[str, list[list[int]]]:
    """An excerpt without marks, and where in it is what was found: half-open ranges."""
    plain, spans = "", []
    for part, marked in marked_parts(excerpt):
        if marked:
            spans.append([len(plain), len(plain) + len(part)])
        plain += part
    return plain, spans


def excerpts(wanted: Wanted, *texts: str) -> tuple[str, ...] | None:
    """An excerpt of each text around what was found; None: they are not what is wanted."""
    parts = [Text(text) for text in texts]
    found: dict[Phrase, list[list[tuple[int, int]]]] = {
        phrase: [part.find(phrase) for part in parts] for every in wanted for phrase in every
    }
    there = [every for every in wanted if all(any(found[phrase]) for phrase in every)]
    if not there:
        return None
    return tuple(
        part.excerpt(
            [span for every in there for phrase in every for span in found[phrase][number]]
        )
        for number, part in enumerate(parts)
    )


def _aligned(text: str) -> tuple[str, Sequence[int], Sequence[int]]:
    """The normalised text, and where in the text what became each character begins and ends."""
    if text.isascii():
        return text.lower(), range(len(text)), range(1, len(text) + 1)
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for run in _NON_ASCII.finditer(text):
        out.append(text[at : run.start()].lower())
        starts += range(at, run.start())
        ends += range(at + 1, run.start() + 1)
        at = run.end()
        alone = [_alone[character] for character in run[0]]
        if all(alone):
            out += alone
            for place, became in enumerate(alone, run.start()):
                starts += (place,) * len(became)
                ends += (place + 1,) * len(became)
            continue
        for start, end in _clusters(text, *run.span()):
            became = _short(text[start:end])
            if not became:  # it belongs to what is before it
                last, number = ends[-1] if ends else 0, len(ends) - 1
                while number >= 0 and ends[number] == last:
                    ends[number] = end
                    number -= 1
            out.append(became)
            starts += [start] * len(became)
            ends += [end] * len(became)
    out.append(text[at:].lower())
    starts += range(at, len(text))
    ends += range(at + 1, len(text) + 1)
    return "".join(out), starts, ends


def _clusters(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of characters that are normalised together: each with the marks on it."""
    for at in range(start + 1, end):
        if not _continues(text[at]):
            yield start, at
            start = at
    yield start, end


@lru_cache(maxsize=4096)
def _continues(character: str) -> bool:
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.category(first)[0] == "M" or "\u1160" <= first <= "\u11ff"
