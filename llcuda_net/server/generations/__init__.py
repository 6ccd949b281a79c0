"""The generations of a server: begun, found, and gone on with after a restart.

It imports nothing of `server` but `http/delivery/runs`, and what adds to objects.
"""
