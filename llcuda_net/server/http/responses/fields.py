"""Which fields of a response's body are followed, ignored or refused; see openai/fields.py."""

from __future__ import annotations

from typing import Any

from llcuda_net.server.http.openai.fields import FieldRules

#: Fields that are followed, and what is to know of each. Beside them there are all parameters of
#: llama-server, by its names.
SUPPORTED = {
    "input": "a text, or items: message, function_call, function_call_output, custom_tool_call, "
    "custom_tool_call_output, reasoning, item_reference; parts of messages: input_text, "
    "output_text, refusal, input_image (a data: URL), input_audio, where the model can",
    "instructions": "the first system message; a response that follows does not inherit it",
    "model": "a name of /v1/models; any name where one model is served or --default-model is set; "
    "absent: that of the previous response",
    "previous_response_id": "a response, or any other generation of the user that is over; with "
    "conversation, a response or an item of that",
    "conversation": "an id of /v1/conversations, or an object with it: the response goes on from "
    "what is in it, and is added",
    "instead_of": "a response of the conversation: this one goes on from what that one went on "
    "from, and stands beside it",
    "background": "answered at once; goes on without a reader",
    "store": "false: erased ten minutes after its end (--transient-seconds); absent: kept as the "
    "server keeps all",
    "stream": "server-sent events, numbered from 0",
    "stream_options": "include_obfuscation does nothing",
    "max_output_tokens": "never more than the context of the model",
    "temperature": "0 to 100",
    "top_p": "0 to 1",
    "top_logprobs": "0 to 20; with message.output_text.logprobs in include",
    "include": "message.output_text.logprobs, reasoning.encrypted_content; others are ignored",
    "text": "format: text, json_object, json_schema, always strict; verbosity is ignored",
    "tools": "functions; those of other kinds are skipped, and named in x-llcuda-ignored",
    "tool_choice": "none, auto, required, a function by name, allowed_tools",
    "parallel_tool_calls": "as the model's template can",
    "reasoning": "effort is passed to the model's template; the rest is ignored: reasoning comes "
    "as it is, not in a summary",
    "metadata": "up to 16 texts of up to 512 characters, by names of up to 64",
    "truncation": "disabled: what is longer than the context is refused; auto: the oldest messages "
    "are left out, and llcuda.truncated of the response says how many",
    "service_tier": "flex, default, priority (fast): low, normal, high; auto: the user's own",
    "chat_template_kwargs": "passed to the model's template",
}
#: Fields that cannot change the answer, and why.
IGNORED = {
    "user": "users are those of the token file",
    "safety_identifier": "users are those of the token file",
    "client_metadata": "it is for the provider's statistics",
    "max_tool_calls": "it counts calls of built-in tools, and there are none",
    "prompt_cache_key": "the slot with the longest common prefix is found without it",
    "prompt_cache_retention": "slots keep their prompts as long as they can",
    "prompt_cache_options": "slots keep their prompts as long as they can",
    "id_slot": "the server chooses the slot",
    "access_programs": "there are none",
    "image": "images are passed on as they are",
}
#: Fields that are ignored where they have the one value that asks for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "modalities": (["text"],),
    "context_management": ([],),
    "background_options": ({}, {"completion_window": "soonest"}),
    "prompt": (),
    "moderation": (),
}
#: What to do instead of fields that are refused; what is in no table is refused, too.
INSTEAD = {
    "messages": "use input",
    "prompt": "use input and instructions",
    "n": "send the request several times",
    "max_tokens": "use max_output_tokens",
    "max_completion_tokens": "use max_output_tokens",
    "response_format": "use text",
    "verbosity": "use text",
    "reasoning_effort": "use reasoning",
    "functions": "use tools",
    "function_call": "use tool_choice",
    "logprobs": "put message.output_text.logprobs in include",
    "modalities": 'only ["text"] can be answered',
    "context_management": "send what the model shall read",
    "background_options": "the queue says when it runs: see x-llcuda-priority",
    "moderation": "ask a model to judge",
}
RULES = FieldRules(IGNORED, NEUTRAL, INSTEAD)
#: Those of a body of which the tokens are counted only.
COUNT_RULES = RULES._replace(ignored={**IGNORED, "personality": "models here have none to choose"})
