"""A shell in which commands run as they stand in the documentation.

A page says `llcuda serve` and then, for another terminal, `llcuda ask`. A script has one terminal:
here a server that is started goes to the background, and the next command comes when it listens. A
second server takes the place of the first, and the last one ends with the script.
"""

from __future__ import annotations

_PRELUDE = r"""
set -euo pipefail
served=""
unserve() {
    if [ -n "$served" ]; then kill "$served" 2>/dev/null || true; wait "$served" || true; fi
    served=""
}
trap unserve EXIT
serve() {
    unserve
    folder=$(mktemp -d)
    "$@" >"$folder/out" 2>"$folder/log" &
    served=$!
    for _ in $(seq 1200); do
        if grep -q '^listening on' "$folder/out"; then cat "$folder/out"; return; fi
        kill -0 "$served" 2>/dev/null || break
        sleep 0.1
    done
    echo "no server: $*" >&2
    tail -n 5 "$folder/log" >&2
    served=""
    return 1
}
llcuda-server() { serve env llcuda-server "$@"; }
llcuda() { if [ "${1-}" = serve ]; then serve env llcuda "$@"; else command llcuda "$@"; fi; }
"""

#: Not of what a function or a script that is read does.
_ECHO = 'trap \'printf "$ %s\\n" "$BASH_COMMAND"\' DEBUG\n'


def script(code: str, *, echo: bool = False) -> str:
    """What bash runs: these commands, each of which must succeed.

    Args:
        code: the commands.
        echo: print each line before it runs, as a terminal would.
    """
    return _PRELUDE + (_ECHO if echo else "") + code
