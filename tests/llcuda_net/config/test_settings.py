"""Settings: where a value comes from, and what is said of a wrong one."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.cli.server import make_parser
from llcuda_net.config.settings import Settings, load, unknown_variables
from llcuda_net.errors import ConfigError

#: One setting of each kind, with four values: by default, in the file, the environment, as option.
KINDS: dict[str, tuple[Any, Any, Any, Any]] = {
    "host": ("127.0.0.1", "file", "environment", "option"),
    "port": (9000, 1, 2, 3),
    "timeout": (600.0, 1.5, 2.5, 3.5),
    "ctx": (None, 128, 256, 512),
    "log_format": ("auto", "json", "human", "auto"),
}


def _load(*argv: str, environment: dict[str, str] | None = None) -> Settings:
    return load(make_parser().parse_args(argv), environment or {})


def _file(folder: Path, text: str) -> str:
    path = folder / "llcuda.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@pytest.mark.parametrize("name", KINDS)
def test_option_before_environment_before_file_before_default(name: str, tmp_path: Path) -> None:
    default, in_file, in_environment, as_option = KINDS[name]
    config = ["--config", _file(tmp_path, f"{name} = {json.dumps(in_file)}\n")]
    environment = {"LLCUDA_" + name.upper(): str(in_environment)}
    option = [_flag(name), str(as_option)]

    def found(*argv: str, environment: dict[str, str] | None = None) -> Any:
        return getattr(_load(*argv, environment=environment), name)

    assert found() == default
    assert found(*config) == in_file
    assert found(*config, environment=environment) == in_environment
    assert found(*config, *option, environment=environment) == as_option
    assert found(*option) == as_option
    assert type(found(*config)) is type(found(*option))


def test_a_boolean_in_each_place(tmp_path: Path) -> None:
    config = ["--config", _file(tmp_path, "log_prompts = true\n")]
    assert not _load().log_prompts
    assert _load(*config).log_prompts
    assert not _load(*config, environment={"LLCUDA_LOG_PROMPTS": "no"}).log_prompts
    off = {"LLCUDA_LOG_PROMPTS": "0"}
    assert _load(*config, "--log-prompts", environment=off).log_prompts
    assert not _load(*config, "--no-log-prompts").log_prompts


def test_the_file_may_be_named_in_the_environment_and_use_dashes(tmp_path: Path) -> None:
    path = _file(tmp_path, "max-queue = 3\ntimeout = 20\n")
    found = _load(environment={"LLCUDA_CONFIG": path})
    assert found.max_queue == 3
    assert found.timeout == 20.0
    assert type(found.timeout) is float


def test_an_empty_variable_is_not_given() -> None:
    assert _load(environment={"LLCUDA_PORT": ""}).port == 9000


def test_help_has_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        make_parser().parse_args(["--help-all"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for spec in fields(Settings):
        if spec.name == "engine_options":  # they stand behind --
            assert "[-- options of llama-server]" in text
            continue
        assert _flag(spec.name) in text
        assert spec.metadata["help"].split()[0] in text
    assert "--config" in text


#: A setting, and values that it cannot have.
WRONG = [
    ("port", "x"),
    ("port", "-1"),
    ("port", "65536"),
    ("port", "80.5"),
    ("port", "9" * 5000),
    ("timeout", "0"),
    ("timeout", "-1"),
    ("timeout", "nan"),
    ("timeout", "inf"),
    ("timeout", "soon"),
    ("slots", "0"),
    ("max_queue", "-1"),
    ("max_frame", "100"),
    ("max_frame", "99999999999"),
    ("max_streams", "99999999999"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_told_with_its_origin(name: str, value: str, tmp_path: Path) -> None:
    quoted = json.dumps(value)
    path = _file(tmp_path, f"{name} = {quoted}\n")
    for argv, environment, origin in (
        ([f"{_flag(name)}={value}"], {}, _flag(name)),
        ([], {"LLCUDA_" + name.upper(): value}, "LLCUDA_" + name.upper()),
        (["--config", path], {}, f"{name} in {path}"),
    ):
        with pytest.raises(ConfigError) as caught:
            _load(*argv, environment=environment)
        assert str(caught.value).startswith(f"{origin} must be ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "there is no setting 'prot'"),
        ("[server]\nport = 1", "there is no setting 'server'"),
        ("port = ", "is not TOML"),
        ("port = 1\nport = 2", "is not TOML"),
        ("port = 9000.5", "must be a whole number"),
        ("port = inf", "must be a whole number"),
        ("port = true", "must be a whole number"),
        ("port = [1]", "must be a whole number"),
        ("timeout = 1" + "0" * 400, "must be a number"),
        ("port = 1" + "0" * 5000, "is not TOML"),
        ("host = 5", "must be a string"),
        ("log_prompts = 1", "must be true or false"),
        ("log_level = 'LOUD'", "must be one of debug, info, warning, error"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        _load("--config", path)
    assert words in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes(b"host = '\xe9'")
    for name, words in (("none", "No such file"), (".", "directory"), ("latin1", "not TOML")):
        with pytest.raises(ConfigError, match=words):
            _load("--config", str(tmp_path / name))


@pytest.mark.parametrize(
    "argv", [["--log-level", "loud"], ["--prot", "1"], ["--port"], ["extra"], ["--por", "1"]]
)
def test_a_wrong_command_line_is_one_line_and_exits_with_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        make_parser().parse_args(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--upstream", "http://a", "--model", "b.gguf"], "not both"),
        (["--tls-cert", "a.pem"], "go together"),
        (["--tls-key", "a.pem"], "go together"),
        (["--name", "a"], "--name is for servers that share a database"),
        (["--advertise", "a:1", "--store", "none"], "--advertise is for servers that share"),
    ],
)
def test_combinations_that_cannot_be_meant(argv: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _load(*argv)


def test_the_earlier_source_decides_between_upstream_and_model(tmp_path: Path) -> None:
    config = ["--config", _file(tmp_path, "model = 'f.gguf'\n")]
    environment = {"LLCUDA_MODEL": "e.gguf"}

    def found(*argv: str, environment: dict[str, str] | None = None) -> tuple[Any, Any]:
        settings = _load(*argv, environment=environment)
        return [spec.url for spec in settings.upstream], [spec.file for spec in settings.model]

    assert found("--upstream", "http://a", environment=environment) == (["http://a"], [])
    assert found(*config, environment={"LLCUDA_UPSTREAM": "http://b"}) == (["http://b"], [])
    assert found("--model", "m", environment={"LLCUDA_UPSTREAM": "http://b"}) == ([], ["m"])
    with pytest.raises(ConfigError, match="not both"):
        found(environment={**environment, "LLCUDA_UPSTREAM": "http://b"})


def test_a_variable_with_a_typing_error_is_refused_with_the_name_that_is_meant() -> None:
    with pytest.raises(ConfigError, match=r"AUTH_TOKEN_FIL: did you .* LLCUDA_AUTH_TOKEN_FILE"):
        _load(environment={"LLCUDA_AUTH_TOKEN_FIL": "x"})
    with pytest.raises(ConfigError, match=r"LLCUDA_PROT: did you mean LLCUDA_PORT\?"):
        _load(environment={"LLCUDA_PROT": "1"})
    # Others may have variables of that prefix: a service named llcuda in Kubernetes does.
    others = {
        "LLCUDA_PORT_9000_TCP_ADDR": "10.0.0.1",
        "LLCUDA_SERVICE_HOST": "10.0.0.1",
        "LLCUDA_SERVER": "a:1",
        "LLCUDA_TOKEN": "x",
        "LLCUDA_PROT": "",
        "OTHER_PORT": "1",
    }
    assert _load(environment=others) == _load()
    assert unknown_variables(others) == dict.fromkeys(list(others)[:2])


@pytest.mark.parametrize("name", ["ctx", "slots", "threads", "gpu_layers"])
def test_a_setting_of_the_engine_beside_upstreams_is_refused(name: str, tmp_path: Path) -> None:
    upstream = ("--upstream", "http://a")
    with pytest.raises(ConfigError, match=f"{_flag(name)} is for models that"):
        _load(*upstream, _flag(name), "4")
    path = _file(tmp_path, f"{name} = 4\nupstream = 'http://a'\n")
    with pytest.raises(ConfigError, match="does nothing beside --upstream"):
        _load("--config", path)
    with pytest.raises(ConfigError, match="does nothing beside --upstream"):
        _load("--config", path, environment={"LLCUDA_" + name.upper(): "4"})
    # An upstream that stands nearer to the command line takes the engine's place, with all of it.
    engine = ("--config", _file(tmp_path, f"{name} = 4\n"))
    assert getattr(_load(*engine, *upstream), name) == getattr(Settings(), name)
    assert getattr(_load(*engine), name) == 4


def test_the_memory_limit_is_a_size(tmp_path: Path) -> None:
    assert _load().memory_limit is None
    assert _load("--memory-limit", "512M").memory_limit == 512_000_000
    assert _load(environment={"LLCUDA_MEMORY_LIMIT": "2GiB"}).memory_limit == 2 << 30
    for text in ("memory_limit = 1000000000", "memory_limit = '1G'"):
        assert _load("--config", _file(tmp_path, text)).memory_limit == 10**9
    for wrong, words in (
        ("much", "must be a size (500MB, 2GB, 1.5GiB), not 'much'"),
        ("100M", "must be at least 134217728 bytes, not 100M"),
    ):
        with pytest.raises(ConfigError) as caught:
            _load("--memory-limit", wrong)
        assert str(caught.value) == f"--memory-limit {words}"
    with pytest.raises(ConfigError, match="must be a size"):
        _load("--config", _file(tmp_path, "memory_limit = 1.5"))


def test_an_option_may_be_given_several_times(tmp_path: Path) -> None:
    assert _load().allowed_host == ()
    assert _load("--allowed-host", "a", "--allowed-host", "b").allowed_host == ("a", "b")
    assert _load(environment={"LLCUDA_ALLOWED_HOST": "a, b"}).allowed_host == ("a", "b")
    config = ("--config", _file(tmp_path, 'cors_origin = ["https://a", "https://b"]\n'))
    assert _load(*config).cors_origin == ("https://a", "https://b")
    config = ("--config", _file(tmp_path, "cors_origin = [1]\n"))
    with pytest.raises(ConfigError, match="list of strings"):
        _load(*config)


def test_every_page_is_let_in_only_with_a_token_file() -> None:
    with pytest.raises(ConfigError, match="--auth-token-file"):
        _load("--cors-origin", "*")
    assert _load("--cors-origin", "*", "--auth-token-file", "t").cors_origin == ("*",)


@pytest.mark.parametrize("name", ["a:9000", "http://a", "a b", "user@a"])
def test_a_name_that_no_request_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--allowed-host is a name alone"):
        _load("--allowed-host", name)
    assert _load("--allowed-host", "fd00::1").allowed_host == ("fd00::1",)


def test_an_origin_has_a_scheme_and_no_path() -> None:
    for wrong in ("chat.example", "https://chat.example/page", "https://"):
        with pytest.raises(ConfigError, match="--cors-origin is a scheme and a host"):
            _load("--cors-origin", wrong)
    for right in ("https://chat.example:8443", "http://a/", "app://obsidian.md", "null"):
        assert _load("--cors-origin", right).cors_origin == (right,)


def test_the_largest_body_may_have_a_unit() -> None:
    assert _load("--max-body", "8MiB").max_body == 8 << 20
    assert _load().max_body == 24 << 20


def test_gpus_are_named_by_numbers() -> None:
    assert _load().analysis_gpus == "all"
    assert _load("--analysis-gpus", "none").analysis_gpus == "none"
    assert _load("--analysis-gpus", "1, 0,1").analysis_gpus == "0,1"
    assert _load(environment={"LLCUDA_ANALYSIS_GPUS": "2"}).analysis_gpus == "2"
    for bad in ("", "0,", "-1", "first", "0;1"):
        with pytest.raises(ConfigError, match="--analysis-gpus must be all, none or numbers"):
            _load("--analysis-gpus", bad)


def test_a_server_of_several_has_a_name_and_an_address() -> None:
    database = ["--store", "postgresql:///x"]
    found = _load(*database, "--name", "left rack", "--advertise", "[fd00::5]:9000")
    assert (found.name, found.advertise) == ("left rack", "[fd00::5]:9000")
    assert _load(*database, environment={"LLCUDA_ADVERTISE": "box:1"}).advertise == "box:1"
    for bad in ("box", "box:", ":9000", "box:0", "box:65536", "box:9k", "fd00::5:1", "http://a:1"):
        with pytest.raises(ConfigError, match="--advertise must be HOST:PORT"):
            _load(*database, "--advertise", bad)
    for bad in ("", "a\nb", "x" * 101):
        with pytest.raises(ConfigError, match="--name must be a name of 1 to 100 characters"):
            _load(*database, "--name", bad)


def test_with_a_database_of_several_servers_its_commit_counts() -> None:
    database = ["--store", "postgresql:///x"]
    assert _load(*database).durability == "cluster"
    assert _load(*database, "--durability", "disk").durability == "disk"
    assert _load(environment={"LLCUDA_STORE": "postgres://a@b/c"}).durability == "cluster"
    assert _load().durability == "disk"
    for store in ([], ["--store", "none"]):
        with pytest.raises(ConfigError, match="--durability cluster needs a database"):
            _load(*store, "--durability", "cluster")
