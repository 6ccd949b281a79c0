"""The tensor cores of compute capability 9.0, which a group of four warps drives together.

`wgmma` reads both operands from shared memory by itself and adds to registers of all 128 threads
while they go on: a product that was started is waited for later. A descriptor says where an
operand lies: here rows of 128 bytes along k, where piece c of 16 bytes of row r stands in place
c ^ (r % 8), and memory begins at a multiple of 1,024 bytes.

None has a twin for the simulator: what uses them is proved on a GPU. PTX with them needs the target
``sm_90a``, and runs on no other architecture.
"""

from __future__ import annotations

from typing import Any

from llcuda_kernels.cuda.runtime import shim

__all__ = ["add_products_bf16", "add_products_int8", "shared_ready", "store2", "wait", "wait_all"]

#: The upper word of a descriptor: groups of 8 rows are 1,024 bytes apart; pieces change places.
_UPPER = 0x40000040

add_products_bf16: Any = None
add_products_int8: Any = None
shared_ready: Any = None
store2: Any = None
wait: Any = None
wait_all: Any = None

if not shim.SIMULATED:
    from llcuda_kernels.cuda.runtime.shim import intrinsic, ir, signature, types

    def _ir(kind: Any) -> Any:
        return ir.FloatType() if kind == types.float32 else ir.IntType(32)

    def _on_all(count: int, text: str, given: int) -> Any:
        """Code that hands all of a local array to PTX and takes it back: it stays in registers."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = sig.args[0].dtype
            one, letter = _ir(kind), "f" if kind == types.float32 else "r"
            data = context.make_array(sig.args[0])(context, builder, value=args[0]).data
            places = [builder.gep(data, [ir.IntType(32)(i)]) for i in range(count)]
            before = [builder.load(place) for place in places]
            shape = ir.FunctionType(
                ir.LiteralStructType([one] * count),
                [ir.IntType(32)] * given + [one] * count,
            )
            constraints = [f"={letter}"] * count + ["r"] * given + [str(i) for i in range(count)]
            asm = ir.InlineAsm(shape, text, ",".join(constraints), side_effect=True)
            after = builder.call(asm, [*args[1:], *before])
            for i, place in enumerate(places):
                builder.store(builder.extract_value(after, i), place)
            return context.get_dummy_value()

        return codegen

    def _products(shape: str, kind: str, more: str, count: int) -> str:
        """Start adding the products of 64 rows of A with `2 count` of B, 128 bytes deep."""
        sums = ", ".join(f"${i}" for i in range(count))
        one = f"wgmma.mma_async.sync.aligned.{shape}.{kind} {{{sums}}}, a, b, 1{more};"
        on = " add.s64 a, a, 2; add.s64 b, b, 2; "
        return (
            "{ .reg .b64 a, b; .reg .b32 h; "
            f"mov.b32 h, {_UPPER}; mov.b64 a, {{${count}, h}}; mov.b64 b, {{${count + 1}, h}}; "
            f"wgmma.fence.sync.aligned; {on.join([one] * 4)} "
            "wgmma.commit_group.sync.aligned; }"
        )

    def _adding(kind: Any, shape: str, types_: str, more: str) -> Any:
        @intrinsic
        def add(typingctx: Any, sums: Any, a: Any, b: Any, count: Any) -> Any:
            """Add to `count` sums (a literal) a thread; a, b: shared addresses over 16, + 2¹⁶."""
            if not isinstance(count, types.IntegerLiteral):
                raise shim.literal_needed(count)
            number = count.literal_value
            text = _products(f"m64n{2 * number}{shape}", types_, more, number)
            code = _on_all(number, text, 2)

            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                return code(context, builder, sig, args[:3])

            return signature(types.void, sums, types.int32, types.int32, count), codegen

        return add

    add_products_bf16 = _adding(types.float32, "k16", "f32.bf16.bf16", ", 1, 1, 0, 0")
    add_products_int8 = _adding(types.int32, "k32", "s32.s8.s8", "")

    def _plain(text: str) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            shape = ir.FunctionType(ir.VoidType(), [])
            builder.call(ir.InlineAsm(shape, text, "~{memory}", side_effect=True), [])
            return context.get_dummy_value()

        return codegen

    @intrinsic
    def _shared_ready(typingctx: Any) -> Any:
        """What this thread wrote to shared memory may be read by tensor cores."""
        return signature(types.void), _plain("fence.proxy.async.shared::cta;")

    @intrinsic
    def _wait(typingctx: Any) -> Any:
        """Wait for all products but those of the last call."""
        return signature(types.void), _plain("wgmma.wait_group.sync.aligned 1;")

    @intrinsic
    def _wait_all(typingctx: Any, sums: Any, count: Any) -> Any:
        """Wait for all products: from here on the sums may be read."""
        if not isinstance(count, types.IntegerLiteral):
            raise shim.literal_needed(count)
        code = _on_all(count.literal_value, "wgmma.wait_group.sync.aligned 0;", 0)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return code(context, builder, sig, args[:1])

        return signature(types.void, sums, count), codegen

    @intrinsic
    def _store2(typingctx: Any, memory: Any, at: Any, a: Any, b: Any) -> Any:
        """Two neighbours in one store."""
        kind = memory.dtype

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = ir.VectorType(_ir(kind), 2)
            value = ir.Constant(vector, ir.Undefined)
            for i in range(2):
                value = builder.insert_element(value, args[2 + i], ir.IntType(32)(i))
            address = builder.gep(args[0], [args[1]])
            stored = builder.store(value, builder.bitcast(address, vector.as_pointer()))
            stored.align = 8
            return context.get_dummy_value()

        return signature(types.void, memory, types.int64, kind, kind), codegen

    shared_ready, wait, wait_all, store2 = _shared_ready, _wait, _wait_all, _store2
