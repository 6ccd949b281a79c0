"""A result as bytes, the same in every store: contents, bodies that results share, and hashes.

It imports `errors`, `storage.records` and what `storage.results.interface` returns.
"""
