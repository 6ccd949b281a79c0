"""What is kept: the journal of running generations, and the store of finished results.

`storage.Storage` serves a server; `results.sqlite.SqliteStore` reads results beside it.
Nothing here knows of sessions, upstreams or the wire protocol.
"""
