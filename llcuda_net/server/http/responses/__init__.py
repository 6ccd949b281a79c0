"""OpenAI's Responses API: items in, a response or its numbered events out, and what is kept of it.

Imports the gateway's packages below, of server/http what one request and its answer are, and of
openai what both APIs have in common: messages, sampling parameters, fields. A response is one
generation: its id is `resp_` and the generation's, and what the generation does not say of it is
kept with the request (see response_format.py).
"""
