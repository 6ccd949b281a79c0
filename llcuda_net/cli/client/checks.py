"""Which options of llcuda-client go together."""

from __future__ import annotations

import argparse

from llcuda_net.cli.common import check_text, fail

#: What goes with --attach, and with --cancel, --delete, --list and --models; everything else is
#: about a new request.
_WITH_CANCEL = {"server", "tls", "tls_ca", "token_file", "reconnect_seconds", "json"}
_WITH_ATTACH = _WITH_CANCEL | {"first", "no_stream", "stats", "certainty", "think"}
_NAMES = {
    "prompt": "a prompt",
    "n_predict": "--max-tokens",
    "first": "--from",
    "previous": "--continue",
}


def check(arguments: argparse.Namespace) -> None:
    """Refuse combinations that mean nothing.

    Raises:
        CommandError: for the first that was found.
    """
    for flag, allowed in (
        ("models", _WITH_CANCEL),
        ("list", _WITH_CANCEL),
        ("cancel", _WITH_CANCEL),
        ("delete", _WITH_CANCEL),
        ("attach", _WITH_ATTACH),
    ):
        chosen = getattr(arguments, flag)
        if chosen is not None and chosen is not False:
            for name, value in vars(arguments).items():
                given = value is not None and value is not False and value != []
                if given and name not in allowed | {flag}:
                    other = _NAMES.get(name, "--" + name.replace("_", "-"))
                    other = value if name == "detach" else other
                    fail(f"--{flag} and {other} do not go together")
            if isinstance(chosen, str):
                check_text(chosen, f"the id of --{flag}")
    if arguments.first is not None and arguments.attach is None:
        fail("--from says where --attach begins to read: give --attach ID, too")
    if len(arguments.prompt) > 1:
        fail(f"{len(arguments.prompt)} prompts were given: put the prompt in quotes")
    if arguments.file is not None and arguments.prompt:
        fail("give a prompt or --file, not both")
    if arguments.raw and arguments.system is not None:
        fail("--system goes with a chat template, which --raw leaves out")
    if arguments.raw:
        if arguments.previous is not None:
            fail("--continue goes with a chat template, which --raw leaves out")
        for flag in ("tools", "image", "audio"):
            if getattr(arguments, flag):
                fail(f"--{flag} goes with a chat template, which --raw leaves out")
    texts = {"system": [arguments.system], "stop": arguments.stop or []}
    texts |= {"idempotency-key": [arguments.idempotency_key], "model": [arguments.model]}
    texts |= {"continue": [arguments.previous]}
    for flag, given_texts in texts.items():
        for text in given_texts:
            check_text(text or "", f"the text of --{flag}")
    for flag in ("raw", "json", "idempotency_key"):
        if arguments.chat and getattr(arguments, flag):
            fail(f"--chat and --{flag.replace('_', '-')} do not go together")
    if arguments.chat and arguments.detach:
        fail(f"--chat and {arguments.detach} do not go together")
    if arguments.chat and arguments.prompt == ["-"]:
        fail("--chat reads its questions from standard input: - is not needed")
    _check_storage(arguments)


def _check_storage(arguments: argparse.Namespace) -> None:
    params = dict(arguments.param)
    temperature = params.get("temperature", arguments.temperature)
    if arguments.cache and temperature != 0 and params.get("seed", arguments.seed) in (None, -1):
        fail("--cache is for answers that repeat: give --temperature 0 or a --seed, too")
    if arguments.store == "none" and arguments.durability not in (None, "memory"):
        fail(f"--store none keeps nothing: --durability {arguments.durability} asks for more")
    if not arguments.detach:
        return
    if arguments.on_disconnect not in (None, "continue"):
        fail(f"{arguments.detach} lets the answer go on to its end: leave --on-disconnect out")
    if arguments.store == "none" or arguments.durability == "memory":
        fail(
            f"{arguments.detach} with nothing stored: nobody could read the answer once it is over"
        )
    for flag in ("stats", "no_stream", "certainty", "think"):
        if getattr(arguments, flag):
            other = f"--{flag.replace('_', '-')}"
            fail(f"{arguments.detach} prints no answer, so {other} does not go with it")
