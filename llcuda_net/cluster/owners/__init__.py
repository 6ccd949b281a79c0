"""Who asks which upstream, who has room for a request, and what users were served elsewhere.

`claims` and `loads` are statements of PostgreSQL; `spread`, `routing` and `sharing` decide without
any. It imports `errors`, `storage` and the rest of `cluster`; docs/cluster.md says why it is so.
"""
