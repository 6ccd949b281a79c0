"""A small store with odd results, and `llcuda results` over it, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw
import pytest

from llcuda_net.cli.common import Exit
from llcuda_net.cli.main import main
from llcuda_net.storage.records import Result, Splice, TokenLog, packed
from tests.support.storage.records import result

ODD = "0192f3a4-b5c6-7abc-8def-001122334455"
TWIN = "0192f3a4-b5c6-7abc-9def-001122334455"
OBEYED = "\x1b]0;owned\x07"
#: Written as it is by CSV, whatever is in it.
NASTY = f'A slot{OBEYED}, "quoted",\r\nthen\n日本\u2028 ** \x7f\x9b1m end'


def everything() -> list[Result]:
    plain = [result(number) for number in range(20)]
    odd = result(
        40,
        id=ODD,
        request={
            "messages": [
                {"role": "system", "content": f"Be brief{OBEYED}."},
                {"role": "user", "content": "What is a slow reader?"},
            ],
            "params": {"temperature": 0.5, "n_probs": 2},
        },
        log=TokenLog(
            [NASTY, " more"],
            [1, None],
            [
                packed([[1, b"A\xff", -0.5, [[1, b"A\xff", -0.5], [2, b"B", float("-inf")]]]]),
                packed([]),
            ],
        ),
        splices=[Splice(1, "http://other:8080")],
        key="my key",
        stop="END",
        on_disconnect=30.0,
        seed=-1,
    )
    failed = result(
        41,
        id=TWIN,
        state="failed",
        model={"name": f"other{OBEYED}"},
        log=TokenLog(),
        error={"code": "upstream_lost", "message": "it went away"},
        reason="",
        usage={},
        seed=None,
    )
    long = result(42, state="cancelled", request={"prompt": "long " * 2000})
    return [*plain, odd, failed, long]


def damage(directory: Path) -> None:
    """Cut the one long content short, and alter one result."""
    db = apsw.Connection(str(directory / "results.db"))
    db.execute("UPDATE bodies SET data = substr(data, 1, 20)")
    db.execute("UPDATE results SET finished = finished + 1 WHERE id = 'result-000007'")
    db.close()


class Done:
    """What a command did."""

    def __init__(self, code: int, captured: Any) -> None:
        self.code, self.out, self.err = code, captured.out, captured.err

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()  # type: ignore[no-any-return]

    @property
    def objects(self) -> list[Any]:
        assert self.code == Exit.OK, self.err
        return [json.loads(line) for line in self.out.split("\n")[:-1]]


class Llcuda:
    """Runs `llcuda results` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Done:
        self._capsys.readouterr()
        try:
            code = main(["results", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, self._capsys.readouterr())
