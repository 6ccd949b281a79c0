"""Constraints on an answer, a GBNF grammar or a JSON schema: refused, or kept.

It imports `errors`. `checks.py` runs what the other modules do, in a process of its own.
"""
