"""The append-only file in which tokens become durable.

It imports `errors` and `storage.records`.
"""
