"""The second copy of a journal, which other servers can take over: what a journal asks of it.

It imports `errors`, and `storage` below it. `cluster.mirror` implements it.
"""
