"""How the server stands, as JSON: what `llcuda top` shows.

It imports `server.http` beside it, and what is below.
"""
