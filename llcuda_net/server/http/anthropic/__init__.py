"""Anthropic's API: messages, their tokens, and models; bodies in, answers and events out.

Imports the gateway's packages below, of server/http what one request and its answer are, and of
`openai` what both APIs have in common: strict JSON, fields that are ignored, names of models; and
of `llama` how an upstream is asked.
"""
