"""The workloads with names: what each is, in numbers, and where the numbers are from.

Whatever changes what a workload sends is a new version of it: figures are quoted by name and
version. A test holds a hash of each. Tables that cite a trace are computed by
tools/trace_quantiles.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llcuda_net.bench.workload.quantiles import Counts, Quantiles
from llcuda_net.errors import ConfigError

_AZURE = (
    "Azure LLM inference trace 2023 ({part}; Patel et al., Splitwise, ISCA 2024; CC BY), {column},"
    " quantiles of all {count:,} requests"
)
_MOONCAKE = (
    "Mooncake trace of conversations (Qin et al., FAST 2025), 12,031 requests of an hour: {what}"
)
_ASSUMED = "assumed: {what}"

CHAT_FIRST = Quantiles(
    (
        *(2, 29, 181, 207, 372, 387, 396, 403, 414, 703, 984, 1020, 1045, 1071, 1097, 1130),
        *(1189, 1315, 1876, 2734, 4083, 4090, 4142, 4831, 6179, 14050),
    ),
    _AZURE.format(part="conversation", column="ContextTokens", count=19_366),
)
CHAT_ANSWER = Quantiles(
    (
        *(7, 16, 41, 54, 67, 77, 85, 91, 96, 103, 113, 129, 151, 177, 217, 384),
        *(395, 400, 411, 424, 451, 509, 601, 643, 954, 1000),
    ),
    _AZURE.format(part="conversation", column="GeneratedTokens", count=19_366),
)
CHAT_LATER = Quantiles(
    (
        *(1, 4, 6, 8, 9, 11, 13, 15, 19, 23, 29, 40, 61, 99, 184, 341),
        *(548, 1489, 3420, 4792, 7766, 10310, 18414, 24759, 40195, 91467),
    ),
    _MOONCAKE.format(
        what="3,649 requests whose prefix blocks go on from an earlier request's, their"
        " input_length less that request's input_length and output_length"
    ),
)
CHAT_TURNS = Counts(
    (0.4, 0.64, 0.784, 0.8704, 0.92224, 0.953344, 0.9720064, 0.98320384, 0.989922304, 1.0),
    "geometric, at most 10; its mean of 2.5 is that of WildChat (Zhao et al., ICLR 2024: over 2.5"
    " million turns in 1 million conversations), its shape is assumed",
)
CHAT_THINK = Quantiles(
    (
        *(0.5, 0.78, 1.34, 1.79, 2.18, 2.55, 2.91, 3.29, 3.67, 4.08, 4.52, 5.0, 5.53, 6.12, 6.81),
        *(7.61, 8.58, 9.8, 11.46, 13.94, 18.64, 22.51, 32.15, 39.26, 59.24, 59.24),
    ),
    _ASSUMED.format(
        what="lognormal, median 5 s, sigma 0.8, so that a run of a minute has later turns. In the"
        " Mooncake trace of conversations the median from one turn's arrival to the next one's is"
        " 135 s (3,649 turns; answers included)"
    ),
    "s",
)
SUMMARISE_FIRST = Quantiles(
    (
        *(891, 894, 898, 909, 984, 1203, 1509, 2234, 3543, 4398, 5099, 5948, 7111, 8509, 10086),
        *(11979, 14178, 16842, 20213, 26122, 37724, 50826, 86559, 108792, 120635, 126195),
    ),
    _MOONCAKE.format(what="8,382 requests that go on from no earlier one, input_length"),
)
SUMMARISE_ANSWER = Quantiles(
    (
        *(1, 3, 9, 23, 45, 103, 157, 212, 255, 290, 321, 348, 371, 396, 417, 441),
        *(464, 494, 532, 578, 668, 747, 1000, 1213, 2000, 2000),
    ),
    _MOONCAKE.format(what="8,382 requests that go on from no earlier one, output_length"),
)
CODE_FIRST = Quantiles(
    (
        *(3, 17, 75, 147, 232, 386, 578, 770, 939, 1075, 1261, 1469, 1690, 1909, 2164, 2433),
        *(2744, 3192, 3920, 5188, 7303, 7435, 7436, 7436, 7437, 7437),
    ),
    _AZURE.format(part="code", column="ContextTokens", count=8_819),
)
CODE_ANSWER = Quantiles(
    (
        *(6, 6, 6, 7, 7, 8, 9, 9, 10, 11, 12, 13, 14, 16, 18, 20),
        *(24, 29, 39, 55, 90, 128, 251, 359, 825, 1899),
    ),
    _AZURE.format(part="code", column="GeneratedTokens", count=8_819),
)
AGENT_TASK = Quantiles(
    (
        *(18, 34, 58, 78, 95, 111, 127, 143, 160, 178, 197, 218, 241, 267, 296, 331),
        *(374, 427, 499, 607, 812, 981, 1401, 1710, 2581, 2581),
    ),
    _ASSUMED.format(what="lognormal, mean 300, sigma 0.8"),
)
AGENT_RESULT = Quantiles(
    (
        *(19, 45, 95, 142, 186, 230, 277, 326, 380, 440, 506, 581, 667, 768, 888, 1034),
        *(1220, 1466, 1817, 2379, 3548, 4599, 7508, 9879, 16000, 16000),
    ),
    _ASSUMED.format(
        what="lognormal, sigma 1.1, mean 1,064; with it and the system prompt the mean prompt of"
        " all turns, 8,572, is near that of the Mooncake trace of tools and agents (Qin et al.,"
        " FAST 2025, table 2: 8,596)"
    ),
)
AGENT_ANSWER = Quantiles(
    (
        *(8, 15, 28, 38, 48, 57, 66, 76, 86, 97, 108, 121, 136, 152, 172, 195),
        *(223, 259, 309, 385, 533, 660, 985, 1233, 1959, 1959),
    ),
    "the mean of 182 is that of the Mooncake trace of tools and agents (Qin et al., FAST 2025,"
    " table 2); lognormal with sigma 0.9 is assumed",
)
AGENT_TURNS = Counts(
    (0.0, 0.0, 0.06, 0.14, 0.25, 0.37, 0.49, 0.61, 0.71, 0.8, 0.87, 0.92, 0.96, 0.98, 1.0),
    _ASSUMED.format(
        what="3 to 15, mean 7.8. Published agents' sessions differ: those of Codex on SWE-bench Pro"
        " have a median of 33 (vLLM project, 2026)"
    ),
)
AGENT_THINK = Quantiles(
    (
        *(0.05, 0.1, 0.19, 0.28, 0.35, 0.43, 0.51, 0.59, 0.68, 0.78, 0.88, 1.0, 1.13, 1.29, 1.47),
        *(1.69, 1.96, 2.32, 2.82, 3.6, 5.18, 6.56, 10.24, 13.14, 21.98, 21.98),
    ),
    _ASSUMED.format(what="what a tool takes: lognormal, median 1 s, sigma 1"),
    "s",
)
EMBED_TEXT = Quantiles(
    (
        *(31, 50, 75, 93, 107, 121, 133, 146, 159, 172, 185, 200, 216, 233, 252, 274),
        *(300, 331, 372, 400, 400, 400, 400, 400, 400, 400),
    ),
    _ASSUMED.format(
        what="pieces of documents as they are cut for a search: lognormal, median 200, sigma 0.6,"
        " at most 400, which servers take that embed no more than 512 tokens"
    ),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One version of a workload.

    Attributes:
        name, version: by which it is quoted.
        what: in a few words.
        first: tokens of the first message, or of each text to embed.
        answer: tokens of each answer; None: texts are embedded.
        turns: of a session; None: always one.
        later: tokens of each message after the first one.
        think: seconds between an answer and the next message.
        system: tokens of a system prompt; 0: there is none.
        systems: how many system prompts all sessions share in turn.
        texts: to embed in one request.
    """

    name: str
    version: int
    what: str
    first: Quantiles
    answer: Quantiles | None
    turns: Counts | None = None
    later: Quantiles | None = None
    think: Quantiles | None = None
    system: int = 0
    systems: int = 0
    texts: int = 0

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def shares(self) -> bool:
        """Whether requests begin alike, so that a prefix cache is part of the workload."""
        return self.turns is not None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything that it is made of, but the generator."""
        found: dict[str, Any] = {"name": self.name, "version": self.version, "what": self.what}
        for name in ("first", "later", "answer", "turns", "think"):
            table = getattr(self, name)
            found[name] = None if table is None else table.as_dict()
        more = {"system_tokens": self.system, "system_prompts": self.systems, "texts": self.texts}
        return {**found, **more}


WORKLOADS = (
    Workload(
        *("chat", 1, "conversations with people, of several turns, with think time"),
        first=CHAT_FIRST,
        answer=CHAT_ANSWER,
        turns=CHAT_TURNS,
        later=CHAT_LATER,
        think=CHAT_THINK,
    ),
    Workload(
        *("summarise", 1, "long texts, each answered once by some hundred tokens"),
        first=SUMMARISE_FIRST,
        answer=SUMMARISE_ANSWER,
    ),
    Workload(
        *("code", 1, "completion in an editor: long prompts, short answers"),
        first=CODE_FIRST,
        answer=CODE_ANSWER,
    ),
    Workload(
        *("agent", 1, "agents: shared system prompts, many turns, tool results as messages"),
        first=AGENT_TASK,
        answer=AGENT_ANSWER,
        turns=AGENT_TURNS,
        later=AGENT_RESULT,
        think=AGENT_THINK,
        system=3300,
        systems=4,
    ),
    Workload(
        *("embed", 1, "pieces of documents to embed, 8 a request"),
        first=EMBED_TEXT,
        answer=None,
        texts=8,
    ),
)
KINDS = ", ".join(sorted({each.name for each in WORKLOADS}))


def find(text: str) -> Workload:
    """A workload by its NAME, in its newest version, or by NAME@VERSION.

    Raises:
        ConfigError: there is none.
    """
    name, at, version = text.partition("@")
    named = [each for each in WORKLOADS if each.name == name]
    if not named:
        raise ConfigError(f"there is no workload {name!r}: it must be one of {KINDS}")
    if not at:
        return max(named, key=lambda each: each.version)
    for each in named:
        if str(each.version) == version:
            return each
    known = ", ".join(str(each) for each in named)
    raise ConfigError(f"there is no workload {text!r}: there is {known}")
