"""What deploy/ has: the image is checked by make test-deploy, and its parts here."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tools import build_llama_server

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))


def test_the_locked_versions_are_those_that_the_server_wants() -> None:
    text = (ROOT / "requirements/server.txt").read_text("utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    wanted = settings["options"]["install_requires"]
    wanted += settings["options.extras_require"]["cluster"]
    wanted += settings["options.extras_require"]["hub"]
    wrong = []
    for line in filter(None, wanted.splitlines()):
        if line.startswith("#"):
            continue
        one = Requirement(line)
        version = locked.get(re.sub("[-_.]+", "-", one.name).lower())
        if version is None or Version(version) not in one.specifier:
            wrong.append(f"{line}: {version}")
    assert not wrong, "make lock: " + "; ".join(wrong)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in entry for entry in entries)


def test_files_that_compose_mounts_are_there(compose: Any) -> None:
    """But for the secrets, which its first lines say how to make."""
    named = [
        volume.partition(":")[0]
        for service in compose["services"].values()
        for volume in service["volumes"]
        if volume.startswith(".")
    ]
    assert len(named) >= 4
    assert [name for name in named if not (DEPLOY / name).exists()] == []
    build = compose["services"]["llcuda"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).exists()
    made = {Path(one["file"]).name for one in compose["secrets"].values()}
    comment = (DEPLOY / "compose.yaml").read_text("utf-8").partition("\nname:")[0]
    assert all(f"> deploy/{name}" in comment for name in made)


def test_compose_scrapes_the_server_by_our_rules(compose: Any) -> None:
    ours = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))
    theirs = yaml.safe_load((DEPLOY / "compose/prometheus.yml").read_text("utf-8"))
    port = compose["services"]["llcuda"]["command"][1]
    assert theirs["scrape_configs"][0]["static_configs"][0].pop("targets") == [f"llcuda:{port}"]
    ours["scrape_configs"][0]["static_configs"][0].pop("targets")
    assert theirs == ours


def test_the_image_is_built_from_what_the_wheel_is() -> None:
    """Whatever setup.cfg names must come through .dockerignore."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = re.findall(r"^COPY (?!--from)(\S+) ", dockerfile, re.MULTILINE)
    assert copied == ["requirements/server.txt", "."]
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    folders = re.findall(r"= (\S+)", settings["options"]["package_dir"])
    pages = [Path(one).parent.as_posix() for one in settings["options.data_files"].values()]
    assert {*folders, *pages, "llcuda_net", "setup.cfg", "pyproject.toml", "README.md"} <= kept


def test_the_image_has_the_llama_server_that_is_tested() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    given = dict(re.findall(r"^ARG (LLAMA_CPP\w*)=(\S+)", dockerfile, re.MULTILINE))
    assert given == {
        "LLAMA_CPP": build_llama_server.VERSION,
        "LLAMA_CPP_SHA256": build_llama_server.SHA256,
    }
    ours = {one for one in build_llama_server.OPTIONS if one.startswith("-DLLAMA_")}
    assert [one for one in ours if one not in dockerfile] == []
