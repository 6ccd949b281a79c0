"""Tables of results, of their words, and of what is computed of them."""

from __future__ import annotations

from llcuda_net.storage.postgres.migrations.migration import Migration

RESULTS = Migration(
    1,
    "results, words and analyses",
    """
    -- Which store this is, and how many results it ever got. Who stores results takes their
    -- numbers here, in that transaction: so numbers become visible in their order.
    CREATE TABLE store (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        identity uuid NOT NULL DEFAULT gen_random_uuid(),
        reached bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 10);
    INSERT INTO store DEFAULT VALUES;

    CREATE TABLE models (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        hash bytea NOT NULL UNIQUE,
        name bytea NOT NULL,
        fingerprint bytea NOT NULL
    );
    CREATE INDEX models_name ON models (name);

    -- Large contents, each once: compressed, under a part of the hash of what was compressed.
    CREATE TABLE bodies (
        name bytea PRIMARY KEY,
        uses integer NOT NULL,
        data bytea NOT NULL
    ) WITH (fillfactor = 90);
    ALTER TABLE bodies ALTER data SET STORAGE EXTERNAL;

    -- What clients say is bytes in UTF-8, since a text of PostgreSQL cannot hold a NUL.
    -- input, log and logprobs: a content, or 2 and the name of the body that is it.
    -- bodies: the names of those that it uses, one behind the other.
    CREATE TABLE results (
        seq bigint PRIMARY KEY,
        id text NOT NULL UNIQUE,
        created bigint NOT NULL,
        finished bigint NOT NULL,
        state text NOT NULL,
        model integer NOT NULL,
        owner text NOT NULL,
        key bytea,
        request_hash bytea NOT NULL,
        cacheable boolean NOT NULL,
        tokens bigint NOT NULL,
        prompt_tokens bigint NOT NULL,
        size bigint NOT NULL,
        preview bytea NOT NULL,
        beginning bytea NOT NULL,
        seal bytea NOT NULL,
        hash bytea NOT NULL,
        meta bytea NOT NULL,
        input bytea NOT NULL,
        log bytea NOT NULL,
        logprobs bytea,
        bodies bytea NOT NULL
    );
    ALTER TABLE results
        ALTER meta SET STORAGE EXTERNAL,
        ALTER input SET STORAGE EXTERNAL,
        ALTER log SET STORAGE EXTERNAL,
        ALTER logprobs SET STORAGE EXTERNAL,
        ALTER bodies SET STORAGE EXTERNAL;
    CREATE INDEX results_created ON results (created, seq) INCLUDE (size);
    CREATE INDEX results_owned ON results (owner, created, seq) INCLUDE (size);
    CREATE INDEX results_numbered ON results (owner, seq);
    CREATE INDEX results_model ON results (model, created, seq);
    CREATE INDEX results_state ON results (state, created, seq) WHERE state <> 'done';
    CREATE INDEX results_key ON results (key, owner, seq) WHERE key IS NOT NULL;
    CREATE INDEX results_cache ON results (request_hash, model, seq) WHERE cacheable;

    -- Up to which number results are counted, indexed, and have their certainty.
    CREATE TABLE progress (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        counted bigint NOT NULL DEFAULT 0,
        indexed bigint NOT NULL DEFAULT 0,
        figured bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 10);
    INSERT INTO progress DEFAULT VALUES;

    -- Words as storage/postgres/terms.py makes them.
    CREATE TABLE terms (
        seq bigint PRIMARY KEY REFERENCES results ON DELETE CASCADE,
        words tsvector NOT NULL
    );
    CREATE INDEX terms_words ON terms USING gin (words);

    CREATE TABLE days (
        day date NOT NULL,
        model bytea NOT NULL,
        owner text NOT NULL,
        state text NOT NULL,
        results bigint NOT NULL,
        tokens bigint NOT NULL,
        prompt_tokens bigint NOT NULL,
        PRIMARY KEY (day, model, owner, state)
    );

    CREATE TABLE certainty (
        seq bigint PRIMARY KEY REFERENCES results ON DELETE CASCADE,
        tokens bigint NOT NULL,
        mean_surprisal double precision,
        perplexity double precision,
        mean_entropy double precision,
        first bigint NOT NULL,
        behind bigint NOT NULL,
        span_surprisal double precision,
        hash bytea NOT NULL
    );

    -- A space for each model, dimension and recipe, that goes up to the result `seq`.
    CREATE TABLE spaces (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        model bytea NOT NULL,
        dim integer NOT NULL,
        recipe integer NOT NULL,
        seq bigint NOT NULL
    );
    CREATE TABLE embeddings (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        space integer NOT NULL REFERENCES spaces ON DELETE CASCADE,
        seq bigint NOT NULL REFERENCES results ON DELETE CASCADE,
        scale double precision NOT NULL,
        codes bytea NOT NULL,
        hash bytea NOT NULL,
        UNIQUE (seq, space)
    );
    ALTER TABLE embeddings ALTER codes SET STORAGE EXTERNAL;
    CREATE INDEX embeddings_space ON embeddings (space, id);
    -- Results whose embedding was damaged.
    CREATE TABLE lost (
        space integer NOT NULL REFERENCES spaces ON DELETE CASCADE,
        seq bigint NOT NULL REFERENCES results ON DELETE CASCADE,
        PRIMARY KEY (space, seq)
    );
    """,
)
