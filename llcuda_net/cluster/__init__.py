"""Several servers on one PostgreSQL: who has what, and who may still write.

It imports `errors` and `storage`. Why it is as it is: docs/cluster.md.
"""
