"""One server of several on one database: what its standing means for what runs on it.

Made only where the store is a PostgreSQL: it imports psycopg. It may import everything below
`server`, and of `server` what the gateway imports, too; never the gateway.
"""
