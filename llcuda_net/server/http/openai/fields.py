"""Which fields of a body are ignored or refused, and the names of those that were ignored.

What could change the answer and is not done is refused by name: to drop it would be a wrong answer
that looks right. What cannot change it is ignored, and named in the header `x-llcuda-ignored`. With
`--lenient` all that is unknown is.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.request import check_names

#: The answer's header that names what was ignored.
IGNORED_HEADER = "x-llcuda-ignored"
#: Most names in that header.
_MOST_NAMED = 32
_NOTHING: tuple[Any, ...] = ("", [], {})

#: Fields of a chat that are followed, and what is to know of each. Beside them there are all
#: parameters of llama-server, by its names.
SUPPORTED = {
    "messages": "roles developer, system, user, assistant, tool; content as text, or as parts: "
    "text, image_url (a data: URL), input_audio, where the model can",
    "model": "a name of /v1/models; any name where one model is served or --default-model is set",
    "max_tokens": "-1: no limit; never more than the context of the model",
    "max_completion_tokens": "as max_tokens, before which it goes",
    "n": "up to 32; each choice is a generation of its own",
    "stop": "a text, or up to 64",
    "seed": "choice number i of several gets seed + i; -1: a random one",
    "temperature": "0 to 100",
    "top_p": "0 to 1",
    "presence_penalty": "-2 to 2",
    "frequency_penalty": "-2 to 2",
    "logit_bias": "token ids with -100 to 100; llama-server's shapes, too",
    "logprobs": "of the text, not of reasoning and tool calls",
    "top_logprobs": "0 to 20",
    "response_format": "text, json_object (also with schema, as llama-server has it), json_schema; "
    "always strict",
    "tools": "functions; calls of those that are strict are checked against their schemas",
    "tool_choice": "none, auto, required, a function by name, allowed_tools",
    "parallel_tool_calls": "as the model's template can",
    "stream": "server-sent events",
    "stream_options": "include_usage; include_obfuscation does nothing",
    "service_tier": "flex, default, priority: low, normal, high; auto: the user's own",
    "reasoning_effort": "none, minimal, low, medium, high, xhigh; passed to the model's template",
    "chat_template_kwargs": "passed to the model's template",
}
#: Fields of a chat that cannot change its answer, and why.
IGNORED = {
    "user": "users are those of the token file",
    "metadata": "nothing is stored with a result but its request",
    "store": "send the header x-llcuda-store: false for what is not to be kept",
    "prompt_cache_key": "the slot with the longest common prefix is found without it",
    "prompt_cache_retention": "slots keep their prompts as long as they can",
    "prompt_cache_options": "slots keep their prompts as long as they can",
    "safety_identifier": "users are those of the token file",
    "prediction": "it is to speed an answer up, and changes none",
    "request_id": "send the header x-request-id",
    "id_slot": "the server chooses the slot",
    "keep_alive": "models stay loaded",
    "timings_per_token": "timings come with the end of the answer",
    "return_progress": "comments of the stream say how a request gets on",
    "return_tokens": "token ids are in no answer of this API",
    "response_fields": "all fields are answered",
    "verbose": "all fields are answered",
    "usage": "what was used is always said; in a stream, with stream_options",
}
#: Fields of a chat that are ignored where they have the one value that asks for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "best_of": (1,),
    "echo": (False,),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "repetition_penalty": (1, 1.0),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "include_reasoning": (True,),
    "reasoning_format": ("auto", "deepseek"),
    "functions": ([],),
    "function_call": ("auto", "none"),
    "audio": (),
    "web_search_options": (),
    "moderation": (),
    "thinking": (),
}
#: What to do instead of fields that are refused; what is in no table is refused, too.
INSTEAD = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "audio": "answers are text",
    "modalities": 'only ["text"] can be answered',
    "web_search_options": "give the model a tool that searches",
    "verbosity": "say in the messages how long the answer shall be",
    "repetition_penalty": "use repeat_penalty",
    "guided_json": "use response_format",
    "guided_grammar": "use grammar",
    "enable_thinking": "use chat_template_kwargs",
    "thinking": "use reasoning_effort or chat_template_kwargs",
    "think": "use reasoning_effort or chat_template_kwargs",
    "reasoning": "use reasoning_effort",
    "priority": "use service_tier, or the header x-llcuda-priority",
    "best_of": "use n",
    "prompt": "use messages",
    "reasoning_format": "reasoning comes in reasoning_content",
    "num_predict": "use max_tokens",
    "num_ctx": "the context is for the server's settings to say",
    "response_schema": "use response_format",
}


class FieldRules(NamedTuple):
    """What becomes of the fields of a body that are not followed, by name.

    Attributes:
        ignored: which cannot change the answer, and why.
        neutral: which are ignored where they have one of these values.
        instead: what to do instead of those that are refused.
    """

    ignored: Mapping[str, str]
    neutral: Mapping[str, tuple[Any, ...]]
    instead: Mapping[str, str]


#: Those of a chat.
CHAT = FieldRules(IGNORED, NEUTRAL, INSTEAD)
#: Parameters of a query that SDKs send and that change no answer: what there is to include always
#: is, and events are never padded.
_IGNORED_QUERY = ("include", "include[]", "include_obfuscation")


class Ignored:
    """Drops from objects what is not known, or refuses it.

    Args:
        lenient: drop what would be refused.
        rules: of the API, for the fields of the body itself.

    Attributes:
        names: the paths of what was dropped.
    """

    def __init__(self, *, lenient: bool = False, rules: FieldRules = CHAT) -> None:
        self.names: dict[str, None] = {}
        self._lenient = lenient
        self._rules = rules

    def __repr__(self) -> str:
        return f"<Ignored {', '.join(self.names) or 'nothing'}>"

    def keep(
        self,
        value: dict[str, Any],
        known: Collection[str],
        path: str = "",
        also: Collection[str] = (),
    ) -> dict[str, Any]:
        """The known members of an object, without those that are null.

        Args:
            also: members that are dropped, besides those that ask for nothing.

        Raises:
            HttpError: another one is there.
        """
        kept = {}
        for name, member in value.items():
            if member is None and name in known:
                continue
            if name in known:
                kept[name] = member
            elif member is None or name in also or self._lenient or (path and member in _NOTHING):
                self.names[f"{path}{name}"] = None
            elif not path and (name in self._rules.ignored or self._asks_nothing(name, member)):
                self.names[name] = None
            else:
                raise self._refused(path, name, known)
        return kept

    def check_query(self, query: Iterable[str], known: Collection[str] = ()) -> None:
        """Note the parameters of a query that are ignored.

        Raises:
            HttpError: there is one that is neither known nor ignored.
        """
        for name in query:
            if name in _IGNORED_QUERY or (self._lenient and name not in known):
                self.names[name] = None
        check_names([name for name in query if name not in self.names], known)

    def headers(self) -> dict[str, str]:
        """The header of the answer that names what was dropped, if anything was."""
        if not self.names:
            return {}
        names = [_token(name) for name in islice(self.names, _MOST_NAMED)]
        if len(self.names) > _MOST_NAMED:
            names.append(f"and {len(self.names) - _MOST_NAMED} more")
        return {IGNORED_HEADER: ", ".join(names)}

    def _refused(self, path: str, name: str, known: Collection[str]) -> HttpError:
        """The error that there is no such field, with what to use instead."""
        hint = ""
        if not path and name in self._rules.instead:
            hint = f": {self._rules.instead[name]}"
        elif len(name) <= 64:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
        field = path + (name if len(name) <= 64 else name[:61] + "...")
        return HttpError(
            400, f"the field {field} is not supported{hint}", param=field, code="unknown_parameter"
        )

    def _asks_nothing(self, name: str, value: Any) -> bool:
        allowed = self._rules.neutral.get(name, ())
        return any(type(value) is type(one) and value == one for one in allowed)


def _token(name: str) -> str:
    """A name as it may stand in a header."""
    return "".join(c if "!" <= c <= "~" and c != "," else "?" for c in name[:64])
