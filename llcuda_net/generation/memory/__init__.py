"""What generations may take of the memory: estimates, bounds, logs that are over or set aside.

Imports what generation/ imports.
"""
