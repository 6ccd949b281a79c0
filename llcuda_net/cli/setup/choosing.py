"""What `llcuda setup` is to write: by options, by answers, and by what the config file says now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import Exit, fail
from llcuda_net.cli.models.facts import TITLES
from llcuda_net.cli.models.named import find_named
from llcuda_net.cli.setup.config_text import Chosen
from llcuda_net.cli.units import bytes_text
from llcuda_net.config.models import name_of
from llcuda_net.errors import ConfigError
from llcuda_net.models.pull.known import KNOWN
from llcuda_net.storage.data_dir import default_directory
from llcuda_net.util.address import is_loopback
from llcuda_net.util.terminal import echo, one_line

if TYPE_CHECKING:
    from llcuda_net.cli.setup.questions import Questions
    from llcuda_net.cli.setup.survey import Survey

#: The model that is offered where there is none, and the word for the one that is always there.
_SMALL, DEMO = "smollm2", "demo"
#: Models that are offered.
_MOST_OFFERED = 15


def choose(
    arguments: argparse.Namespace,
    questions: Questions,
    survey: Survey,
    now: dict[str, Any],
    config: Path,
    folder: Path,
) -> Chosen:
    """What to write.

    Args:
        now: what the config file says; empty: there is none.
        config: where it is.
        folder: of our models.

    Raises:
        CommandError, ConfigError: an answer or an option is wrong; one line.
    """

    if arguments.host is not None:
        _check_host(arguments.host)
    if arguments.port is not None:
        _port(arguments.port)
    upstream = tuple(arguments.upstream or _upstreams(now, arguments))
    model: dict[str, Any] = {}
    if not upstream:
        model = _model(arguments, questions, survey, now, folder)
    host = arguments.host or questions.text(
        "Listen on which address? 127.0.0.1: for this machine alone; 0.0.0.0: for others, too",
        str(now.get("host", "127.0.0.1")),
        _check_host,
    )
    port = arguments.port or questions.text("On which port?", str(now.get("port", 9000)), _port)
    tokens = None
    if not is_loopback(host):
        tokens = Path(now.get("auth_token_file") or config.with_name("tokens")).expanduser()
    elif isinstance(now.get("auth_token_file"), str):
        tokens = Path(now["auth_token_file"]).expanduser()
    data = arguments.data_dir or now.get("data_dir") or default_directory()
    program = survey.engine.program
    engine = arguments.engine or now.get("engine")
    if engine is None and program.path is not None:
        engine = str(program.path)  # systemd's PATH is another one
    return Chosen(
        config=config,
        host=host,
        port=_port(port),
        data=Path(data).expanduser().absolute(),
        folder=folder,
        upstream=upstream,
        engine=engine,
        found=f"{program.name} ({program.version})" if program.version else program.name,
        tokens=tokens,
        **model,
    )


def _upstreams(now: dict[str, Any], arguments: argparse.Namespace) -> Iterable[str]:
    """Those that the config file has, unless a model is asked for; tables stay the user's work."""
    found = now.get("upstream")
    if arguments.model is not None or found is None:
        return ()
    listed = found if isinstance(found, list) else [found]
    if not all(isinstance(one, str) for one in listed):
        fail(
            "the config file has tables of upstreams, which setup would not keep: change it by "
            "hand, or name another --config",
            Exit.REFUSED,
        )
    return listed


def _check_host(text: str) -> None:
    """Raises ConfigError."""
    if not text or any(c.isspace() or not c.isprintable() or c in "/[]" for c in text):
        raise ConfigError(f"an address is a name or an IP address, such as 127.0.0.1, not {text!r}")


def _port(text: str) -> int:
    """Raises ConfigError."""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= 65_535):
        raise ConfigError(f"a port is a whole number from 1 to 65535, not {text!r}")
    return int(text)


def _model(
    arguments: argparse.Namespace,
    questions: Questions,
    survey: Survey,
    now: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """The model to load at once, as fields of `Chosen`."""

    wanted = arguments.model
    if wanted is None:
        wanted = _offer(questions, survey, now)
    if wanted == DEMO:
        return {}
    here = {file.name: file for file in survey.models}
    file = here.get(wanted) or next(
        (one for one in survey.models if survey.names.get(one.path) == wanted), None
    )
    if file is not None:
        if file.source == "models":
            return {"model": wanted}
        return {"model": name_of(file.name), "file": file.path, "mmproj": file.mmproj}
    path = Path(wanted).expanduser()
    if path.is_file():
        return {"model": name_of(str(path)), "file": path.absolute()}
    return {"model": wanted, "pull": True}


def obtain(chosen: Chosen, *, offered: bool) -> Chosen:
    """Pull the model, if it has to be.

    Args:
        offered: nobody asked for this one: where it cannot be had, the demonstration model stands
            in for it.

    Raises:
        ConfigError: there is no such model, or it cannot be pulled; one line.
    """
    if not chosen.pull or chosen.model is None:
        return chosen
    try:
        if find_named(chosen.model, chosen.folder, yes=True) is None:
            raise ConfigError(f"model file {chosen.model} does not exist, or is no file")
    except ConfigError as error:
        if not offered:
            raise
        echo(one_line(f"{error}; it begins with the demonstration model"), file=sys.stderr)
        return replace(chosen, model=None, pull=False)
    return replace(chosen, pull=False)


def _offer(questions: Questions, survey: Survey, now: dict[str, Any]) -> str:
    """The name of a model that is here or can be pulled, or DEMO."""

    names, offers = [], []
    default = None
    for file, fits in zip(survey.models[:_MOST_OFFERED], survey.fits, strict=False):
        assert file.model is not None
        name = survey.names.get(file.path, file.name)
        where = f", {TITLES[file.source]}" if file.source != "models" else ""
        room = ", too large for the memory here" if fits == "no" else ""
        names.append(name)
        offers.append(f"{name} ({bytes_text(file.model.size)}{where}{room})")
        if default is None and fits != "no":
            default = len(names) - 1
    if _SMALL not in names:
        known = KNOWN[_SMALL]
        names.append(_SMALL)
        offers.append(
            f"{_SMALL}: pull {known.title} ({bytes_text(known.size)}, licence {known.license})"
        )
        default = len(names) - 1 if default is None else default
    names.append(DEMO)
    offers.append(f"{DEMO}: the demonstration model, which knows one manual")
    if now:  # a file is there, and says so, or says none
        said = now.get("model", DEMO)
        if isinstance(said, str) and said in names:
            default = names.index(said)
    if questions.asks:
        echo("Which model shall be loaded at once? Others are loaded when they are asked for.")
    return names[questions.choice("Number", offers, default or 0)]
