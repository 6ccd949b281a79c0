"""Blocks that see each other's shared memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llcuda_kernels.cuda.runtime.intrinsics import cluster_arrive, cluster_put, cluster_wait
from llcuda_kernels.cuda.runtime.kernel import Kernel
from llcuda_kernels.cuda.runtime.shim import I32, cuda, pointer
from llcuda_kernels.cuda.runtime.simulator import DivergentBarrierError


def _kernel(function: Any, cluster: int) -> Kernel:
    return Kernel("tried", function, [pointer(I32)], 32, (9, 0), True, 0, cluster)


def _to_the_next(out: Any) -> None:
    got = cuda.shared.array(1, I32)
    cluster_arrive()
    cluster_wait()
    own = cuda.blockIdx.x
    if cuda.threadIdx.x == 0:
        cluster_put(got, 0, own, (own + 1) % 4)
    cluster_arrive()
    cluster_wait()
    if cuda.threadIdx.x == 0:
        out[own] = got[0]


def _one_ends(out: Any) -> None:
    if cuda.blockIdx.x % 2 == 0:
        cluster_arrive()
        cluster_wait()


def test_blocks_of_a_cluster_write_to_each_other() -> None:
    out = np.full(8, -1, np.int32)
    _kernel(_to_the_next, 4).launch(8, 32, out)
    np.testing.assert_array_equal(out, [3, 0, 1, 2, 7, 4, 5, 6])


def test_a_block_that_ends_while_others_wait_for_it_is_told() -> None:
    with pytest.raises(DivergentBarrierError, match="32 of 64"):
        _kernel(_one_ends, 2).launch(2, 32, np.zeros(1, np.int32))
