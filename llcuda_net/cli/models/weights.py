"""`llcuda models show --check`: a table of all tensors, and whether any holds what it must not."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import Exit

if TYPE_CHECKING:
    from llcuda_net.models.files.local_file import LocalFile
    from llcuda_net.models.files.weights import TensorCheck


def check(file: LocalFile) -> list[TensorCheck]:
    """Read all of the model's weights, with progress on a terminal."""
    from llcuda_net.cli.progress import Ticker
    from llcuda_net.cli.units import bytes_text
    from llcuda_net.models.files.weights import check_weights

    assert file.model is not None
    whole, done = file.model.weights.total, 0
    start = time.monotonic()
    line = Ticker()
    with line:

        def report(size: int) -> None:
            nonlocal done
            done += size
            rate = done / max(1e-3, time.monotonic() - start)
            percent = 100 * done // max(1, whole)
            line.say(f"checked {percent} % of {bytes_text(whole)}, {bytes_text(int(rate))}/s")

        return list(check_weights(file.model, report))


def document(found: list[TensorCheck]) -> dict[str, Any]:
    """For programs."""
    return {
        "tensors": [
            {
                "name": tensor.name,
                "type": tensor.kind,
                "shape": list(tensor.shape),
                **({"skipped": tensor.skipped} if tensor.skipped else _statistics(tensor)),
            }
            for tensor in found
        ],
        "problems": sum(bool(tensor.problem) for tensor in found),
        "skipped": sum(bool(tensor.skipped) for tensor in found),
    }


def show(found: list[TensorCheck]) -> None:
    """For people."""
    from llcuda_net.cli.tables import table
    from llcuda_net.util.terminal import echo

    heads = ("TENSOR", "TYPE", "SHAPE", "LEAST", "GREATEST", "MEAN", "RMS", "")
    echo()
    for text in table(heads, map(_row, found), right=frozenset(range(2, 7))):
        echo(text, styled=True)
    skipped = Counter(tensor.skipped for tensor in found if tensor.skipped)
    for why, count in sorted(skipped.items()):
        echo(f"not looked at: {count:,} {_tensors(count)}: {why}")
    numbers = sum(tensor.numbers for tensor in found if not tensor.skipped)
    looked = len(found) - skipped.total()
    if looked and not any(tensor.problem for tensor in found):
        echo(
            f"checked {looked:,} {_tensors(looked)}, {numbers:,} weights:"
            " none is NaN, infinite or absurd"
        )


def verdict(found: list[TensorCheck], name: str) -> int:
    """The exit code; what is wrong goes to stderr."""
    from llcuda_net.cli.common import fail

    bad = [tensor for tensor in found if tensor.problem]
    if bad:
        more = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
        fail(
            f"{name} is damaged or badly made: tensor {bad[0].name} has {bad[0].problem}{more};"
            " get the file anew, or quantise it anew",
            Exit.REFUSED,
        )
    if found and all(tensor.skipped for tensor in found):
        fail(f"{name}: none of its tensors could be looked at: {found[0].skipped}", Exit.REFUSED)
    return Exit.OK


def _tensors(count: int) -> str:
    return "tensor" if count == 1 else "tensors"


def _statistics(tensor: TensorCheck) -> dict[str, Any]:
    names = ("least", "greatest", "mean", "rms", "nan", "infinite", "absurd")
    return {name: getattr(tensor, name) for name in names}


def _row(tensor: TensorCheck) -> list[str]:
    shape = " x ".join(f"{length:,}" for length in tensor.shape)
    if tensor.skipped:
        return [tensor.name, tensor.kind, shape, "", "", "", "", "not looked at"]
    numbers = (tensor.least, tensor.greatest, tensor.mean, tensor.rms)
    return [
        tensor.name,
        tensor.kind,
        shape,
        *(f"{number:.4g}" for number in numbers),
        tensor.problem,
    ]
