"""Owners of upstreams, what servers have to do, and idempotency keys."""

from __future__ import annotations

from llcuda_net.storage.postgres.migrations.migration import Migration

OWNERS = Migration(
    6,
    "owners of upstreams, loads and idempotency keys",
    """
    -- Who may ask an upstream; NULL: nobody does. A claim looks at `servers.fenced`.
    CREATE TABLE upstreams (
        url text PRIMARY KEY,
        server bigint,
        epoch bigint NOT NULL DEFAULT 1
    ) WITH (fillfactor = 50);
    -- Which server is to have an upstream that another one has.
    CREATE TABLE handovers (
        url text PRIMARY KEY,
        server bigint NOT NULL,
        asked timestamptz NOT NULL DEFAULT clock_timestamp()
    ) WITH (fillfactor = 50);
    -- What a server has to do, as it says each second, in msgpack: a jsonb cannot hold a NUL.
    CREATE TABLE loads (
        server bigint PRIMARY KEY REFERENCES servers ON DELETE CASCADE,
        at timestamptz NOT NULL,
        data bytea NOT NULL
    ) WITH (fillfactor = 20);

    -- Which generation an idempotency key means. A key is bytes in UTF-8: it may hold a NUL.
    CREATE TABLE keys (
        owner text NOT NULL,
        key bytea NOT NULL,
        generation text NOT NULL,
        request_hash bytea NOT NULL,
        server bigint NOT NULL,
        PRIMARY KEY (owner, key)
    );
    CREATE INDEX keys_generation ON keys (generation);
    CREATE INDEX keys_server ON keys (server);
    """,
)
