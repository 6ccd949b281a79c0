"""HTTP to one llama-server: short requests through httpx, token streams through one poller.

It imports `errors`, and `upstream.interface` below it.
"""
