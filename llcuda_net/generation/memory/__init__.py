"""What generations may take of the memory: estimates, bounds, and the logs that are over.

Imports what generation/ imports.
"""
