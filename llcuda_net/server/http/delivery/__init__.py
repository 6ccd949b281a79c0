"""Answers that survive their reader: streams of events and their ids, resuming, joining, leaving.

Imports the gateway's packages below, of server/http what one request and its answer are, and of
server/http/openai what makes the chunks.
"""
