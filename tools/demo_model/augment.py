"""Ways to ask the same thing: what turns a few phrasings into many.

A network this small learns the words it sees, so the words are varied: case, punctuation, polite
openings, synonyms, missing and swapped words, typing errors, templates filled with the topic of
an entry, mixtures of two phrasings, and loose words from an entry's questions and answer. A
variation that happens to equal a held-out question is thrown away, so that the held-out set stays
unseen whatever the generator comes up with.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection

from tools.demo_model.corpus import Entry, normalise

TOPIC_TEMPLATES = (
    "what is {}?",
    "what's {}?",
    "what are {}?",
    "what does {} mean?",
    "what is meant by {}?",
    "explain {}",
    "explain {} to me",
    "can you explain {}?",
    "describe {}",
    "define {}",
    "definition of {}",
    "tell me about {}",
    "tell me what {} is",
    "meaning of {}",
    "give me a short explanation of {}",
    "what do you mean by {}?",
    "what do you know about {}?",
    "help me understand {}",
    "I do not understand {}",
    "{}?",
    "{}",
)

OPENINGS = (
    "please tell me, ",
    "please, ",
    "tell me: ",
    "can you tell me ",
    "could you say ",
    "hi, ",
    "hello, ",
    "hey, ",
    "quick question: ",
    "I wonder: ",
    "I would like to know: ",
    "do you know ",
    "so, ",
    "ok, ",
    "and ",
    "sorry, ",
    "just curious, ",
    "I am new here. ",
    "in short, ",
    "in simple words, ",
)

CLOSINGS = (
    " please",
    ", please",
    ", thanks",
    " exactly",
    " really",
    ", in short",
    " then",
    " again",
)

# Words that may stand for each other in a question without changing which answer is right.
SYNONYMS = (
    ("what is", "what's"),
    ("how do i", "how can i", "how to", "how would i", "how should i", "what is the way to"),
    ("why", "for what reason", "how come"),
    ("why is", "why's"),
    ("why do", "what makes"),
    ("does", "will"),
    ("what happens", "what goes on", "what occurs"),
    ("explain", "describe", "clarify"),
    ("tell me", "show me", "let me know"),
    ("start", "launch", "run", "begin"),
    ("stop", "halt", "end", "shut down"),
    ("use", "employ", "make use of"),
    ("useful", "helpful", "good", "handy"),
    ("quick", "fast"),
    ("faster", "quicker"),
    ("big", "large"),
    ("small", "little", "tiny"),
    ("answer", "reply", "response"),
    ("question", "prompt"),
    ("connection", "link"),
    ("error", "failure", "problem"),
    ("broken", "damaged"),
    ("need", "require"),
    ("get", "obtain"),
    ("make", "create", "build"),
    ("show", "display", "print"),
    ("change", "set", "alter"),
    ("choose", "pick", "select"),
    ("computer", "machine", "pc"),
    ("graphics card", "gpu"),
    ("difference", "distinction"),
    ("purpose", "point", "aim"),
    ("mean", "stand for", "signify"),
    ("several", "multiple", "many"),
    ("at once", "at the same time", "simultaneously", "in parallel"),
    ("must", "have to", "should"),
    ("limit", "restrict", "cap"),
    ("measure", "benchmark", "test"),
    ("speed", "performance"),
    ("slow", "sluggish"),
    ("program", "application", "software"),
    ("option", "flag", "setting"),
    ("folder", "directory"),
    ("wait", "hang on"),
    ("send", "transmit"),
    ("keep", "hold"),
    ("work", "function", "operate"),
    ("important", "relevant"),
    ("quantisation", "quantization"),
    ("quantised", "quantized"),
    ("llama-server", "llama server", "llama.cpp server"),
)

_SMALL_WORDS = (
    "a an the is are do does did of to in on for it its this that i me my you your can could would "
    "should please with and be so at"
)
_STOP = frozenset(re.findall(r"\w+", _SMALL_WORDS))
_SWAPS: dict[str, list[str]] = {}
for _group in SYNONYMS:
    for _word in _group:
        _SWAPS.setdefault(_word, []).extend(other for other in _group if other != _word)
_SWAP_PATTERN = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, _SWAPS), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)


# Share of the variations that mix an entry's words freely.
MIXED = 0.4


def _content(text: str) -> list[str]:
    """The telling words of `text`, each once."""
    words = (word.strip('?.,:;`"()').lower() for word in text.split())
    return list(dict.fromkeys(word for word in words if word and word not in _STOP))


class Augmenter:
    """Draws variations of an entry's questions."""

    def __init__(self, rng: random.Random, forbidden: Collection[str] = ()) -> None:
        self._rng = rng
        self._forbidden = frozenset(map(normalise, forbidden))

    def question(self, entry: Entry) -> str:
        """One way to ask for `entry`, never a forbidden one."""
        base = self._rng.choice(entry.questions)
        for _ in range(4):
            varied = self._surface(self._mix(entry)) if self._mixes() else self._vary(entry, base)
            if normalise(varied) not in self._forbidden:
                return varied
        return base

    def _mixes(self) -> bool:
        return self._rng.random() < MIXED

    def _mix(self, entry: Entry) -> str:
        """Something that nobody typed, yet points at this entry and no other."""
        rng = self._rng
        draw = rng.random()
        if draw < 0.4:
            left, right = rng.sample(entry.questions, 2)
            a, b = left.split(), right.split()
            return " ".join(a[: max(1, len(a) // 2 + rng.randint(0, 1))] + b[len(b) // 2 :])
        if draw < 0.75:
            # Most words from one phrasing, the rest from anything said about the entry.
            words = [w for w in rng.choice(entry.questions).split() if rng.random() < 0.6]
            pool = _content(" ".join((*entry.questions, entry.answer)))
            words += rng.sample(pool, min(len(pool), rng.randint(1, 3)))
            rng.shuffle(words)
            return " ".join(words)
        words = entry.answer.split()
        length = rng.randint(4, 9)
        start = rng.randrange(max(1, len(words) - length))
        said = " ".join(words[start : start + length])
        return rng.choice(
            ("{}", "{}?", "what {}", "why {}", "how {}", "is it true that {}")
        ).format(said.rstrip(".,;:"))

    def _vary(self, entry: Entry, base: str) -> str:
        rng = self._rng
        draw = rng.random()
        if draw < 0.3:
            return base
        if draw < 0.4:
            return self._surface(base)
        text = base
        if entry.topic and rng.random() < 0.25:
            text = rng.choice(TOPIC_TEMPLATES).format(entry.topic)
        if rng.random() < 0.5:
            text = self._synonyms(text, 0.4)
        if rng.random() < 0.35:
            text = self._drop_words(text)
        if rng.random() < 0.08:
            text = self._swap_words(text)
        if rng.random() < 0.3:
            text = self._wrap(text)
        if rng.random() < 0.12:
            text = self._typo(text)
        return self._surface(text)

    def _synonyms(self, text: str, share: float) -> str:
        def swap(match: re.Match[str]) -> str:
            word = match.group(0)
            if self._rng.random() > share:
                return word
            other = self._rng.choice(_SWAPS[word.lower()])
            return other[0].upper() + other[1:] if word[0].isupper() else other

        return _SWAP_PATTERN.sub(swap, text)

    def _drop_words(self, text: str) -> str:
        """Lose a word or two, or every small word, as in a search box."""
        words = text.split()
        if len(words) < 3:
            return text
        if self._rng.random() < 0.25:
            kept = [word for word in words if word.strip("?,.").lower() not in _STOP]
        else:
            share = self._rng.choice((0.1, 0.2))
            kept = [word for word in words if self._rng.random() > share]
        return " ".join(kept) if kept else text

    def _swap_words(self, text: str) -> str:
        words = text.split()
        if len(words) > 2:
            i = self._rng.randrange(len(words) - 1)
            words[i], words[i + 1] = words[i + 1], words[i]
        return " ".join(words)

    def _wrap(self, text: str) -> str:
        rng = self._rng
        if rng.random() < 0.75:
            opening = rng.choice(OPENINGS)
            first = text.split(" ", 1)[0]
            keep = first.isupper() or first.startswith("I") or rng.random() < 0.3
            text = opening + (text if keep else text[:1].lower() + text[1:])
        if rng.random() < 0.35:
            text = text.rstrip("?. ") + rng.choice(CLOSINGS) + rng.choice(("?", "", "."))
        return text

    def _typo(self, text: str) -> str:
        """Lose, double or exchange a letter in the middle of the text."""
        if len(text) < 6:
            return text
        i = self._rng.randrange(1, len(text) - 2)
        kind = self._rng.randrange(3)
        if kind == 0:
            return text[:i] + text[i + 1 :]
        if kind == 1:
            return text[:i] + text[i] + text[i:]
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]

    def _surface(self, text: str) -> str:
        """Case and the mark at the end."""
        rng = self._rng
        draw = rng.random()
        if draw < 0.35:
            text = text.lower()
        elif draw < 0.6:
            text = text[:1].upper() + text[1:]
        elif draw < 0.62:
            text = text.upper()
        mark = rng.random()
        if mark < 0.25:
            text = text.rstrip("?. ")
        elif mark < 0.35:
            text = text.rstrip("?. ") + rng.choice(("?", " ?", "??", "."))
        return text
