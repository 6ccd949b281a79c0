"""All of a model's weights, read and dequantised: what a damaged or badly made file is told by.

A run is 256 neighbours of a tensor. A run is absurd where its greatest magnitude is over `ABSURD`
times the median of those of the tensor's runs, and over 1: a flipped bit in the exponent of a
block's scale does that, and no training does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llcuda_net.errors import EngineError
from llcuda_net.upstream.model.gguf import TENSOR_TYPES, ModelFile, show_path
from llcuda_net.upstream.model.header import BLOCKS, Tensor, read_header

if TYPE_CHECKING:
    from llcuda_kernels.runtime.backend import Backend

RUN = 256
ABSURD = 1000.0
#: Numbers that are dequantised at a time: 16 MB of float32.
_AT_ONCE = 1 << 22

Floats = np.ndarray[Any, np.dtype[np.float32]]
Reader = Callable[[Any], Floats]


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """What one tensor holds.

    Attributes:
        kind: the name of its type, such as Q4_K; a number where that is new.
        shape: numbers along each axis; the first is a row's.
        skipped: why its numbers were not looked at; empty where they were. The rest is 0 then.
        least, greatest, mean, rms: of its finite numbers.
        nan, infinite: how many of its numbers are that.
        absurd: how many of its runs are that.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    skipped: str = ""
    least: float = 0.0
    greatest: float = 0.0
    mean: float = 0.0
    rms: float = 0.0
    nan: int = 0
    infinite: int = 0
    absurd: int = 0

    @property
    def numbers(self) -> int:
        """How many there are."""
        return int(np.prod(self.shape, dtype=object)) if self.shape else 1

    @property
    def problem(self) -> str:
        """What is wrong with it, or nothing."""
        said = [
            f"{count:,} {what}"
            for count, what in (
                (self.nan, "NaN"),
                (self.infinite, "infinite"),
                (self.absurd, f"absurd {'run' if self.absurd == 1 else 'runs'} of {RUN}"),
            )
            if count
        ]
        return ", ".join(said)


def check_weights(
    model: ModelFile, report: Callable[[int], None], backend: Backend = "auto"
) -> Iterator[TensorCheck]:
    """Each tensor of all of the model's parts, in the order of the file. Blocks; in a thread.

    Args:
        report: is told how many bytes were read, since it was told before.
        backend: where blocks are dequantised.

    Raises:
        EngineError: a part cannot be read, or is another one than when `model` was read.
    """
    for part in model.parts:
        places = read_header(part, places=True).places
        try:
            data = np.memmap(part, np.uint8, mode="r") if places else None
        except (OSError, ValueError) as error:
            raise EngineError(f"model file {show_path(part)} cannot be read: {error}") from None
        for place in places:
            yield _check(place, data, report, backend)


def _check(
    place: Tensor, data: Any, report: Callable[[int], None], backend: Backend
) -> TensorCheck:
    kind = TENSOR_TYPES.get(place.kind, str(place.kind))
    read = _reader(kind, backend)
    if isinstance(read, str):
        report(place.size)
        return TensorCheck(place.name, kind, place.shape, read)
    numbers, width = BLOCKS[place.kind]
    step = _AT_ONCE // numbers * width
    found = _Statistics()
    for start in range(place.start, place.start + place.size, step):
        raw = np.array(data[start : min(start + step, place.start + place.size)])
        found.add(read(raw.reshape(-1, width)).reshape(-1))
        report(raw.size)
    return found.of(place.name, kind, place.shape)


def _reader(kind: str, backend: Backend) -> Reader | str:
    """What makes float32 of whole blocks, (blocks, bytes of one); or why nothing does."""
    if kind in ("F32", "F16", "F64"):
        return lambda raw: raw.view(f"<f{int(kind[1:]) // 8}").astype(np.float32)
    if kind == "BF16":
        return lambda raw: (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    import llcuda_kernels as kernels

    ours = getattr(kernels, f"dequantize_{kind.lower()}", None)
    if ours is not None:
        return lambda raw: ours(raw, backend=backend)
    try:
        import gguf
    except ImportError:
        return f"{kind} needs the package gguf: pip install gguf"
    try:
        known = gguf.GGMLQuantizationType[kind]
        gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[known][1]), np.uint8), known)
    except (KeyError, NotImplementedError):
        return f"the package gguf does not read {kind}"
    return lambda raw: gguf.dequantize(raw, known)


class _Statistics:
    """Of a tensor's numbers, part by part."""

    def __init__(self) -> None:
        self._least, self._greatest = np.inf, -np.inf
        self._sum = self._squares = 0.0
        self._count = self._nan = self._infinite = 0
        self._peaks: list[Any] = []

    def add(self, x: Floats) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            # One sum tells whether all are finite; only then is it worth a look at each.
            if not np.isfinite(np.dot(x, x)):
                self._nan += int(np.isnan(x).sum())
                self._infinite += int(np.isinf(x).sum())
                x = np.where(np.isfinite(x), x, np.float32(0))
            self._count += x.size
            self._least = min(self._least, float(x.min(initial=np.inf)))
            self._greatest = max(self._greatest, float(x.max(initial=-np.inf)))
            self._sum += float(x.sum(dtype=np.float64))
            wide = x.astype(np.float64) if not np.isfinite(np.dot(x, x)) else x
            self._squares += float(np.dot(wide, wide))
        whole = x.size // RUN * RUN
        magnitudes = np.abs(x)
        self._peaks.append(magnitudes[:whole].reshape(-1, RUN).max(axis=1))
        if whole < x.size:
            self._peaks.append(magnitudes[whole:].max(keepdims=True))

    def of(self, name: str, kind: str, shape: tuple[int, ...]) -> TensorCheck:
        if not self._count:
            return TensorCheck(name, kind, shape)
        finite = max(1, self._count - self._nan - self._infinite)
        peaks = np.concatenate(self._peaks)
        usual = max(float(np.median(peaks)) * ABSURD, 1.0)
        return TensorCheck(
            name,
            kind,
            shape,
            least=self._least,
            greatest=self._greatest,
            mean=self._sum / finite,
            rms=float(np.sqrt(self._squares / finite)),
            nan=self._nan,
            infinite=self._infinite,
            absurd=int((peaks > usual).sum()),
        )
