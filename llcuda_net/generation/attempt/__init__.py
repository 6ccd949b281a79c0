"""One attempt of an upstream at a generation: begun, continued from its tokens, or replayed.

Imports what generation/ may import, and of generation/ itself all but who dispatches and runs.
"""
