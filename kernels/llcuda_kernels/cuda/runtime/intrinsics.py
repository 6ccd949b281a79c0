"""Single instructions that Numba has no name for, and exchanges between the lanes of a warp.

Each has a twin in Python for the simulator (`simulated_intrinsics`), but for `WITHOUT_TWIN`, which
are proved on a GPU only. The device's side is `instructions`.
"""

from __future__ import annotations

from typing import Any

from . import shim

#: Tensor cores and what feeds them work on a whole warp's registers: nothing to imitate in Python.
WITHOUT_TWIN = (
    "copy_async16",
    "copy_async16_if",
    "load_matrix4",
    "mma_int8",
    "mma_tf32",
    "shared_address",
)
_from: Any
if shim.SIMULATED:
    from . import simulated_intrinsics

    _from = simulated_intrinsics
else:
    from . import instructions

    _from = instructions

# Memory: an address or a shared array, and the index of its first number, a multiple of the width.
load2, load4, store4 = _from.load2, _from.load4, _from.store4
load_past, store_past = _from.load_past, _from.store_past
count_up, pointer_at = _from.count_up, _from.pointer_at
# Copies to shared memory that go on while the block works
copy_async4, copy_async_bytes = _from.copy_async4, _from.copy_async_bytes
copy_commit, copy_wait = _from.copy_commit, _from.copy_wait
# Arithmetic
dp4a, from_f16 = _from.dp4a, _from.from_f16
exp2_fast, reciprocal, multiply_add = _from.exp2_fast, _from.reciprocal, _from.multiply_add
greater, float_bits, bits_float = _from.greater, _from.float_bits, _from.bits_float
multiply, multiply_wide, pick_bytes = _from.multiply, _from.multiply_wide, _from.pick_bytes
# Pairs of bfloat16 in a word, and tensor cores
nibbles_bf16, add_bf16, mma_bf16 = _from.nibbles_bf16, _from.add_bf16, _from.mma_bf16
# The warp
lane, shuffle_xor, shuffle, ballot = _from.lane, _from.shuffle_xor, _from.shuffle, _from.ballot
bits_set = _from.bits_set
# The cluster: blocks that see each other's shared memory
cluster_arrive, cluster_wait = _from.cluster_arrive, _from.cluster_wait
cluster_put = _from.cluster_put

copy_async16: Any = getattr(_from, "copy_async16", None)
copy_async16_if: Any = getattr(_from, "copy_async16_if", None)
load_matrix4: Any = getattr(_from, "load_matrix4", None)
mma_int8: Any = getattr(_from, "mma_int8", None)
mma_tf32: Any = getattr(_from, "mma_tf32", None)
shared_address: Any = getattr(_from, "shared_address", None)
