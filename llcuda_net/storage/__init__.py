"""Durable storage: the journal of running generations, and the store of finished results.

`storage.Storage` serves a server; `results.sqlite.SqliteStore` reads results beside it. The package
may import `errors` only: it knows neither sessions nor upstreams nor the wire protocol.
"""
