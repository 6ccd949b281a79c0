"""The store of finished generations, in SQLite.

It imports `errors` and `storage.records`.
"""
