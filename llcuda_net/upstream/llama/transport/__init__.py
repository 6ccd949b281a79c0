"""HTTP to a llama-server over sockets of our own: connections, short answers, and one origin's.

Imports what upstream/ may import, and of upstream/llama only failures.
"""
