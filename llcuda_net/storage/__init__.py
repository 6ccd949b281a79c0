"""What is kept: the journal of running generations, and the store of finished results.

`storage.Storage` is what a server uses and `results.sqlite.SqliteStore` what reads results beside it.
Nothing here knows of sessions, upstreams or the wire protocol.
"""
