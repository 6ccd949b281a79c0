"""`llcuda setup` in this process: what it finds, what it writes, and what it leaves alone."""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llcuda_net.cli.main import main
from llcuda_net.cli.server import make_parser as server_parser
from llcuda_net.cli.setup import command, service, survey
from llcuda_net.config.settings import Settings, load
from llcuda_net.config.token_file import Users
from llcuda_net.errors import ConfigError
from tests.support.cli.fake_terminal import FakeTerminal

DEMO = Path(__file__).resolve().parents[4] / "llcuda_net/data/demo.gguf"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without anything, on a machine without systemd, GPU and llama-server."""
    for name in ("LLCUDA_MODELS", "OLLAMA_MODELS", "HF_HUB_CACHE", "HF_HOME", "LLAMA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(survey, "no_manager", lambda: "systemd does not run this machine")
    monkeypatch.setattr("llcuda_net.cli.setup.choosing.find_named", _offline)
    return tmp_path


def _offline(name: str, folder: Path, **_: object) -> None:
    raise ConfigError(f"{name}: the index does not answer")


@pytest.fixture
def config(home: Path) -> Path:
    return home / ".config/llcuda/llcuda.toml"


def read(config: Path) -> Settings:
    """The settings that a server with this file has."""
    return load(server_parser().parse_args(["--config", str(config)]), {})


def has_model(home: Path, name: str = "tiny") -> Path:
    """A model in our folder."""
    folder = home / ".local/share/llcuda/models"
    folder.mkdir(mode=0o700, parents=True)
    (folder / f"{name}.gguf").write_bytes(DEMO.read_bytes())
    return folder


def types(monkeypatch: pytest.MonkeyPatch, *answers: str) -> FakeTerminal:
    """A person at a terminal, who types this; what they see of the questions."""
    stdin = io.StringIO("".join(f"{answer}\n" for answer in answers))
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    seen = FakeTerminal()
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stderr", seen)
    return seen


def everything(home: Path) -> dict[str, str]:
    """All files of the home but models, with their texts."""
    return {
        str(path.relative_to(home)): path.read_text()
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.suffix != ".gguf"
    }


def test_yes_takes_the_model_that_is_there(
    home: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = has_model(home)
    assert main(["setup", "--yes"]) == 0
    settings = read(config)
    assert settings.models == str(folder)
    assert [one.name for one in settings.model] == ["tiny"]
    data = home / ".local/share/llcuda"
    assert settings.data_dir == str(data)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (data, config)] == [0o700, 0o600]
    said = capsys.readouterr().out
    assert "models    1 on this machine" in said
    assert f"llcuda serve --config {config}" in said
    assert 'llcuda ask "What is a slot?"' in said
    assert list(everything(home)) == [".config/llcuda/llcuda.toml"]  # no units, no tokens


def test_again_changes_nothing(
    home: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    has_model(home)
    assert main(["setup", "--yes", "--port", "9123"]) == 0
    before, when = everything(home), config.stat().st_mtime_ns
    capsys.readouterr()
    assert main(["setup", "--yes"]) == 0
    assert (everything(home), config.stat().st_mtime_ns) == (before, when)
    said = capsys.readouterr().out
    assert "wrote" not in said
    assert "--server 127.0.0.1:9123" in said


def test_what_a_person_has_written_is_shown_and_kept(
    home: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    has_model(home)
    assert main(["setup", "--yes"]) == 0
    mine = config.read_text() + "\n# mine\nmax_queue = 7\n"
    config.write_text(mine)
    capsys.readouterr()
    assert main(["setup", "--yes", "--port", "9001"]) == 0
    said = capsys.readouterr().out
    assert "-max_queue = 7" in said
    assert "+port = 9001" in said
    assert config.with_name("llcuda.toml.bak").read_text() == mine
    assert read(config).port == 9001


def test_a_dry_run_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup", "--dry-run", "--service", "--host", "0.0.0.0"]) == 0
    said = capsys.readouterr().out
    for name in ("llcuda.toml", "tokens", "llcuda.service", "llcuda.socket"):
        assert f"/{name} (mode " in said
    assert "would pull the model smollm2 into" in said
    assert 'model = "smollm2"' in said
    assert everything(home) == {}
    assert list(home.iterdir()) == []


def test_beyond_loopback_there_is_a_token_once(
    home: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["setup", "--yes", "--model", "demo", "--host", "0.0.0.0"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    tokens, mine = config.with_name("tokens"), config.with_name("token")
    token = mine.read_text().strip()
    assert len(token) == 64
    assert token not in said.out + said.err
    assert [stat.S_IMODE(one.stat().st_mode) for one in (tokens, mine)] == [0o600, 0o600]
    user = Users.parse(tokens.read_text(), "x").find(token)
    assert user is not None
    assert user.admin
    assert read(config).auth_token_file == str(tokens)
    assert f"--token-file {mine}" in said.out
    assert "tls_cert" in said.out
    assert main(arguments) == 0
    assert mine.read_text().strip() == token
    assert token in tokens.read_text()


def test_units_are_for_where_systemd_runs(
    home: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(survey, "no_manager", lambda: "")
    monkeypatch.setattr(service, "_systemctl", lambda *words: asked.append(words))
    assert main(["setup", "--yes", "--model", "demo"]) == 0
    there = home / ".config/systemd/user"
    assert f"--config {config}" in (there / "llcuda.service").read_text()
    assert "ListenStream=127.0.0.1:9000" in (there / "llcuda.socket").read_text()
    assert asked == [("daemon-reload",), ("enable", "--now", "llcuda.socket")]
    assert "systemctl --user status llcuda" in capsys.readouterr().out
    asked.clear()
    assert main(["setup", "--yes", "--port", "9001"]) == 0
    assert asked == [
        ("daemon-reload",),
        ("stop", "llcuda.service", "llcuda.socket"),
        ("enable", "--now", "llcuda.socket"),
    ]
    assert main(["setup", "--yes", "--no-service"]) == 0


def test_units_without_systemd_are_written_where_that_is_asked(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["setup", "--yes", "--model", "demo", "--service"]) == 0
    assert (home / ".config/systemd/user/llcuda.socket").exists()
    assert "the units were not started: systemd does not run" in capsys.readouterr().out


def test_systemctl_that_refuses_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home / "bin"
    folder.mkdir()
    program = folder / "systemctl"
    program.write_text("#!/bin/sh\necho 'Failed to\nconnect' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(survey, "no_manager", lambda: "")
    assert main(["setup", "--yes", "--model", "demo"]) == 1
    said = capsys.readouterr().err
    assert said.endswith("systemctl --user daemon-reload: Failed to connect\n")


def test_a_person_is_asked_and_can_decline(
    home: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_model(home)
    # The second model is the one that can be pulled, the third the demonstration model.
    seen = types(monkeypatch, "3", "no host", "", "nonsense", "9005", "n")
    assert main(["setup"]) == 1
    assert everything(home) == {}
    assert "nothing was written" in seen.text
    assert "an address is a name or an IP address" in seen.text
    assert "a port is a whole number from 1 to 65535" in seen.text
    types(monkeypatch, "3", "", "9005", "y")
    assert main(["setup"]) == 0
    assert (read(config).port, read(config).model) == (9005, ())
    # A changed file is asked about by itself, and no is what Enter gives.
    seen = types(monkeypatch, "1", "", "", "")
    assert main(["setup"]) == 1
    assert read(config).model == ()
    assert f"Replace {config}?" in seen.text


def test_answers_that_end_write_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = types(monkeypatch, "2")
    assert main(["setup"]) == 1
    assert "the answers ended" in seen.text
    assert everything(home) == {}


def test_nobody_to_ask_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup"]) == 2
    assert "give --yes" in capsys.readouterr().err


def test_a_model_that_cannot_be_pulled(
    home: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was asked for is an error; the one that is only offered is done without."""
    assert main(["setup", "--yes", "--model", "smollm2"]) == 2
    assert not config.exists()
    capsys.readouterr()
    assert main(["setup", "--yes"]) == 0
    assert "it begins with the demonstration model" in capsys.readouterr().err
    assert read(config).model == ()


def test_a_model_is_pulled_when_all_is_agreed(
    home: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled: list[str] = []

    def pull(name: str, folder: Path, **_: object) -> Path:
        pulled.append(name)
        return folder / "x.gguf"

    monkeypatch.setattr("llcuda_net.cli.setup.choosing.find_named", pull)
    seen = types(monkeypatch, "1", "", "", "n")
    assert main(["setup"]) == 1
    assert "Pull smollm2, and write these?" in seen.text
    assert (pulled, everything(home)) == ([], {})
    types(monkeypatch, "1", "", "", "y")
    assert main(["setup"]) == 0
    assert pulled == ["smollm2"]
    assert [one.name for one in read(config).model] == ["smollm2"]


def test_a_file_anywhere_is_a_model(home: Path, config: Path) -> None:
    file = home / "my model.gguf"
    file.write_bytes(DEMO.read_bytes())
    assert main(["setup", "--yes", "--model", str(file)]) == 0
    (one,) = read(config).model
    assert (one.name, one.file) == ("my-model", str(file))
    folder = read(config).models
    assert folder is not None
    assert Path(folder).is_dir()  # else the server would not start


def test_upstreams_are_kept_and_tables_of_them_are_left_to_their_owner(
    home: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["setup", "--yes", "--upstream", "http://127.0.0.1:8080"]) == 0
    assert main(["setup", "--yes", "--port", "9001"]) == 0
    assert [one.url for one in read(config).upstream] == ["http://127.0.0.1:8080"]
    config.write_text('[[upstream]]\nurl = "http://127.0.0.1:8080"\nweight = 2\n')
    before = config.read_text()
    assert main(["setup", "--yes"]) == 1
    assert "tables of upstreams" in capsys.readouterr().err
    assert config.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "0"], "a port is a whole number"),
        (["--port", "x"], "a port is a whole number"),
        (["--host", "a b"], "an address is a name"),
        (["--model", "demo", "--upstream", "http://x"], "not both"),
        (["--model", "nothing-of-that-name"], "the index does not answer"),
        (["--upstream", "ftp://x"], "http"),
        (["--engine", "/nowhere/llama-server"], "does not exist"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    home: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["setup", "--yes", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert says in said
    assert everything(home) == {}


def test_a_file_that_is_no_toml_is_replaced_only_by_who_says_so(
    home: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.parent.mkdir(parents=True)
    config.write_text("port = = 1\n")
    assert main(["setup", "--yes", "--model", "demo"]) == 0
    assert "cannot be used as it is" in capsys.readouterr().err
    assert config.with_name("llcuda.toml.bak").read_text() == "port = = 1\n"
    assert read(config).port == 9000


def test_ctrl_c_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types(monkeypatch)

    def interrupt() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.stdin, "readline", interrupt)
    assert command.main([]) == 130
    assert everything(home) == {}


@pytest.mark.parametrize(
    ("booted", "script", "says"),
    [
        (False, None, "systemd does not run this machine"),
        (True, None, "no systemctl on PATH"),
        (True, "echo 252", ""),
        (True, "echo 'No medium\nfound' >&2; exit 1", "cannot be reached: No medium found"),
    ],
)
def test_whether_there_is_a_manager(
    booted: bool, script: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "_BOOTED", tmp_path if booted else tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    if script is not None:
        program = tmp_path / "systemctl"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    found: Callable[[], str] = survey.no_manager
    assert says in found()
    assert bool(found()) == bool(says)
