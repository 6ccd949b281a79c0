"""Which files of a repository are the model that is meant."""

from __future__ import annotations

import pytest

from llcuda_net.errors import PullError
from llcuda_net.models.pull.choice import candidates, choose, choose_projector, quant_of, stem_of

FILES = [
    "README.md",
    "Tiny-1B-Instruct-Q8_0.gguf",
    "Tiny-1B-Instruct-Q4_K_M.gguf",
    "Tiny-1B-Instruct-Q4_K_S.gguf",
    "Tiny-1B-Instruct-UD-Q4_K_M.gguf",
    "BF16/Tiny-1B-Instruct-BF16-00002-of-00002.gguf",
    "BF16/Tiny-1B-Instruct-BF16-00001-of-00002.gguf",
    "Tiny-1B-Instruct.imatrix.gguf",
    "mmproj-BF16.gguf",
    "mmproj-F16.gguf",
]


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("x-UD-IQ2_XXS.gguf", "IQ2_XXS"),
        ("Q4_K_XL/x.gguf", "Q4_K_XL"),
        ("model-f16.gguf", "F16"),
        ("model-fp16.gguf", "F16"),
        ("BF16/x-BF16-00001-of-00002.gguf", "BF16"),
        ("Qwen3-16B.gguf", ""),
        ("demo.gguf", ""),
    ],
)
def test_the_quantisation_that_a_path_names(path: str, quant: str) -> None:
    assert quant_of(path) == quant


def test_the_name_of_a_model() -> None:
    assert stem_of("a/b/x-Q4_0.gguf") == "x-Q4_0"
    assert stem_of("a/x-Q4_0-00001-of-00003.gguf") == "x-Q4_0"
    assert stem_of("x.GGUF") == "x"


def test_parts_belong_together_and_other_files_are_no_models() -> None:
    found = candidates(FILES)
    assert [len(one.files) for one in found] == [2, 1, 1, 1, 1]
    assert found[0].files == (
        "BF16/Tiny-1B-Instruct-BF16-00001-of-00002.gguf",
        "BF16/Tiny-1B-Instruct-BF16-00002-of-00002.gguf",
    )


def test_a_part_that_is_missing() -> None:
    with pytest.raises(PullError, match="of x, split in 3, parts are missing"):
        candidates(["x-00001-of-00003.gguf", "x-00003-of-00003.gguf"])


@pytest.mark.parametrize(
    ("quant", "name"),
    [
        (None, "Tiny-1B-Instruct-Q4_K_M"),
        ("Q4_K_M", "Tiny-1B-Instruct-Q4_K_M"),
        ("UD-Q4_K_M", "Tiny-1B-Instruct-UD-Q4_K_M"),
        ("BF16", "Tiny-1B-Instruct-BF16"),
        ("Q8_0", "Tiny-1B-Instruct-Q8_0"),
    ],
)
def test_the_one_that_is_meant(quant: str | None, name: str) -> None:
    assert choose(FILES, quant, "a/b").name == name


def test_without_the_usual_quantisation_another_sensible_one() -> None:
    assert choose(["x-Q2_K.gguf", "x-F16.gguf", "x-Q6_K.gguf"], None, "a/b").quant == "Q6_K"
    assert choose(["x-strange.gguf"], None, "a/b").name == "x-strange"


@pytest.mark.parametrize(
    ("files", "quant", "said"),
    [
        (FILES, "Q4_K_N", "a/b has no Q4_K_N: it has BF16, Q4_K_M, Q4_K_S, Q8_0; did you mean"),
        (["m.safetensors"], None, "has no GGUF model: its files are safetensors"),
        (["x.md"], None, "has no GGUF model"),
        (["x-1B-Q4_0.gguf", "x-7B-Q4_0.gguf"], None, "name the file, hf:OWNER/REPO/FILE: x-1B"),
        (["x-1B-Q4_0.gguf", "x-7B-Q4_0.gguf"], "Q4_0", "has several models"),
    ],
)
def test_what_cannot_be_chosen(files: list[str], quant: str | None, said: str) -> None:
    with pytest.raises(PullError) as error:
        choose(files, quant, "a/b")
    assert said in str(error.value)


def test_the_projector() -> None:
    assert choose_projector(FILES, None, "a/b") == "mmproj-F16.gguf"
    assert choose_projector(FILES, "BF16", "a/b") == "mmproj-BF16.gguf"
    assert choose_projector(["x.gguf"], None, "a/b") is None
    assert choose_projector(["x-mmproj-odd.gguf"], None, "a/b") == "x-mmproj-odd.gguf"
    with pytest.raises(PullError, match=r"no projector .mmproj. in Q8_0: it has BF16, F16"):
        choose_projector(FILES, "Q8_0", "a/b")
    with pytest.raises(PullError, match="it has none"):
        choose_projector(["x.gguf"], "F16", "a/b")
