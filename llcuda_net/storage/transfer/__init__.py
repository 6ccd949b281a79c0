"""What is stored, from one store into another: results, and what clients keep beside them.

May import `results`, `objects` and `postgres`; nothing of `storage` imports it.
"""
