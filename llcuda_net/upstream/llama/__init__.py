"""HTTP to one llama-server: short requests, and token streams through one poller.

It imports `errors`, and `upstream.interface` below it.
"""
