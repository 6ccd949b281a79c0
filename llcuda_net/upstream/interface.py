"""What the server needs of an upstream, whatever it is, and what a request needs of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from llcuda_net.config.upstreams import COMPLETIONS
from llcuda_net.errors import RequestError, UpstreamLacks
from llcuda_net.storage.channels import REASONING as REASONING
from llcuda_net.storage.channels import TEXT as TEXT
from llcuda_net.storage.channels import TOOL_CALL as TOOL_CALL
from llcuda_net.upstream.prompts.prefix_cache import Chain
from llcuda_protocol import ErrorCode

#: Errors for which an upstream, not the request, is to blame; another one may serve it.
BLAMED = frozenset(
    {ErrorCode.UPSTREAM_UNAVAILABLE, ErrorCode.UPSTREAM_STALLED, ErrorCode.UPSTREAM_ERROR}
)
#: Of these, those after which it gets no work before it has passed a probe.
DOWN = frozenset({ErrorCode.UPSTREAM_UNAVAILABLE, ErrorCode.UPSTREAM_STALLED})


def is_for_another(error: RequestError) -> bool:
    """Whether another upstream may serve what this one did not: it failed, or cannot do it."""
    return error.code in BLAMED or isinstance(error, UpstreamLacks)


# What is out of range here would otherwise fail later, where it is no longer the upstream's fault.
Count = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
_Bytes = Annotated[list[Annotated[int, Meta(ge=0, le=255)]], Meta(max_length=65_536)]
#: The protocol's range; what is greater is no logarithm of a probability.
_Logprob = Annotated[float, Meta(ge=-3.5e38, le=3.5e38)]
_Probability = Annotated[float, Meta(ge=0)]
_Milliseconds = Annotated[float, Meta(ge=-1e12, le=1e12)]


class Candidate(msgspec.Struct, gc=False):
    """A token that might have been chosen; `prob` in place of `logprob` after sampling.

    Where neither is given, how likely it was is not known.
    """

    id: Count
    bytes: _Bytes = []
    logprob: _Logprob | None = None
    prob: _Probability | None = None


class Probabilities(msgspec.Struct, gc=False):
    """A chosen token and the likeliest ones at its place."""

    id: Count
    bytes: _Bytes = []
    logprob: _Logprob | None = None
    prob: _Probability | None = None
    top_logprobs: list[Candidate] = []
    top_probs: list[Candidate] = []


class Timings(msgspec.Struct, gc=False):
    """llama-server's own measurements: tokens of the prompt that its cache held, and that it read.

    The time is in milliseconds.
    """

    cache_n: Count = 0
    prompt_n: Count = 0
    prompt_ms: _Milliseconds = 0.0


class Channel(NamedTuple):
    """What a part of an answer is: of one answer to a chat there may be several.

    Attributes:
        kind: TEXT, REASONING or TOOL_CALL.
        index: of a tool call: its number in the answer, from 0.
        id, name: of a tool call: its id, and the name of the tool. The text of the channel is its
            arguments, in JSON.
    """

    kind: str
    index: int = 0  # type: ignore[assignment]  # not the method of tuples
    id: str = ""
    name: str = ""


class CompletionEvent(msgspec.Struct, gc=False):
    """One `data:` line of /completion; the last one has `stop` set and the counts filled in.

    Attributes:
        channel: to which the content belongs, of an answer that has channels; None: to its text.
    """

    content: str = ""
    tokens: list[Count] = []
    stop: bool = False
    tokens_predicted: Count = 0
    tokens_evaluated: Count = 0
    stop_type: str = ""
    stopping_word: str = ""
    truncated: bool = False
    model: str = ""
    timings: Timings | None = None
    completion_probabilities: list[Probabilities] | None = None
    error: dict[str, Any] | None = None
    # Never in what an upstream sends: no name of its could be this one.
    channel: Channel | None = msgspec.field(default=None, name=" channel")


OnEvents = Callable[[list[CompletionEvent]], None]

#: Returns the rows of each text, as Upstream.embed does.
EmbedTexts = Callable[[list[Any]], Awaitable[list[list[list[float]]]]]

#: Gives for a while what embeds many texts beside an upstream; None where nothing does now.
Spare = Callable[[], AbstractAsyncContextManager[EmbedTexts | None]]


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a request needs of an upstream; equal requirements can be met by the same ones.

    Attributes:
        model: the pool's key of its model; empty: any.
        role: COMPLETIONS, EMBEDDINGS or RERANK.
        long: the prompt takes so long to read that few may be read at once.
        avoid: names of upstreams that have just failed at it.
        only: the name of the one that will do.
        chain: of the prompt; a slot that holds its beginning is preferred.
        answer: tokens that its answer may have; None: any number.
        until: until when, on trio's clock, to wait for others that are down rather than use again
            those to avoid.
        abilities: what its model must take beside text: "images", "audio", "tools"; where no
            upstream does, any will do, and says so.
    """

    model: str
    role: str = COMPLETIONS
    long: bool = False
    avoid: frozenset[str] = frozenset()
    only: str | None = None
    chain: Chain = field(default=(), compare=False)
    answer: int | None = field(default=None, compare=False)
    until: float = 0.0
    abilities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Properties:
    """What an upstream reports of itself.

    Attributes:
        slots: sequences that it runs at once.
        context: tokens that each of them holds.
        has_template: whether its model has a chat template.
        build: version of its software.
        path: the model's file, as reported; empty where it is not.
        quantisation: of the model, as reported; empty where it is not.
        thinks: its chat template has the model reason before it answers, as far as can be seen.
        images, audio: its model takes them in a chat.
        tools: its chat template tells the model of tools, as far as is known.
        steady: its chat template makes the same of the same messages at any time.
    """

    model: str
    slots: int
    context: int
    has_template: bool
    build: str
    path: str = ""
    quantisation: str = ""
    thinks: bool = False
    images: bool = False
    audio: bool = False
    tools: bool = True
    steady: bool = False

    @property
    def abilities(self) -> frozenset[str]:
        """What its model takes beside text; see Requirement."""
        able = {"images": self.images, "audio": self.audio, "tools": self.tools}
        return frozenset(name for name, there in able.items() if there)


@dataclass(frozen=True, slots=True)
class Relevance:
    """How well documents answer a query.

    Attributes:
        scores: of each document, in their order; the higher, the better.
        tokens: that were read.
    """

    scores: tuple[float, ...]
    tokens: int


class Upstream(Protocol):
    """Every method raises RequestError when the upstream cannot be reached, refuses or fails."""

    @property
    def base_url(self) -> str:
        """Where it is."""

    @property
    def properties(self) -> Properties | None:
        """What it last reported of itself; None while that is not known."""

    async def ask(self) -> Properties:
        """Its properties, from memory where they are known."""

    async def check(self) -> None:
        """Return if it answers, and takes work, now."""

    async def slots(self) -> list[bool] | None:
        """Whether each slot works, by number; None where it has no /slots."""

    def forget(self) -> None:
        """Ask for the properties again next time: another process may answer then."""

    async def render(
        self, messages: list[dict[str, Any]], options: dict[str, Any] | None = None
    ) -> str:
        """The prompt that the model's chat template makes of the messages.

        Args:
            options: as of `chat`; None: none. And add_generation_prompt: whether the prompt ends
                where the model's answer begins, as it does by default.
        """

    async def infill(self, before: str, after: str, params: dict[str, Any]) -> list[int]:
        """The ids of the prompt by which the model fills the gap between two texts.

        The upstream reads it, so that a slot holds it.

        Args:
            params: `id_slot` where it must be that slot.
        """

    async def embed(self, texts: list[Any]) -> list[list[list[float]]]:
        """For each text its rows: one where the upstream pools, else one per token.

        Args:
            texts: each a text, or a list of its token ids.
        """

    async def tokenize(self, text: str, *, special: bool, literal: bool = False) -> list[int]:
        """The ids of a text, as `complete` makes them of a prompt where `special` is set.

        Args:
            special: put before and behind it what the model expects around a prompt.
            literal: text that spells a special token stays text; otherwise it becomes that token.
        """

    async def tokens(
        self, content: str | list[str | int], *, special: bool, literal: bool, pieces: bool
    ) -> bytes:
        """The tokens of a text as a JSON array, as the upstream writes it: it may be large.

        Args:
            content: a text, or texts and ids in turn.
            special, literal: as of `tokenize`.
            pieces: each is an object with `id` and `piece`, a text or the bytes of one that is no
                UTF-8; else each is an id.
        """

    async def detokenize(self, ids: list[int]) -> str:
        """The text of ids, special tokens spelled out; U+FFFD where bytes are no UTF-8.

        Raises:
            InvalidRequest: the model has no such token.
        """

    async def reranks(self) -> bool:
        """Whether it ranks documents, which few do: False also where it does not say."""

    async def rerank(self, query: str, documents: list[str]) -> Relevance:
        """How well each document answers a query."""

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> str | None:
        """Stream a completion; returns after the last event.

        An answer of more tokens than n_predict ends there, as one whose tokens are used up; the
        connection is closed, and what is returned says so for people. Else that is None.

        Cancelling it closes the connection at once, by which llama-server frees the slot.

        Args:
            prompt: text, or token ids.
            params: checked sampling parameters, and `id_slot` where it must be that slot.
            on_events: called with each batch of events, the last one with `stop` set.
            on_sent: called when the request is with the upstream.
        """

    async def advances_grammars(self) -> bool:
        """Whether it takes up a grammar behind a text that was generated before.

        That text is `generation_prompt` of the parameters. Found out by asking for a token, where
        it is not known.
        """

    async def chat(
        self,
        messages: list[dict[str, Any]],
        options: dict[str, Any],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> str | None:
        """Stream the answer to a chat, as the upstream itself renders and parses it.

        As `complete`, but what comes has channels: text, reasoning, tool calls. A tool call begins
        with an event that names it, and may have no content yet.

        Args:
            messages: as OpenAI's API has them, parts and tool calls included.
            options: of the chat, by their names there: tools, tool_choice, parallel_tool_calls,
                chat_template_kwargs, reasoning_effort; continue_final_message: go on behind the
                last message, which is the beginning of the answer, and stream what follows it.
            params, on_events, on_sent: as of `complete`.
        """
