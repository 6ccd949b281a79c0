"""Batches over HTTP, as OpenAI's API has them: made, listed, shown, cancelled.

`server/batches` runs them. It may import what is below `server/http`, `server/http/files`, and the
modules of `server/http` itself.
"""
