"""Targets: servers that answer one request and note the times of what came.

A target decides nothing about schedules or outcomes. It imports `client` and `upstream`.

facts       what a server says of itself, for records
asking      asks it
interface   what every target does
gateway     an llcuda-server
llama       a llama-server, by its own /completion
openai      any server with an OpenAI-compatible /v1/chat/completions
opening     which of them is at an address, opened for the length of a block

chat_request, chat_stream   what openai sends, and what it is answered
software                    which software a server with that API is
token_check, tokenizer      whether tokens are counted as a tokenizer counts them
"""
