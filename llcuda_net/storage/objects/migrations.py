"""The schema of objects.db, as numbered migrations; the rules are those of results/migrations.py.

Every object has an owner: the name of its user, empty where there are no users.
"""

from __future__ import annotations

from llcuda_net.storage.results.migrations import Migration

OBJECTS = (
    Migration(
        1,
        "files and batches",
        """
        -- state: 'uploading' until all of it is here, then 'ready'; 'deleted' while its chunks are
        -- removed in steps, or a batch still reads them. bytes: of the chunks so far.
        -- Times are Unix times in nanoseconds; `expires` is NULL where it is kept until deleted.
        CREATE TABLE files (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            owner TEXT NOT NULL,
            state TEXT NOT NULL,
            purpose TEXT NOT NULL,
            name TEXT NOT NULL,
            bytes INTEGER NOT NULL,
            created INTEGER NOT NULL,
            expires INTEGER
        ) STRICT;
        CREATE INDEX files_listed ON files (owner, purpose, seq) WHERE state = 'ready';
        CREATE INDEX files_used ON files (owner, state, bytes);
        CREATE INDEX files_expire ON files (expires) WHERE expires IS NOT NULL;
        CREATE INDEX files_leftover ON files (seq) WHERE state != 'ready';

        -- Parts of a file, from number 0 on, each but the last of the same size.
        CREATE TABLE chunks (
            id INTEGER PRIMARY KEY,
            file INTEGER NOT NULL,
            number INTEGER NOT NULL,
            hash BLOB NOT NULL,
            data BLOB NOT NULL
        ) STRICT;
        CREATE UNIQUE INDEX chunks_file ON chunks (file, number);

        -- ends: the state in which it will be over. input: the number of a file. input_id, output
        -- and error: ids of files. key: an idempotency key. swept: nothing is left of its lines.
        -- details: JSON that is read only to be shown.
        CREATE TABLE batches (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            owner TEXT NOT NULL,
            key TEXT,
            state TEXT NOT NULL,
            ends TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            input INTEGER NOT NULL,
            input_id TEXT NOT NULL,
            output TEXT,
            error TEXT,
            created INTEGER NOT NULL,
            expires INTEGER NOT NULL,
            total INTEGER NOT NULL,
            completed INTEGER NOT NULL,
            failed INTEGER NOT NULL,
            input_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL,
            swept INTEGER NOT NULL,
            details BLOB NOT NULL
        ) STRICT;
        CREATE INDEX batches_listed ON batches (owner, seq);
        CREATE UNIQUE INDEX batches_key ON batches (owner, key) WHERE key IS NOT NULL;
        CREATE INDEX batches_open ON batches (seq)
            WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling');
        CREATE INDEX batches_leftover ON batches (seq) WHERE swept = 0;

        -- Where each line of a batch is in its input: the first byte, and how many there are.
        CREATE TABLE lines (
            batch INTEGER NOT NULL,
            number INTEGER NOT NULL,
            start INTEGER NOT NULL,
            size INTEGER NOT NULL,
            custom_id TEXT NOT NULL,
            PRIMARY KEY (batch, number)
        ) STRICT, WITHOUT ROWID;

        -- What came of each line that is over: the line of the output, or of the error file.
        CREATE TABLE outcomes (
            id INTEGER PRIMARY KEY,
            batch INTEGER NOT NULL,
            number INTEGER NOT NULL,
            failed INTEGER NOT NULL,
            hash BLOB NOT NULL,
            data BLOB NOT NULL
        ) STRICT;
        CREATE UNIQUE INDEX outcomes_line ON outcomes (batch, number);
        """,
    ),
    Migration(
        2,
        "conversations",
        """
        -- updated: when its last entry was added, or it was changed. metadata is JSON.
        CREATE TABLE conversations (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            owner TEXT NOT NULL,
            title TEXT,
            pinned INTEGER NOT NULL,
            created INTEGER NOT NULL,
            updated INTEGER NOT NULL,
            metadata BLOB NOT NULL
        ) STRICT;
        CREATE INDEX conversations_listed ON conversations (owner, pinned, updated, seq);

        -- Its entries in order: an item that a client added, as JSON; or, where that is NULL, a
        -- generation: what was asked with it and what it answered stand here.
        CREATE TABLE entries (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            conversation INTEGER NOT NULL,
            id TEXT NOT NULL,
            item BLOB
        ) STRICT;
        CREATE UNIQUE INDEX entries_listed ON entries (conversation, id);

        -- Items of generations that were deleted from a conversation.
        CREATE TABLE hidden (
            conversation INTEGER NOT NULL,
            item TEXT NOT NULL,
            PRIMARY KEY (conversation, item)
        ) STRICT, WITHOUT ROWID;
        """,
    ),
    Migration(
        3,
        "the size of what a batch gives",
        """
        -- Bytes of its outcomes: its owner's, before they are files.
        ALTER TABLE batches ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
        UPDATE batches SET bytes = (
            SELECT coalesce(sum(length(data)), 0) FROM outcomes WHERE batch = batches.seq
        ) WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling');
        """,
    ),
    Migration(
        4,
        "what a response in a conversation went on from",
        """
        -- A hash of what was in the conversation; NULL for items, and where it is not known.
        ALTER TABLE entries ADD COLUMN basis BLOB;
        """,
    ),
    Migration(
        5,
        "conversations are trees",
        """
        -- parent: the entry that this one goes on from, by its seq, which is smaller; 0: none.
        ALTER TABLE entries ADD COLUMN parent INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX entries_in_order ON entries (conversation, seq);
        CREATE INDEX entries_generation ON entries (id) WHERE item IS NULL;
        UPDATE entries SET parent = coalesce((
            SELECT max(before.seq) FROM entries AS before
            WHERE before.conversation = entries.conversation AND before.seq < entries.seq
        ), 0);

        -- head: the seq of the entry that ends its active path; 0: none. size: entries. preview:
        -- first words of its first question, and preview_of: the entry that they are of. words:
        -- the title and the preview in lower case; NULL: as they are.
        ALTER TABLE conversations ADD COLUMN head INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE conversations ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE conversations ADD COLUMN preview TEXT;
        ALTER TABLE conversations ADD COLUMN preview_of TEXT;
        ALTER TABLE conversations ADD COLUMN words TEXT;
        UPDATE conversations SET
            head = coalesce(
                (SELECT max(seq) FROM entries WHERE conversation = conversations.seq), 0
            ),
            size = (SELECT count(*) FROM entries WHERE conversation = conversations.seq);
        """,
    ),
    Migration(
        6,
        "sessions of browsers",
        """
        -- hash: of the id in the cookie. bound: of the token, under the id. Times are in seconds.
        CREATE TABLE sessions (
            hash BLOB PRIMARY KEY,
            owner TEXT NOT NULL,
            bound BLOB NOT NULL,
            created INTEGER NOT NULL,
            expires INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX sessions_expire ON sessions (expires);
        """,
    ),
    Migration(
        7,
        "who uploads a file, and runs a batch",
        """
        -- The life of a server; 0 where it has its objects for itself, as in this file. NULL: none.
        ALTER TABLE files ADD COLUMN server INTEGER DEFAULT 0;
        ALTER TABLE batches ADD COLUMN server INTEGER DEFAULT 0;
        """,
    ),
)
