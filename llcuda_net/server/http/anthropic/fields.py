"""The fields of a message request: which are followed, and what becomes of the others.

The rule is that of openai/fields.py: what could change the answer is followed or refused, and what
cannot is ignored, and named in the header `x-llcuda-ignored`.
"""

from __future__ import annotations

from typing import Any

from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.server.http.openai.fields import FieldRules

#: Fields that are followed, and what is to know of each.
SUPPORTED = {
    "model": "a name of /v1/models; any name where one model is served or --default-model is set",
    "max_tokens": "required, 1 or more; never more than the context of the model",
    "messages": "roles user, assistant, system; content as text or as blocks: see above",
    "system": "a text, or blocks of text",
    "tools": "custom ones, with `input_schema`; those that Anthropic defines are skipped and "
    "named, and refused where there are no others",
    "tool_choice": "auto, any, tool, none; disable_parallel_tool_use",
    "thinking": "see above",
    "output_config": "effort: see above; format: a JSON schema, always followed strictly",
    "output_format": "as output_config.format",
    "stop_sequences": "up to 64",
    "temperature": "0 to 100",
    "top_p": "0 to 1",
    "top_k": "as of llama-server's `/completion`",
    "stream": "server-sent events",
}
#: Fields that cannot change the answer, and why.
IGNORED = {
    "cache_control": "the slot with the longest common prefix is found without it; in blocks and "
    "tools, too",
    "metadata": "users are those of the token file",
    "service_tier": "use the header x-llcuda-priority",
    "context_management": "nothing is cleared: the model reads all that is sent",
    "inference_geo": "models run where their upstreams are",
    "speed": "all answers come as fast as they can",
    "diagnostics": "nothing is compared with an earlier message",
    "betas": "there are none",
    "user_profile_id": "users are those of the token file",
    "workspace_id": "there are none",
    "anthropic_version": "all versions are answered alike",
    "anthropic_beta": "there are none",
}
#: Fields that are ignored where they have the one value that asks for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "container": (),
    "mcp_servers": ([],),
}
#: What to do instead of fields that are refused; what is in no table is refused, too.
INSTEAD = {
    "container": "nothing is run here",
    "mcp_servers": "give the model their tools, and call them yourself",
    "thread": "send all messages; the SDKs do so by themselves when they are told",
    "max_tokens_to_sample": "use max_tokens",
    "max_completion_tokens": "use max_tokens",
    "n_predict": "use max_tokens",
    "n": "send several requests",
    "n_probs": "answers of this API have no log-probabilities: use /v1/chat/completions",
    "logprobs": "answers of this API have no log-probabilities: use /v1/chat/completions",
    "post_sampling_probs": "answers of this API have no log-probabilities: use "
    "/v1/chat/completions",
    "t_max_predict_ms": "use max_tokens",
    "prompt": "use messages",
    "stop": "use stop_sequences",
    "response_format": "use output_config",
    "json_schema": "use output_config",
    "reasoning_effort": "use output_config",
    "chat_template_kwargs": "use thinking and output_config, or /v1/chat/completions",
}
#: The kinds of content blocks that are taken, and what becomes of each.
BLOCKS = {
    "text": "texts of one turn are joined with line breaks",
    "image": "source base64, where the model can; in results of tools, too",
    "document": "of text: source text or content; with its title and context before it",
    "search_result": "text: its title, its source, its content",
    "thinking": "what the model thought, with any signature; its chat template decides what of it "
    "is read again",
    "redacted_thinking": "ignored and named: nobody here can read it",
    "tool_use": "a call of a tool",
    "tool_result": "a text, or blocks of text, images, documents, search results; with is_error it "
    "begins with `Error: `",
    "tool_reference": "in the result of a search for tools: the name of a tool that was found",
}
RULES = FieldRules(IGNORED, NEUTRAL, INSTEAD)
#: Sampling parameters by llama-server's names that may come beside the API's own.
SAMPLING = tuple(
    name
    for name in PARAMETERS
    if name not in SUPPORTED and name not in INSTEAD and name != "input_suffix"
)
