"""A context that does not fit is refused before the model is loaded, with one that does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine import context_size
from llcuda_net.upstream.engine.context_size import check_context, prompt_cache
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.process import ChildEnd, ChildSettings
from llcuda_net.upstream.engine.supervisor import Engine
from llcuda_net.upstream.model.gguf import ModelFile, read_model_file

GIB = 1 << 30
MODEL = ModelFile((Path("m.gguf"),), GIB, "llama", "m", 8192, None, "Q4_0", 1 << 17)


def asked(ctx: int | None, slots: int, **more: Any) -> EngineOptions:
    return EngineOptions(Path("m.gguf"), ctx=ctx, slots=slots, **more)


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
        check_context(MODEL, asked(ctx, slots))
    assert "\n" not in str(caught.value)
    if found := re.search(r"give .*?(\d+)", str(caught.value)):
        check_context(MODEL, asked(int(found[1]), slots))


def test_what_is_not_known_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_context(MODEL, asked(None, 10**6))
    check_context(MODEL, asked(4096, 4))
    check_context(replace(MODEL, trained_context=None), asked(9000, 1))
    check_context(replace(MODEL, bytes_per_token=None), asked(8192, 4))
    monkeypatch.setattr(context_size, "memory_here", lambda: None)
    check_context(MODEL, asked(8192, 4))


async def test_the_engine_starts_nothing_then(tiny: Path) -> None:
    async def launch(*_: object) -> ChildEnd:
        raise AssertionError

    assert read_model_file(tiny).trained_context == 512
    engine = Engine(EngineOptions(tiny, ctx=513), launch=launch)
    with pytest.raises(EngineError, match="give at most 512"):
        await engine.run()


@pytest.mark.parametrize(
    ("bytes_per_token", "ctx", "slots", "mib"),
    [
        (4096, 4096, 4, 64),  # the demonstration model: not a GiB for 1.8 million weights
        (1 << 17, 4096, 4, 1024),
        (1 << 17, 4096, 1, 512),
        (1, 64, 1, 1),  # 0 would switch it off
        (1000, 1500, 1, 2),
        (None, 64, 1, 1024),
    ],
)
def test_as_many_prompts_are_kept_as_the_slots_hold(
    bytes_per_token: int | None, ctx: int, slots: int, mib: int
) -> None:
    model = replace(MODEL, bytes_per_token=bytes_per_token)
    assert prompt_cache(model, ctx, asked(None, slots)) == mib


async def test_the_engine_is_started_with_it(tiny: Path) -> None:
    async def launch(settings: ChildSettings, on_start: object, on_ready: object) -> ChildEnd:
        assert settings.prompt_cache == prompt_cache(read_model_file(tiny), 256, asked(None, 3))
        return ChildEnd("enough", 1)

    with pytest.raises(EngineError, match="enough"):
        await Engine(EngineOptions(tiny, slots=3, ctx=256), launch=launch).run()
