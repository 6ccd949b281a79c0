"""A database and what lies beside it, backed up as docs/operating.md says while a server runs."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.results.interface import Query
from llcuda_protocol import Attach, Done
from tests.support.processes import run, running_server
from tests.support.raw_client import CREDIT, ask, connected
from tests.support.steady import held_upstream, release
from tests.support.storage.postgres import Postgres, programs
from tools.synthetic.tokens import generation


def test_the_folder_first_and_the_database_after_it(postgres: Postgres, tmp_path: Path) -> None:
    found = programs()
    assert found is not None
    old, new = postgres.new_database(), postgres.new_database()
    dump, copy, back = tmp_path / "dump", tmp_path / "copy", tmp_path / "back"
    with held_upstream(30) as upstream:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path / "data"))
        with (
            running_server(*arguments, "--store", old) as server,
            connected(server.port) as client,
        ):
            client.send(ask("done before", n_predict=8))
            client.until(Done)
            client.send(ask("under way", 2, n_predict=120))
            begun, seen = client.begun(20)
            made = run(
                *("main", "store", "backup", str(copy), "--data-dir", str(tmp_path / "data")),
                env={"LLCUDA_STORE": old},
            )
            assert made.returncode == 0, made.stderr
            assert "run pg_dump now" in made.stderr
            dumped = ("pg_dump", "--format", "custom", "--file", str(dump), old)
            subprocess.run([found / dumped[0], *dumped[1:]], check=True)
            server.process.kill()
            server.process.wait()
        subprocess.run([found / "pg_restore", "--no-owner", "--dbname", new, str(dump)], check=True)
        restored = run("main", "store", "restore", str(copy), "--data-dir", str(back))
        assert restored.returncode == 0, restored.stderr
        release(upstream)
        restarted = ("--upstream", upstream, "--data-dir", str(back), "--store", new)
        with running_server(*restarted) as server, connected(server.port) as client:
            client.send(Attach(1, begun.id, CREDIT, first=len(seen), epoch=begun.epoch))
            rest, done = client.until(Done)
            assert done.usage["completion_tokens"] == 120
    assert "".join(seen + rest) == generation("under way", 120)
    with closing(PostgresStore(new)) as store:
        texts = sorted(one.text for one in store.export(Query(limit=None)))
    assert texts == sorted([generation("done before", 8), generation("under way", 120)])
