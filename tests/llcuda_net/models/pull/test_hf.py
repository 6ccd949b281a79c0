"""Models of Hugging Face, by its library, from a server that speaks its API."""

from __future__ import annotations

import builtins
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from llcuda_net.errors import MissingExtra, PullError
from llcuda_net.models.pull.hf import ProjectorChoice, plan
from llcuda_net.models.pull.pull import pull
from llcuda_net.models.pull.reference import HubReference, Reference, parse
from llcuda_net.models.pull.staging import HIDDEN
from tests.llcuda_net.models.pull.conftest import BIG
from tests.support.models.hub_server import POOR_TOKEN, TOKEN, Hub, Repository
from tests.support.models.sources import tiny_gguf

TINY = parse("hf:tiny/model-GGUF")
MIB = 1 << 20


def left(models: Path) -> list[str]:
    return sorted(str(path.relative_to(models)) for path in models.rglob("*") if path.is_file())


def partial(models: Path) -> Path:
    (path,) = models.rglob("*.partial")
    return path


def test_a_model_is_pulled_and_then_it_is_there(hub: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    seen: list[Any] = []
    (found,) = pull(TINY, models, lambda *said: seen.append(said))
    assert (found.name, found.fresh, found.license) == ("x-Q4_K_M", True, "apache-2.0")
    assert found.revision == hub.repositories["tiny/model-GGUF"].commit
    assert found.file.read_bytes() == BIG
    assert left(models) == [f"{HIDDEN}/x-Q4_K_M.json", "x-Q4_K_M.gguf"]
    assert seen[0] == ("hf:tiny/model-GGUF", 0, None)
    assert ("x-Q4_K_M.gguf", len(BIG), len(BIG)) in seen
    assert hub.ranges == [None]
    hub.asked.clear()
    (again,) = pull(TINY, models)
    assert (again.fresh, again.file) == (False, found.file)
    assert hub.asked == []
    # The same file by its quantisation: the server says that its bytes are those.
    (same,) = pull(parse("hf:tiny/model-GGUF:Q4_K_M"), models)
    assert (same.fresh, same.file) == (False, found.file)
    assert len(hub.ranges) == 1


@pytest.mark.parametrize("text", [":Q8_0", "/x-Q8_0.gguf", "@v1:Q8_0", "@v1", "/x-Q8_0.gguf@v1"])
def test_quantisations_files_and_revisions(text: str, hub: Hub, tmp_path: Path) -> None:
    repository = hub.repositories["tiny/model-GGUF"]
    if "@" in text:
        del repository.files["x-Q4_K_M.gguf"]
        repository.revisions = frozenset({"v1"})
    (found,) = pull(parse(f"hf:tiny/model-GGUF{text}"), tmp_path)
    assert found.file.read_bytes() == tiny_gguf(8)
    # What is downloaded is of the commit, which cannot change meanwhile.
    assert any(f"/resolve/{repository.commit}/" in path for path in hub.asked)


def test_a_split_model_with_its_projector(hub: Hub, tmp_path: Path) -> None:
    parts = {f"Q4_0/y-Q4_0-0000{n}-of-00002.gguf": tiny_gguf(n) for n in (1, 2)}
    projectors = {"mmproj-BF16.gguf": tiny_gguf(3), "mmproj-F16.gguf": tiny_gguf(4)}
    hub.repositories["tiny/seeing"] = Repository({**parts, **projectors})
    seeing = parse("hf:tiny/seeing")
    (found,) = pull(seeing, tmp_path)
    assert left(tmp_path)[1:] == [
        "y-Q4_0/mmproj-F16.gguf",
        "y-Q4_0/y-Q4_0-00001-of-00002.gguf",
        "y-Q4_0/y-Q4_0-00002-of-00002.gguf",
    ]
    assert found.file.name == "y-Q4_0-00001-of-00002.gguf"
    assert found.projector == tmp_path / "y-Q4_0/mmproj-F16.gguf"
    assert found.size == sum(path.stat().st_size for path in (tmp_path / "y-Q4_0").iterdir())
    (second_part,) = pull(
        parse("hf:tiny/seeing/Q4_0/y-Q4_0-00002-of-00002.gguf"),
        tmp_path / "b",
        projector=ProjectorChoice(wanted=False),
    )
    assert second_part.projector is None
    assert len(left(tmp_path / "b")) == 3
    (other,) = pull(seeing, tmp_path / "c", projector=ProjectorChoice(quant="BF16"))
    assert other.projector is not None
    assert other.projector.read_bytes() == tiny_gguf(3)
    with pytest.raises(PullError, match="llcuda models rm y-Q4_0"):
        pull(seeing, tmp_path, projector=ProjectorChoice(quant="BF16"))


def test_a_connection_that_is_cut_is_gone_on_with_in_the_same_pull(
    hub: Hub, tmp_path: Path
) -> None:
    hub.cuts = [2 * MIB + 5, MIB + 7]
    (found,) = pull(TINY, tmp_path)
    assert found.file.read_bytes() == BIG
    assert len(hub.ranges) == 3
    assert hub.ranges[0] is None
    # Each goes on where whole pieces ended, and never begins anew.
    starts = [int(re.findall(r"\d+", text)[0]) for text in hub.ranges[1:] if text]
    assert starts == sorted(starts)
    assert starts[0] >= 2 * MIB


def test_a_connection_that_stays_lost_is_gone_on_with_by_the_next_pull(
    hub: Hub, tmp_path: Path
) -> None:
    hub.cuts = [2 * MIB, *[0] * 20]
    with pytest.raises(PullError) as error:
        pull(TINY, tmp_path)
    assert re.match(
        r"the connection was lost at \d MB of 4 MB of x-Q4_K_M.gguf .*: pull again, and it goes on",
        str(error.value),
    )
    assert "\n" not in str(error.value)
    have = partial(tmp_path).stat().st_size
    assert MIB <= have <= 2 * MIB
    assert BIG.startswith(partial(tmp_path).read_bytes())
    hub.cuts.clear()
    hub.ranges.clear()
    (found,) = pull(TINY, tmp_path)
    assert hub.ranges == [f"bytes={have}-"]
    assert found.file.read_bytes() == BIG
    assert left(tmp_path) == [f"{HIDDEN}/x-Q4_K_M.json", "x-Q4_K_M.gguf"]


def test_ctrl_c_keeps_what_came_and_shows_no_model(hub: Hub, tmp_path: Path) -> None:
    def report(what: str, done: int, total: int | None) -> None:
        if done >= 2 * MIB:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pull(TINY, tmp_path, report)
    have = partial(tmp_path).stat().st_size
    assert have >= 2 * MIB
    assert not [name for name in left(tmp_path) if name.endswith((".gguf", ".json"))]
    hub.ranges.clear()
    pull(TINY, tmp_path)
    assert hub.ranges == [f"bytes={have}-"]


def test_a_server_that_ignores_ranges(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [2 * MIB, *[0] * 20]
    with pytest.raises(PullError):
        pull(TINY, tmp_path)
    hub.cuts.clear()
    hub.ignores_ranges = True
    (found,) = pull(TINY, tmp_path)
    assert found.file.read_bytes() == BIG


def test_wrong_bytes_are_refused_and_removed(hub: Hub, tmp_path: Path) -> None:
    hub.wrong["x-Q4_K_M.gguf"] = BIG[:-1] + bytes([BIG[-1] ^ 1])
    with pytest.raises(PullError, match=r"sent are not those that .*they were removed"):
        pull(TINY, tmp_path)
    assert left(tmp_path) == []
    hub.wrong.clear()
    assert pull(TINY, tmp_path)[0].fresh


def test_wrong_bytes_of_an_earlier_pull_are_got_again(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [2 * MIB, *[0] * 20]
    with pytest.raises(PullError):
        pull(TINY, tmp_path)
    hub.cuts.clear()
    hub.ranges.clear()
    path = partial(tmp_path)
    path.write_bytes(bytes(path.stat().st_size))  # as a power cut leaves it
    (found,) = pull(TINY, tmp_path)
    assert found.file.read_bytes() == BIG
    assert len(hub.ranges) == 2
    assert hub.ranges[1] is None


def test_a_partial_file_that_is_too_long_or_of_another_commit(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [2 * MIB, *[0] * 20]
    with pytest.raises(PullError):
        pull(TINY, tmp_path)
    hub.cuts.clear()
    path = partial(tmp_path)
    path.write_bytes(BIG + b"more")
    path.with_name("old.partial").write_bytes(b"of another commit")
    (found,) = pull(TINY, tmp_path)
    assert found.file.read_bytes() == BIG
    assert left(tmp_path) == [f"{HIDDEN}/x-Q4_K_M.json", "x-Q4_K_M.gguf"]


def test_files_that_are_whole_are_not_got_again(hub: Hub, tmp_path: Path) -> None:
    parts = {f"y-0000{n}-of-00002.gguf": tiny_gguf(n, 2 * MIB) for n in (1, 2)}
    hub.repositories["tiny/split"] = Repository(parts)
    hub.cuts = [3 * MIB, *[0] * 20]
    with pytest.raises(
        PullError, match=r"lost at \d+ \w+ of \d MB of y-00002-of-00002|cannot be asked"
    ):
        pull(parse("hf:tiny/split"), tmp_path)
    assert len(list(tmp_path.rglob("*.whole"))) == 1
    hub.cuts.clear()
    hub.asked.clear()
    pull(parse("hf:tiny/split"), tmp_path)
    assert sum("00001-of" in path for path in hub.asked) == 0


def test_a_small_file_that_git_itself_has(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["tiny/model-GGUF"].plain = frozenset({"x-Q8_0.gguf"})
    hub.wrong["x-Q8_0.gguf"] = tiny_gguf(9)
    reference = parse("hf:tiny/model-GGUF:Q8_0")
    with pytest.raises(PullError, match="git:"):
        pull(reference, tmp_path)
    hub.wrong.clear()
    assert pull(reference, tmp_path)[0].fresh


def test_the_token_goes_to_the_hub_and_not_to_where_the_files_are(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["tiny/model-GGUF"].gated = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert pull(TINY, tmp_path)[0].fresh
    assert hub.tokens == [None]


@pytest.mark.parametrize(
    ("kind", "token", "said"),
    [
        ("gated", None, "is gated: accept its terms on {url}/tiny/model-GGUF, then set HF_TOKEN"),
        ("gated", POOR_TOKEN, "is gated, and your token has no access: ask for it on {url}/tiny"),
        ("private", None, "{url} shows no repository tiny/model-GGUF: is it written so? If it is"),
        ("private", POOR_TOKEN, "{url} shows no repository tiny/model-GGUF"),
        ("open", "hf_false", "{url} does not take your token: set HF_TOKEN to one that is valid"),
    ],
)
def test_what_may_not_be_had(
    kind: str, token: str | None, said: str, hub: Hub, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    repository = hub.repositories["tiny/model-GGUF"]
    repository.gated, repository.private = kind == "gated", kind == "private"
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PullError) as error:
        pull(TINY, tmp_path)
    assert said.format(url=hub.url) in str(error.value)
    assert "\n" not in str(error.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (HubReference("tiny/other"), "shows no repository tiny/other"),
        (HubReference("tiny/model-GGUF", revision="v9"), "has no revision v9"),
        (HubReference("tiny/model-GGUF", "Q4_K_S"), "has no Q4_K_S: it has Q4_K_M, Q8_0; did you"),
        (HubReference("tiny/model-GGUF", file="x-Q8.gguf"), "has no file x-Q8.gguf; did you mean"),
        (HubReference("tiny/mo--del"), "tiny/mo--del cannot be pulled: Cannot have -- or .."),
    ],
)
def test_what_is_not_there(reference: Reference, said: str, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(PullError) as error:
        pull(reference, tmp_path)
    assert said in str(error.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "your token may not read tiny/model-GGUF"),
        (429, "has had too many requests"),
        (500, "answered 500 for tiny/model-GGUF"),
    ],
)
def test_a_server_that_refuses(status: int, said: str, hub: Hub, tmp_path: Path) -> None:
    hub.statuses = [status] * 30
    with pytest.raises(PullError) as error:
        pull(TINY, tmp_path)
    assert said in str(error.value)


def test_no_server(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(PullError, match=r"http://127.0.0.1:1 cannot be asked: .*refused"):
        pull(TINY, tmp_path)


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ModuleNotFoundError("No module named 'huggingface_hub'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'llcuda-net\[hub\]'"):
        pull(TINY, tmp_path)


@pytest.mark.parametrize("damage", [None, "bytes", "size"])
def test_what_the_cache_of_hugging_face_has_is_not_got_again(
    damage: str | None, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    repository = cache / "models--tiny--model-GGUF"
    snapshot = repository / "snapshots" / hub.repositories["tiny/model-GGUF"].commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    held = {None: tiny_gguf(8), "bytes": tiny_gguf(9), "size": tiny_gguf(8)[:-9]}[damage]
    (repository / "blobs/abc").write_bytes(held)
    (snapshot / "x-Q8_0.gguf").symlink_to("../../blobs/abc")
    (found,) = pull(parse("hf:tiny/model-GGUF:Q8_0"), tmp_path / "models")
    assert found.file.read_bytes() == tiny_gguf(8)
    assert not found.file.is_symlink()
    assert len(hub.ranges) == (damage is not None)
    # The cache is as it was.
    assert (repository / "blobs/abc").read_bytes() == held


def test_a_file_that_is_too_large_for_http(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 4_000_000)
    with pytest.raises(PullError, match=r"sends at most 4 MB: `hf download tiny/model-GGUF x-Q4"):
        pull(TINY, tmp_path)
    assert hub.ranges == []


def test_how_much_would_be_pulled(hub: Hub) -> None:
    assert isinstance(TINY, HubReference)
    assert plan(TINY, ProjectorChoice()) == (len(BIG), "apache-2.0")
    assert hub.ranges == []


def test_the_disk_is_full(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llcuda_net.models.pull.staging.MARGIN", 1 << 60)
    with pytest.raises(PullError, match="make room, or give another folder"):
        pull(TINY, tmp_path)
    assert hub.ranges == []
    assert left(tmp_path) == []
