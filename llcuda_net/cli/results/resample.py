"""`llcuda results resample`: what another temperature would have given."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import Exit, fail
from llcuda_net.cli.results.find import whole_id

if TYPE_CHECKING:
    from llcuda_net.analysis.resampling import Redrawn
    from llcuda_net.storage.results.interface import Store

#: So many tokens are listed; --json has all.
_MOST = 40


def resample_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results resample`."""
    from llcuda_net.analysis.resampling import Sampling, resample
    from llcuda_net.cli.json_documents import line
    from llcuda_net.util.terminal import echo

    found = store.get(whole_id(store, arguments.id))
    if found is None:
        fail(f"the result {arguments.id} was deleted just now", Exit.REFUSED)
    how = Sampling(
        arguments.seed if arguments.seed is not None else found.seed or 0,
        arguments.temperature,
        arguments.top_k,
        arguments.top_p,
        arguments.min_p,
    )
    redrawn, unknown = resample(found.log.logprobs or [], how)
    if not redrawn:
        fail(
            f"{found.id} has no candidates beside its tokens: ask for them with --n-probs N,"
            " or top_logprobs",
            Exit.REFUSED,
        )
    others = [one for one in redrawn if one.differs]
    if arguments.json:
        echo(
            line(
                {
                    "id": found.id,
                    **{name: getattr(how, name) for name in how.__slots__},
                    "tokens": len(redrawn),
                    "others": len(others),
                    "without_candidates": unknown,
                    "drawn": [_document(one) for one in redrawn],
                }
            )
        )
        return Exit.OK
    share = 100 * len(others) / len(redrawn)
    echo(
        f"at temperature {how.temperature:g}, with seed {how.seed}: {len(others):,} of"
        f" {len(redrawn):,} tokens would have been others ({share:.0f} %)"
    )
    if unknown:
        what = "token has" if unknown == 1 else "tokens have"
        left = "is" if unknown == 1 else "are"
        echo(f"{unknown:,} {what} no candidates kept, and {left} left out")
    _show(others)
    return Exit.OK


def _show(others: list[Redrawn]) -> None:
    from llcuda_net.cli.tables import table
    from llcuda_net.util.terminal import echo

    if not others:
        return
    echo()
    rows = [
        [f"{one.piece:,}", repr(_text(one.taken)), repr(_text(one.drawn)), *_logprobs(one)]
        for one in others[:_MOST]
    ]
    heads = ("PIECE", "TAKEN", "DRAWN", "LOGPROB", "OF DRAWN")
    for text in table(heads, rows, right=frozenset({0, 3, 4})):
        echo(text, styled=True)
    if len(others) > _MOST:
        echo(f"and {len(others) - _MOST:,} more: --json has all", file=sys.stderr)


def _logprobs(one: Redrawn) -> list[str]:
    return ["?" if each[2] is None else f"{each[2]:.3f}" for each in (one.taken, one.drawn)]


def _text(token: list[Any]) -> str:
    said = token[1]
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _document(one: Redrawn) -> dict[str, Any]:
    def token(each: list[Any]) -> dict[str, Any]:
        return {"id": each[0], "text": _text(each), "logprob": each[2]}

    return {
        "piece": one.piece,
        "taken": token(one.taken),
        "drawn": token(one.drawn),
        "candidates": one.candidates,
    }
