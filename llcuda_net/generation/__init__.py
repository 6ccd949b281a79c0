"""A generation from the request to its committed result.

It imports `errors`, `config`, `storage`, `upstream` and `scheduler`.
"""
