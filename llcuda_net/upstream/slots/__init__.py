"""The slots of one upstream: their table, the choice of one for a prompt, and what it rests on.

Imports what upstream/ may import, and of upstream/ itself only prefix_cache.
"""
