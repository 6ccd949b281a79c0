"""The store of finished generations in PostgreSQL, which several servers share.

It imports `errors`, `storage.records`, `storage.words` and what `storage.results` packs with.
psycopg, which is in the extra `cluster`, is imported here only; docs/cluster.md has the reasons.
"""
