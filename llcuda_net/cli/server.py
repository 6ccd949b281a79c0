"""`llcuda-server`: the command line of the server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llcuda_net.cli.common import Parser, VersionAction, program, run_command, warn_of_variables
from llcuda_net.cli.help_topics import by_topic
from llcuda_net.config import settings as settings_module
from llcuda_net.server.processes.part import OPTION, Part

PROG = "llcuda-server"

_DESCRIPTION = """\
Serve language models to clients of OpenAI's and Anthropic's APIs, and to llcuda-client: forwards
prompts to llama-servers, or runs models itself, and streams the answers.
"""

_EPILOG = """\
examples:
  {call}                                    the demonstration model, on port 9000
  {call} --model smollm2                    a small real model, downloaded at first
  {call} --model path.gguf --slots 8        your own model
  {call} --models ~/models --memory 24G     many models, each loaded when it is asked for
  {call} --model path.gguf --engine ./llama-server -- --flash-attn on
  {call} --upstream http://127.0.0.1:8080   a llama-server that already runs
  {call} --upstream http://127.0.0.1:8080 --upstream http://10.0.0.5:8080

Each setting may also stand in the environment (LLCUDA_PORT=9000) or in the file that --config
names (port = 9000). The first line on stdout says where it listens; logs go to stderr.

SIGHUP: users, upstreams and models are read again from their files; what runs goes on.
SIGTERM or Ctrl-C: running requests get --drain-seconds to finish; a second one stops at once.
exit codes: 0 stopped as asked, 1 could not serve (the port is taken, say), 2 a setting, file or
model is wrong, 130 or 143 stopped by a second signal
"""

#: The options of the short --help, and the topics of the others.
_SHOWN = (
    *("--help", "--config", "--version", "--host", "--port", "--upstream", "--model", "--models"),
    *("--engine", "--ctx", "--slots", "--gpu-layers", "--memory", "--data-dir", "--store"),
    *("--auth-token-file", "--tls-cert", "--tls-key", "--log-level"),
)
_TOPICS = {
    "where to listen": "listen",
    "model": "model",
    "storage": "storage",
    "cluster": "cluster",
    "access": "access",
    "time limits": "time",
    "limits": "limits",
    "monitoring": "monitoring",
    "logs": "logs",
}

#: Options of llama-server and its like that people try, and what is ours.
OTHERS_OPTIONS = {
    theirs: ours
    for names, ours in (
        ("-m", "--model FILE"),
        ("-hf -hfr --hf-repo", "--model hf:OWNER/REPO:QUANT"),
        ("-c --ctx-size", "--ctx N, the tokens of each slot"),
        ("-np --parallel", "--slots N"),
        ("-ngl --n-gpu-layers", "--gpu-layers N"),
        ("-t", "--threads N"),
        ("-a --alias", "aliases in a [[model]] table of --config"),
        ("--models-dir", "--models DIR"),
        ("--models-max", "--memory BYTES and --gpu-memory BYTES"),
        ("--keep-alive --sleep-idle-seconds --ttl", "--idle-seconds SECONDS"),
        ("--api-key --api-key-file", "--auth-token-file FILE"),
        ("--mmproj --lora --model-draft -md", "a [[model]] table of --config"),
        ("--flash-attn -fa", "flash_attn in a [[model]] table of --config, or put it behind --"),
    )
    for theirs in names.split()
}


def make_parser() -> Parser:
    """The command's options."""
    parser = Parser(
        prog=program(PROG),
        usage="%(prog)s [options] [-- options of llama-server]",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(call=program(PROG)),
    )
    settings_module.add_arguments(parser)
    parser.add_argument(OPTION, dest="part", type=Part.parse, help=argparse.SUPPRESS)
    parser.add_argument("--version", action=VersionAction)
    by_topic(parser, _SHOWN, _TOPICS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(program(PROG), lambda: _run(_parse(argv)), warn=False)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    ours, engines = settings_module.split_options(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    for option in ours:
        if there := OTHERS_OPTIONS.get(option.partition("=")[0]):
            parser.error(f"there is no option {option.partition('=')[0]} here: use {there}")
    arguments = parser.parse_args(ours)
    arguments.given = ours
    arguments.engine_options = engines
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    settings = settings_module.load(arguments)
    warn_of_variables(program(PROG))  # of those that are like no setting
    from llcuda_net.cli.models.named import with_files

    settings = with_files(settings, ask=True)
    # Here, and not above: --help needs none of it.
    from llcuda_net.util import logs  # first: see there

    logs.configure(settings.log_level, settings.log_format)
    if settings.processes > 1:
        from llcuda_net.server.processes import parent

        return parent.run(settings, arguments.given, arguments.engine_options)
    from llcuda_net.server import app

    part: Part | None = arguments.part
    if part is not None:
        logs.name_process(part.number)
    return app.run(settings, lambda: with_files(settings_module.load(arguments)), part)


if __name__ == "__main__":
    sys.exit(main())
