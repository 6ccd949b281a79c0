"""The store of finished generations: an interface, and its implementation in SQLite.

It may import `errors` and `storage.records`.
"""
