"""A context that does not fit is refused before the model is loaded, with one that does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine import context_size
from llcuda_net.upstream.engine.context_size import check_context
from llcuda_net.upstream.engine.process import ChildEnd
from llcuda_net.upstream.engine.supervisor import Engine, EngineOptions
from llcuda_net.upstream.model.gguf import ModelFile, read_model_file

GIB = 1 << 30
MODEL = ModelFile((Path("m.gguf"),), GIB, "llama", "m", 8192, None, "Q4_0", 1 << 17)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_size, "memory_here", lambda: 3 * GIB)


@pytest.mark.parametrize(
    ("ctx", "slots", "words"),
    [
        (8193, 1, "more than the 8192 tokens .* give at most 8192"),
        (8192, 4, r"needs 5.0 GiB .* there are 3.0 GiB: give --ctx 4096"),
        (8192, 10**6, "use a smaller model"),
    ],
)
def test_too_large(ctx: int, slots: int, words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        check_context(MODEL, ctx, slots)
    assert "\n" not in str(caught.value)
    if found := re.search(r"give .*?(\d+)", str(caught.value)):
        check_context(MODEL, int(found[1]), slots)


def test_what_is_not_known_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_context(MODEL, None, 10**6)
    check_context(MODEL, 4096, 4)
    check_context(replace(MODEL, trained_context=None), 9000, 1)
    check_context(replace(MODEL, bytes_per_token=None), 8192, 4)
    monkeypatch.setattr(context_size, "memory_here", lambda: None)
    check_context(MODEL, 8192, 4)


async def test_the_engine_starts_nothing_then(tiny: Path) -> None:
    async def launch(*_: object) -> ChildEnd:
        raise AssertionError

    assert read_model_file(tiny).trained_context == 512
    engine = Engine(EngineOptions(tiny, ctx=513), launch=launch)
    with pytest.raises(EngineError, match="give at most 512"):
        await engine.run()
