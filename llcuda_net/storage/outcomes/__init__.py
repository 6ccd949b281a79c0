"""From the end of a generation to its result in a store: what waits, and what is tried again.

It imports the journal, the stores and `storage.replica`.
"""
