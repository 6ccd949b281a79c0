"""The secret of a cluster, by which its servers know each other."""

from __future__ import annotations

from llcuda_net.storage.postgres.migrations.migration import Migration

SECRET = Migration(
    5,
    "the secret of the cluster",
    """
    -- One row. 244 bits of it are random; the servers use it as the key of HMACs.
    CREATE TABLE secret (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        bytes bytea NOT NULL CHECK (length(bytes) = 32)
    );
    INSERT INTO secret (bytes) VALUES
        (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
    """,
)
