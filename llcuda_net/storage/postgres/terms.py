"""Words as PostgreSQL's tsvector and tsquery, made here: what a word is, storage/words.py decides.

PostgreSQL's own parser is not used, so the index depends on no configuration or locale, and finds
what SQLite's finds. The index holds, besides the words of prompt and text:

- pairs: of two words in a row that are one character each (Han, kana, Thai, emoji …). Such a
  character alone is in very many texts; a phrase is found by its pairs.
- tags: a word for the owner, for the state and for the model, which no text can have.
- one word that says that a text is not wholly there. A tsvector keeps at most 256 places of a word,
  and no place above 16383. Where that is not enough, a phrase cannot be found by places: such a
  text is found if it has all the words.

So what the index finds is all that matches, and sometimes more: who searches looks at the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from llcuda_net.storage.packing.codec import digest
from llcuda_net.storage.words import Phrase, Wanted, is_alone, words_of

#: What a text is found by besides its words; and bytes of a hash in the word for it.
OWNER, STATE, MODEL = "o", "s", "m"
_TAG = 6
#: The word of a text that is not wholly there.
_CUT = "\ue000c"
#: PostgreSQL's bounds: bytes of a tsvector, places of one word in it, the last place; and of a
#: word, in characters of up to four bytes.
_BYTES, _PLACES, _LAST_PLACE, _LONGEST = 1 << 20, 255, 16_382, 500
#: Bytes that a word takes besides its own, and that each of its places takes.
_PER_WORD, _PER_PLACE = 8, 2


def tag(kind: str, value: str) -> str:
    """A word that no text has: `words.normal` leaves out what it begins with."""
    return f"\ue000{kind}{digest(value.encode('utf-8', 'replace'))[:_TAG].hex()}"


def vector(texts: Iterable[str], tags: Sequence[str]) -> str:
    """The tsvector of some texts, in PostgreSQL's notation.

    Of a text with more different words than a tsvector can hold, the first ones are in it.
    """
    places: dict[str, list[int]] = {one: [] for one in (*tags, _CUT)}
    size = sum(len(one.encode()) + _PER_WORD for one in places)
    at, whole = 0, True
    for text in texts:
        before = None
        for word in words_of(text):
            at += 1
            short = word[:_LONGEST]
            found = places.get(short)
            if found is None:
                more = len(short.encode()) + _PER_WORD
                if size + more > _BYTES:
                    whole = False
                    break
                size += more
                found = places[short] = []
            if at <= _LAST_PLACE and len(found) < _PLACES and size + _PER_PLACE < _BYTES:
                found.append(at)
                size += _PER_PLACE
            else:
                whole = False
            if before is not None and is_alone(word):
                pair = before + word
                if pair not in places:
                    more = len(pair.encode()) + _PER_WORD
                    if size + more <= _BYTES:
                        size += more
                        places[pair] = []
                    else:
                        whole = False
            before = word if is_alone(word) else None
        at += 1  # so that no phrase goes from one text into the next
    if whole:
        del places[_CUT]
    return " ".join(f"'{word}'{_at(found)}" for word, found in places.items())


def _at(places: list[int]) -> str:
    return f":{','.join(map(str, places))}" if places else ""


def query(wanted: Wanted, tags: Sequence[Sequence[str]] = ()) -> str:
    """The tsquery for what is wanted, with at least one of each of these tags."""
    either = " | ".join(f"({' & '.join(map(_phrase, every))})" for every in wanted)
    return " & ".join([f"({either})", *(f"({' | '.join(map(_exact, some))})" for some in tags)])


def any_word(wanted: Wanted) -> str:
    """The tsquery for any of the words, by which matches are ranked."""
    found = [
        _word(word, prefix=phrase.prefix and number == len(phrase.words))
        for every in wanted
        for phrase in every
        for number, word in enumerate(phrase.words, 1)
    ]
    return " | ".join(dict.fromkeys(found))


def _phrase(phrase: Phrase) -> str:
    last = len(phrase.words)
    words = [
        _word(word, prefix=phrase.prefix and number == last)
        for number, word in enumerate(phrase.words, 1)
    ]
    if last == 1:
        return words[0]
    pairs = [_exact(pair) for pair in _pairs(phrase)]
    # A text that is not wholly there may lack places, and pairs.
    there = " & ".join([f"({' <-> '.join(words)})", *pairs])
    return f"(({there}) | ({' & '.join([_exact(_CUT), *words])}))"


def _pairs(phrase: Phrase) -> Iterator[str]:
    exact = phrase.words[: len(phrase.words) - phrase.prefix]
    for first, second in pairwise(exact):
        if is_alone(first) and is_alone(second):
            yield first + second


def _word(word: str, *, prefix: bool) -> str:
    # One that was cut may go on in another way, which the text shows.
    return _exact(word[:_LONGEST]) + ":*" * prefix


def _exact(word: str) -> str:
    return f"'{word}'"
