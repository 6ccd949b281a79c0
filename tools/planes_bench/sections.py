"""Where keys and values lie in a state that llama.cpp has saved.

Each layer's keys, and then each layer's values, are: int32 type, uint64 bytes of a cell, and the
cells (llama-kv-cache.cpp, `state_write_data`). They are found by that, since what stands before
them differs between versions.
"""

from __future__ import annotations

import struct

#: ggml's numbers of the types, and bytes and numbers of a block.
NUMBERS = {"f16": 1, "q8_0": 8, "q4_0": 2}
BLOCKS = {"f16": 2, "q8_0": 34, "q4_0": 18}
_HEAD = struct.Struct("<iQ")


def sections(state: bytes, kind: str, cells: int) -> list[slice]:
    """The cells of each layer's keys and values; none where the state looks different."""
    number, block = NUMBERS[kind], BLOCKS[kind]
    mark = struct.pack("<i", number)
    at = 0
    while (at := state.find(mark, at)) >= 0 and at + _HEAD.size < len(state):
        row = _HEAD.unpack_from(state, at)[1]
        if block <= row < 1 << 20 and row % block == 0:
            step = _HEAD.size + cells * row
            head = state[at : at + _HEAD.size]
            starts = [at]
            while state.startswith(head, starts[-1] + step):
                starts.append(starts[-1] + step)
            if len(starts) > 1 and starts[-1] + step <= len(state):
                return [slice(one + _HEAD.size, one + step) for one in starts]
        at += 1
    return []
