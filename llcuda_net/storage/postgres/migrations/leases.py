"""Tables of servers and of what they have: leases, generations, their journals."""

from __future__ import annotations

from llcuda_net.storage.postgres.migrations.migration import Migration

LEASES = Migration(
    2,
    "servers, their leases and what they have",
    """
    -- A row per life of a server, and its lease apart from it: a write of tokens locks the
    -- server's row in share mode, and a renewal must not wait for that.
    CREATE TABLE servers (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text NOT NULL,
        address text NOT NULL,
        started timestamptz NOT NULL DEFAULT clock_timestamp(),
        fenced boolean NOT NULL DEFAULT false,
        adopter bigint,
        adopted boolean NOT NULL DEFAULT false
    ) WITH (fillfactor = 50);
    CREATE TABLE leases (
        server bigint PRIMARY KEY REFERENCES servers,
        expires timestamptz NOT NULL
    ) WITH (fillfactor = 10);

    -- Generations that are not over.
    CREATE TABLE generations (
        id text PRIMARY KEY,
        owner text NOT NULL,
        server bigint NOT NULL,
        epoch bigint NOT NULL DEFAULT 1
    );
    CREATE INDEX generations_server ON generations (server);

    -- Batches of records, as a journal's files have them. No reference to `servers`: its check
    -- would lock the row again, and the writer has it.
    CREATE TABLE journal (
        server bigint NOT NULL,
        number bigint NOT NULL,
        data bytea NOT NULL,
        PRIMARY KEY (server, number)
    );
    ALTER TABLE journal ALTER data SET STORAGE EXTERNAL;
    """,
)

MIRROR = Migration(
    3,
    "journals: what was taken over, and up to where they are deleted",
    """
    -- Batches up to this number are deleted: one that comes late must not come back.
    ALTER TABLE servers ADD trimmed bigint NOT NULL DEFAULT 0;

    -- Generations that were taken over from a server, also those that are over since: so that a
    -- restart on its disk knows them from those that never came into the database.
    CREATE TABLE adoptions (
        server bigint NOT NULL REFERENCES servers ON DELETE CASCADE,
        id text NOT NULL,
        PRIMARY KEY (server, id)
    );
    CREATE INDEX adoptions_id ON adoptions (id);
    """,
)

LIVES = Migration(
    4,
    "when the life of a server ended",
    """
    -- What was taken over from it is remembered for a while after that; see adoptions.
    ALTER TABLE servers ADD ended timestamptz;
    """,
)
