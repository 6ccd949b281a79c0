"""`llcuda results search --semantic`, `show` with figures, over a store that is filled here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llcuda_net.analysis.certainty import certainty_stats
from llcuda_net.analysis.vector_index import RECIPE, combine, quantised
from llcuda_net.cli.common import Exit
from llcuda_net.cli.main import main
from llcuda_net.cli.results import semantic
from llcuda_net.storage.directory_lock import DirectoryLock
from llcuda_net.storage.records import TokenLog, packed
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.upstream.model.fingerprint import CACHE, _facts_of, file_of, hash_of_file
from tests.support.storage.records import MODEL, result

DEMO = Path(semantic.__file__).parents[2] / "data" / "demo.gguf"
TEXTS = ("a slot \x1b[31mis free", "the journal", "a slow stream", "not analysed")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four results, three of which are analysed: their vectors are the axes."""
    store = SqliteStore(tmp_path, write=True)
    store.put(
        [
            result(n, request={"prompt": f"question {n}"}, log=TokenLog([text], [n]))
            for n, text in enumerate(TEXTS, 1)
        ]
    )
    model = {**MODEL, "hash": hash_of_file(DEMO)}
    space = store.analyses.open_space(model, 3, RECIPE)
    rows = quantised(combine([[list(map(float, row))] for row in np.eye(3)]))
    store.analyses.embed(space.id, 3, [(n, *row) for n, row in enumerate(rows, 1) if row])
    store.close()
    monkeypatch.setenv("LLCUDA_DATA_DIR", str(tmp_path))
    return tmp_path


class Asked:
    """Stands for the engine: a text's vector is what it says."""

    def __init__(self) -> None:
        self.models: list[Path] = []

    async def __call__(self, model: Path, text: str) -> list[float]:
        self.models.append(model)
        return [float(number) for number in text.split()]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(semantic, "_vector", asked)
    return asked


def llcuda(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        code = main(["results", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.usefixtures("directory")
def test_the_nearest_come_first(capsys: pytest.CaptureFixture[str], engine: Asked) -> None:
    code, out, err = llcuda(capsys, "search", "--semantic", "--json", "0.1 0.9 0.5", "--limit", "2")
    assert code == Exit.OK
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["text"] for one in found] == ["the journal", "a slow stream"]
    assert found[0]["id"] == "result-000002"
    assert found[0]["preview"] == "question 2"
    assert found[0]["created"] == "2023-11-14T22:13:22.000000000Z"
    length = math.sqrt(0.1**2 + 0.9**2 + 0.5**2)
    assert found[0]["score"] == pytest.approx(0.9 / length, abs=0.01)
    assert "1 result that llcuda-server has still to analyse" in err
    assert [model.name for model in engine.models] == ["demo.gguf"]


@pytest.mark.usefixtures("directory", "engine")
def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = llcuda(capsys, "search", "--semantic", "1", "0", "0")
    assert code == Exit.OK
    lines = out.splitlines()
    assert lines[0].startswith("1.000  result-000001")
    assert lines[1] == "  prompt  question 1"
    assert lines[2] == "  text    a slot \\x1b[31mis free"
    assert len([line for line in lines if line.startswith("  text")]) == 3


@pytest.mark.usefixtures("directory", "engine")
def test_a_query_of_another_dimension_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = llcuda(capsys, "search", "--semantic", "1 0")
    assert (code, out) == (Exit.OK, "")
    assert "no results match" in err


@pytest.mark.usefixtures("engine")
def test_nothing_analysed_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLCUDA_DATA_DIR", str(tmp_path))
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1), result(2)])
    code, out, err = llcuda(capsys, "search", "--semantic", "1")
    assert (code, out) == (Exit.OK, "")
    assert "2 results that llcuda-server has still to analyse" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "demo"], "--model does not go with it"),
        (["--since", "2h"], "--since does not go with it"),
        (["--state", "done"], "--state does not go with it"),
    ],
)
@pytest.mark.usefixtures("directory", "engine")
def test_what_does_not_go_together(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = llcuda(capsys, "search", "--semantic", "1 0 0", *arguments)
    assert code == Exit.USAGE
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("directory", "engine")
def test_an_empty_text(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = llcuda(capsys, "search", "--semantic", " ")
    assert code == Exit.USAGE
    assert "is empty" in err


def test_the_file_of_the_space_s_model_is_found_where_its_hash_is_kept(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: Asked
) -> None:
    mine = tmp_path / "my model.gguf"
    mine.write_bytes(DEMO.read_bytes())
    (directory / CACHE).write_text(json.dumps({_facts_of(mine).key: "ab" * 32}))
    store = SqliteStore(directory, write=True)
    store.analyses.update_model(store.analyses.spaces()[0], {**MODEL, "hash": "ab" * 32})
    code, _, _ = llcuda(capsys, "search", "--semantic", "1 0 0")
    assert code == Exit.OK
    assert engine.models == [mine]
    mine.write_bytes(b"GGUF" + DEMO.read_bytes())  # it is another one now
    assert file_of({"hash": "ab" * 32}, directory) is None
    code, _, err = llcuda(capsys, "search", "--semantic", "1 0 0")
    assert code == Exit.REFUSED
    assert "of the model demo, whose file is not here any more" in err


def test_a_server_that_does_not_answer_is_told_and_no_engine_started(
    directory: Path, capsys: pytest.CaptureFixture[str], engine: Asked
) -> None:
    held = DirectoryLock(directory, "127.0.0.1:1")
    try:
        code, _, err = llcuda(capsys, "search", "--semantic", "1 0 0")
    finally:
        held.release()
    assert code == Exit.CONNECT
    assert "127.0.0.1:1" in err
    assert engine.models == []
    held = DirectoryLock(directory)
    code, _, err = llcuda(capsys, "search", "--semantic", "1 0 0")
    held.release()
    assert code == Exit.USAGE
    assert "give --server" in err


@pytest.mark.parametrize(
    ("listens", "asked"),
    [
        ("0.0.0.0:9000", "127.0.0.1:9000"),
        ("[::]:9000", "[::1]:9000"),
        ("10.0.0.1:7", "10.0.0.1:7"),
    ],
)
def test_a_server_that_listens_everywhere_is_asked_here(
    listens: str,
    asked: str,
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def connect(address: Any, **options: Any) -> Any:
        seen.append((str(address), options["token"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("llcuda_net.cli.results.semantic.sync.connect", connect)
    monkeypatch.setenv("LLCUDA_TOKEN", "secret")
    held = DirectoryLock(directory, listens)
    code, _, _ = llcuda(capsys, "search", "--semantic", "1 0 0")
    held.release()
    assert code == Exit.INTERRUPTED
    assert seen == [(asked, "secret")]


# -- show ----------------------------------------------------------------------------------------


def uncertain() -> TokenLog:
    probabilities = {"The": 0.99, " answer": 0.98, " is": 0.99, " probably": 0.1, " 42": 0.9}
    tokens = [
        packed([[n, piece.encode(), math.log(p), [[n, piece.encode(), math.log(p)]]]])
        for n, (piece, p) in enumerate(probabilities.items())
    ]
    return TokenLog(list(probabilities), list(range(5)), tokens)


@pytest.mark.parametrize("analysed", [False, True])
def test_show_has_the_figures_and_marks_the_least_certain_words(
    analysed: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether or not the server has got to it yet."""
    monkeypatch.setenv("LLCUDA_DATA_DIR", str(tmp_path))
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1, log=uncertain()), result(2)])
    if analysed:
        while store.analyses.compute_certainty(certainty_stats):
            pass
    code, out, _ = llcuda(capsys, "show", "result-000001")
    assert code == Exit.OK
    assert "text, the least certain words marked\nThe answer is [probably?] 42\n" in out
    mean = -math.log(0.99 * 0.98 * 0.99 * 0.1 * 0.9) / 5
    assert f"mean surprisal  {mean:.3g} nats" in out
    assert f"perplexity      {math.exp(mean):.3g}" in out
    assert "least certain   'The answer is probably 42' (tokens 0 to 4" in out
    code, out, _ = llcuda(capsys, "show", "--json", "result-000001")
    found = json.loads(out)["certainty"]
    assert found["tokens"] == 5
    assert found["perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert found["least_certain"]["first"] == 0
    assert found["least_certain"]["behind"] == 5
    _, out, _ = llcuda(capsys, "show", "--text", "result-000001")
    assert out == "The answer is probably 42\n"
    _, out, _ = llcuda(capsys, "show", "result-000002")
    assert "certainty" not in out
    _, out, _ = llcuda(capsys, "show", "--json", "result-000002")
    assert json.loads(out)["certainty"] is None
