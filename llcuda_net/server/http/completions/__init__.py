"""POST /v1/completions: texts that go on, of OpenAI's older API.

Imports the gateway's packages below, of server/http what one request and its answer are, delivery,
of openai what fields are and which model is meant, and of llama how an upstream is asked for the
text of token ids.
"""
