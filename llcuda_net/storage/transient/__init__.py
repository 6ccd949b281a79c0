"""Generations of which nothing stays: their results, until they are due, and who erases them.

It imports `errors`, `storage.records`, `storage.journal` and what `storage.results` packs with.
"""
