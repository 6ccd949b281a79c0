"""Why a load failed, by llama.cpp's log; all of these lines were printed by a llama-server."""

from __future__ import annotations

from collections import deque

import pytest

from llcuda_net.upstream.engine.causes import (
    find_abort,
    find_cause,
    is_error,
    may_be_kept,
    refused_constraint,
)


def test_the_first_line_that_knows_is_the_cause() -> None:
    lines = deque(
        [
            "0.00.001.440 W srv          init: setting n_batch",
            "0.00.004.554 E llama_model_load: error loading model: tensor 'x' is not within bounds",
            "0.00.004.608 E llama_model_load_from_file_impl: failed to load model",
            "0.00.004.863 E cmn  common_init_: failed to load model '/m.gguf'",
            "0.00.005.203 E srv          init: exiting due to model loading error",
        ]
    )
    assert find_cause(lines) == "tensor 'x' is not within bounds"
    assert find_cause([*lines][2:]) == ""
    assert find_abort(lines) == ""


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("error: invalid argument: --nosuch", "invalid argument: --nosuch"),
        (
            'error while handling argument "--cache-type-k": Unsupported cache type: q9',
            "it does not take an option: --cache-type-k: Unsupported cache type: q9",
        ),
        (
            "error while handling argument \"--grammar-file\": error: failed to open file '/a'",
            "it does not take an option: --grammar-file: failed to open file '/a'",
        ),
        (
            "llama-server: error while loading shared libraries: libcuda.so.1: cannot open",
            "error while loading shared libraries: libcuda.so.1: cannot open",
        ),
        (
            "./llama-server: /lib/libc.so.6: version `GLIBC_2.38' not found (required by x)",
            "version `GLIBC_2.38' not found (required by x)",
        ),
        (
            "0.00.013 E llama_adapter_lora_init: failed to apply lora adapter: expect general.x",
            "failed to apply lora adapter: expect general.x",
        ),
        (
            "0.00.007.092 E mtmd_get_memory_usage: error: Failed to load CLIP model from bad.gguf",
            "Failed to load CLIP model from bad.gguf",
        ),
        (
            "0.18.360.973 W common_fit_params: failed to fit params to free device memory",
            "",
        ),
        ("root ::= error: s3cret", ""),
        ("usage:", ""),
    ],
)
def test_causes(line: str, cause: str) -> None:
    assert find_cause(["0.00.001.446 I srv  llama_server: initializing ...", line]) == cause


def test_aborts() -> None:
    lines = ["ggml-cuda.cu:1: GGML_ASSERT(0) failed", "0.00.001 E srv: later"]
    assert find_abort(lines) == lines[0]


def test_what_may_be_kept() -> None:
    assert may_be_kept("root ::= s3cret", serving=False)
    assert not may_be_kept("root ::= s3cret", serving=True)
    assert may_be_kept("0.00.001.446 W srv: x", serving=True)
    assert is_error("0.00.001.446 E srv: x")
    assert not is_error("0.00.001.446 W srv: E x")
    line = "0.01.753.725 E failed to parse grammar: s3cret"
    assert refused_constraint(line) == (
        "0.01.753.725 E failed to parse grammar",
        "failed to parse grammar",
    )
    assert refused_constraint("0.01.753.725 E srv: x") is None
