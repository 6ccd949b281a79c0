"""The intrinsics as the GPU has them: a line of LLVM or of PTX each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import shim
from .shim import cuda, device, intrinsic, ir, signature, types

_FULL = 0xFFFFFFFF
_LLVM = {"f": ir.FloatType(), "r": ir.IntType(32), "l": ir.IntType(64), "h": ir.IntType(16)}
_NUMBA = {"f": types.float32, "r": types.int32, "l": types.int64, "h": types.uint16}


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """The first number's address: of an address, or of an array (a shared one)."""
    if isinstance(kind, types.CPointer):
        return value
    return context.make_array(kind)(context, builder, value=value).data


def _element(kind: Any) -> Any:
    return kind.dtype


def _vector_load(width: int) -> Any:
    @intrinsic
    def load(typingctx: Any, memory: Any, at: Any) -> Any:
        kind = _element(memory)
        made = types.UniTuple(kind, width)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            element = context.get_data_type(kind)
            address = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
            vector = ir.VectorType(element, width)
            value = builder.load(builder.bitcast(address, vector.as_pointer()))
            value.align = width * kind.bitwidth // 8
            parts = [builder.extract_element(value, _LLVM["r"](i)) for i in range(width)]
            return context.make_tuple(builder, made, parts)

        return signature(made, memory, types.int64), codegen

    return load


load2 = _vector_load(2)
load4 = _vector_load(4)


@intrinsic
def load_past(typingctx: Any, memory: Any, at: Any, past: Any) -> Any:
    """The number at `at` and `past` more, none of them negative; `past` is part of the load."""
    kind = _element(memory)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        first = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
        return builder.load(builder.gep(first, [args[2]]))

    return signature(kind, memory, types.int32, types.int32), codegen


@intrinsic
def store_past(typingctx: Any, memory: Any, at: Any, past: Any, value: Any) -> Any:
    """Where `load_past` loads from."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        first = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
        builder.store(args[3], builder.gep(first, [args[2]]))
        return context.get_dummy_value()

    return signature(types.void, memory, types.int32, types.int32, _element(memory)), codegen


@intrinsic
def store4(typingctx: Any, memory: Any, at: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Four neighbours in one store."""
    kind = _element(memory)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(context.get_data_type(kind), 4)
        value = ir.Constant(vector, ir.Undefined)
        for i in range(4):
            value = builder.insert_element(value, args[2 + i], _LLVM["r"](i))
        address = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
        stored = builder.store(value, builder.bitcast(address, vector.as_pointer()))
        stored.align = kind.bitwidth // 2
        return context.get_dummy_value()

    return signature(types.void, memory, types.int64, kind, kind, kind, kind), codegen


@intrinsic
def count_up(typingctx: Any, memory: Any, at: Any) -> Any:
    """Add one to a whole number in global memory; what it was."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = builder.gep(args[0], [args[1]])
        return builder.atomic_rmw("add", address, _LLVM["r"](1), "monotonic")

    return signature(types.int32, memory, types.int64), codegen


@intrinsic
def pointer_at(typingctx: Any, table: Any, at: Any, like: Any) -> Any:
    """The address that stands in a table, as one of the same type as `like`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = builder.load(builder.gep(args[0], [args[1]]))
        return builder.inttoptr(word, context.get_value_type(like))

    return signature(like, table, types.int64, like), codegen


def _asm(text: str, results: str, inputs: str, effect: bool) -> tuple[Any, Callable[..., Any]]:
    """Signature and code of one piece of PTX. A letter is the constraint of a register."""
    made = [_NUMBA[r] for r in results]
    result: Any = types.void
    if len(made) == 1:
        result = made[0]
    elif made:
        result = types.UniTuple(made[0], len(made))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        out: Any = ir.VoidType()
        if len(results) == 1:
            out = _LLVM[results]
        elif results:
            out = ir.LiteralStructType([_LLVM[r] for r in results])
        shape = ir.FunctionType(out, [_LLVM[i] for i in inputs])
        constraints = ",".join([*(f"={r}" for r in results), *inputs])
        value = builder.call(ir.InlineAsm(shape, text, constraints, side_effect=effect), args)
        if not results:
            return context.get_dummy_value()
        if len(results) == 1:
            return value
        parts = [builder.extract_value(value, i) for i in range(len(results))]
        return context.make_tuple(builder, result, parts)

    return signature(result, *(_NUMBA[i] for i in inputs)), codegen


@intrinsic
def dp4a(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Four products of int8 and a sum."""
    return _asm("dp4a.s32.s32 $0, $1, $2, $3;", "r", "rrr", False)


@intrinsic
def from_f16(typingctx: Any, bits: Any) -> Any:
    """float16 bits to float32."""
    return _asm("cvt.f32.f16 $0, $1;", "f", "h", False)


@intrinsic
def exp2_fast(typingctx: Any, x: Any) -> Any:
    """The special function unit's."""
    return _asm("ex2.approx.f32 $0, $1;", "f", "f", False)


@intrinsic
def reciprocal(typingctx: Any, x: Any) -> Any:
    """The special function unit's."""
    return _asm("rcp.approx.f32 $0, $1;", "f", "f", False)


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Rounded once."""
    return _asm("fma.rn.f32 $0, $1, $2, $3;", "f", "fff", False)


@intrinsic
def greater(typingctx: Any, a: Any, b: Any) -> Any:
    """The greater of two; of one NaN, the other."""
    return _asm("max.f32 $0, $1, $2;", "f", "ff", False)


@intrinsic
def float_bits(typingctx: Any, x: Any) -> Any:
    """The same 32 bits as a whole number."""
    return _asm("mov.b32 $0, $1;", "r", "f", False)


@intrinsic
def bits_float(typingctx: Any, x: Any) -> Any:
    """The same 32 bits as a float."""
    return _asm("mov.b32 $0, $1;", "f", "r", False)


@intrinsic
def multiply(typingctx: Any, a: Any, b: Any) -> Any:
    """A product that no compiler joins with a sum."""
    return _asm("mul.rn.f32 $0, $1, $2;", "f", "ff", False)


@intrinsic
def multiply_wide(typingctx: Any, a: Any, b: Any) -> Any:
    """The high and the low word of a product of two words without a sign."""
    return _asm("mul.hi.u32 $0, $2, $3; mul.lo.u32 $1, $2, $3;", "rr", "rr", False)


@intrinsic
def nibbles_bf16(typingctx: Any, word: Any, magic: Any) -> Any:
    """Nibbles i and i + 4 of a word, i = 0 to 3, each under the high bits of a bfloat16 of a pair.

    With 0x43004300 that is 128 and the nibble; of a negative zero point, 0xC300C300.
    """
    text = "{ .reg .b32 t; lop3.b32 $0, $4, 983055, $5, 0xEA;"
    for i in range(1, 4):
        text += f" shr.u32 t, $4, {4 * i}; lop3.b32 ${i}, t, 983055, $5, 0xEA;"
    return _asm(text + " }", "rrrr", "rr", False)


@intrinsic
def add_bf16(typingctx: Any, a: Any, b: Any) -> Any:
    """The sums of two pairs of bfloat16."""
    # a multiply-add with 1, which 8.0 has already
    return _asm("{ .reg .b32 one; mov.b32 one, 1065369472; fma.rn.bf16x2 $0, $1, one, $2; }",
                "r", "rr", False)  # fmt: skip


@intrinsic
def pick_bytes(typingctx: Any, a: Any, b: Any, which: Any) -> Any:
    """Four of the eight bytes of a (0 to 3) and b (4 to 7): one for each nibble of which."""
    return _asm("prmt.b32 $0, $1, $2, $3;", "r", "rrr", False)


@device
def lane() -> Any:
    """This thread's place in its warp."""
    return cuda.laneid


@device
def shuffle_xor(value: Any, mask: Any) -> Any:
    """From the lane whose number differs in the bits of mask."""
    return cuda.shfl_xor_sync(_FULL, value, mask)


@device
def shuffle(value: Any, source: Any) -> Any:
    """From one lane."""
    return cuda.shfl_sync(_FULL, value, source)


@device
def ballot(condition: Any) -> Any:
    """A bit a lane."""
    return cuda.ballot_sync(_FULL, condition)


@device
def bits_set(x: Any) -> Any:
    """How many bits are set."""
    return cuda.popc(x)


@intrinsic
def shared_address(typingctx: Any, array: Any) -> Any:
    """Where a shared array begins, in bytes from the block's first shared byte."""
    sig, code = _asm(
        "{ .reg .u64 a; cvta.to.shared.u64 a, $1; cvt.u32.u64 $0, a; }", "r", "l", False
    )

    def codegen(context: Any, builder: Any, outer: Any, args: Any) -> Any:
        data = _data(context, builder, array, args[0])
        return code(context, builder, sig, [builder.ptrtoint(data, _LLVM["l"])])

    return signature(types.int32, array), codegen


@intrinsic
def copy_async16(typingctx: Any, to: Any, memory: Any, at: Any) -> Any:
    """Start copying 16 bytes to shared memory, past the registers."""
    sig, code = _asm("cp.async.cg.shared.global [$0], [$1], 16;", "", "rl", True)

    def codegen(context: Any, builder: Any, outer: Any, args: Any) -> Any:
        address = builder.gep(_data(context, builder, memory, args[1]), [args[2]])
        return code(context, builder, sig, [args[0], builder.ptrtoint(address, _LLVM["l"])])

    return signature(types.void, types.int32, memory, types.int64), codegen


@intrinsic
def copy_async16_if(typingctx: Any, to: Any, memory: Any, at: Any, size: Any) -> Any:
    """Start copying `size` of 16 bytes, and zeros for the others; with 0 the source is not read."""
    sig, code = _asm("cp.async.cg.shared.global [$0], [$1], 16, $2;", "", "rlr", True)

    def codegen(context: Any, builder: Any, outer: Any, args: Any) -> Any:
        address = builder.gep(_data(context, builder, memory, args[1]), [args[2]])
        return code(
            context, builder, sig, [args[0], builder.ptrtoint(address, _LLVM["l"]), args[3]]
        )

    return signature(types.void, types.int32, memory, types.int64, types.int32), codegen


@intrinsic
def copy_async4(typingctx: Any, near: Any, to: Any, memory: Any, at: Any) -> Any:
    """`copy_async16` of four numbers into a shared array."""
    sig, code = _asm(
        "{ .reg .u64 a; .reg .u32 b; cvta.to.shared.u64 a, $0; cvt.u32.u64 b, a; "
        "cp.async.cg.shared.global [b], [$1], 16; }", "", "ll", True,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, outer: Any, args: Any) -> Any:
        target = builder.gep(_data(context, builder, near, args[0]), [args[1]])
        source = builder.gep(_data(context, builder, memory, args[2]), [args[3]])
        numbers = [builder.ptrtoint(target, _LLVM["l"]), builder.ptrtoint(source, _LLVM["l"])]
        return code(context, builder, sig, numbers)

    return signature(types.void, near, types.int64, memory, types.int64), codegen


@intrinsic
def copy_async_bytes(typingctx: Any, near: Any, to: Any, memory: Any, at: Any) -> Any:
    """`copy_async16` between places in bytes: multiples of 16 in a shared array and in memory."""
    sig, code = _asm(
        "{ .reg .u64 a; .reg .u32 b; cvta.to.shared.u64 a, $0; cvt.u32.u64 b, a; add.u32 b, b, $1; "
        "cp.async.cg.shared.global [b], [$2], 16; }", "", "lrl", True,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, outer: Any, args: Any) -> Any:
        base = builder.ptrtoint(_data(context, builder, near, args[0]), _LLVM["l"])
        source = builder.ptrtoint(_data(context, builder, memory, args[2]), _LLVM["l"])
        return code(context, builder, sig, [base, args[1], builder.add(source, args[3])])

    return signature(types.void, near, types.int32, memory, types.int64), codegen


@intrinsic
def copy_commit(typingctx: Any) -> Any:
    """All copies started since the last commit are one group."""
    return _asm("cp.async.commit_group;", "", "", True)


@intrinsic
def copy_wait(typingctx: Any, groups: Any) -> Any:
    """Wait until no more than this many groups (a literal) are under way."""
    if not isinstance(groups, types.IntegerLiteral):
        raise shim.literal_needed(groups)
    _, code = _asm(f"cp.async.wait_group {groups.literal_value};", "", "", True)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return code(context, builder, sig, [])

    return signature(types.void, groups), codegen


@intrinsic
def cluster_arrive(typingctx: Any) -> Any:
    """Say to the blocks of this cluster that this thread has come here."""
    return _asm("barrier.cluster.arrive.release;", "", "", True)


@intrinsic
def cluster_wait(typingctx: Any) -> Any:
    """Wait until all threads of the cluster have arrived."""
    return _asm("barrier.cluster.wait.acquire;", "", "", True)


@intrinsic
def cluster_put(typingctx: Any, array: Any, at: Any, value: Any, block: Any) -> Any:
    """Write an int32 into the shared array of another block of the cluster."""
    sig, code = _asm(
        "{ .reg .u64 a; .reg .u32 b; cvta.to.shared.u64 a, $0; cvt.u32.u64 b, a; "
        "mapa.shared::cluster.u32 b, b, $2; st.shared::cluster.u32 [b], $1; }",
        "", "lrr", True,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, outer: Any, args: Any) -> Any:
        address = builder.gep(_data(context, builder, array, args[0]), [args[1]])
        number = builder.ptrtoint(address, _LLVM["l"])
        return code(context, builder, sig, [number, args[2], args[3]])

    return signature(types.void, array, types.int64, types.int32, types.int32), codegen


@intrinsic
def load_matrix4(typingctx: Any, address: Any) -> Any:
    """Four 8x8 matrices of 16 bits out of shared memory, as the tensor cores want them."""
    text = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$4];"
    return _asm(text, "rrrr", "r", True)


def _mma(shape: str, kind: str) -> str:
    return (
        f"mma.sync.aligned.{shape}.row.col.{kind} "
        "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
    )


@intrinsic
def mma_bf16(
    typingctx: Any,
    a0: Any,
    a1: Any,
    a2: Any,
    a3: Any,
    b0: Any,
    b1: Any,
    c0: Any,
    c1: Any,
    c2: Any,
    c3: Any,
) -> Any:
    """A 16x8 tile and the product of 16x16 with 16x8, bfloat16 into float32."""
    text = _mma("m16n8k16", "f32.bf16.bf16.f32")
    return _asm(text, "ffff", "rrrrrrffff", False)


@intrinsic
def mma_int8(
    typingctx: Any,
    a0: Any,
    a1: Any,
    a2: Any,
    a3: Any,
    b0: Any,
    b1: Any,
    c0: Any,
    c1: Any,
    c2: Any,
    c3: Any,
) -> Any:
    """A 16x8 tile and the product of 16x32 with 32x8, int8 into int32."""
    return _asm(_mma("m16n8k32", "s32.s8.s8.s32"), "rrrr", "rrrrrrrrrr", False)


@intrinsic
def mma_tf32(
    typingctx: Any,
    a0: Any,
    a1: Any,
    a2: Any,
    a3: Any,
    b0: Any,
    b1: Any,
    c0: Any,
    c1: Any,
    c2: Any,
    c3: Any,
) -> Any:
    """A 16x8 tile and the product of 16x8 with 8x8, float32 of which 10 bits of fraction count."""
    return _asm(_mma("m16n8k8", "f32.tf32.tf32.f32"), "ffff", "rrrrrrffff", False)
