"""What the fused kernels add to the scan's vectors: comparisons, and channels of two vectors that take turns."""

from typing import Any

from llvmlite import ir

from medmamba_variants.scan.cpu.vectors import full, intrinsic, ir_vector


@intrinsic
def at_least(typingctx: Any, value: Any, floor: Any) -> Any:
    """Return the larger of two vectors, lane by lane; NaN in the first stays."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return value(value, floor), generate


@intrinsic
def where_above(typingctx: Any, value: Any, floor: Any, other: Any) -> Any:
    """Return `other` in the lanes where the value lies above the floor (or is NaN), and zero elsewhere."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        below = builder.fcmp_ordered("<=", args[0], args[1])
        return builder.select(below, full(ir_vector(value), 0.0), args[2])

    return value(value, floor, other), generate


def _chosen(lanes: list[int]) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return builder.shuffle_vector(*args, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    return generate


@intrinsic(prefer_literal=True)
def zipped(typingctx: Any, first: Any, second: Any, half: Any) -> Any:
    """Return the lower or upper half (a literal 0 or 1) of two vectors' lanes taken in turns."""
    count, start = first.count, half.literal_value * first.count // 2
    lanes = [side + start + k for k in range(count // 2) for side in (0, count)]
    return first(first, second, half), lambda context, builder, sig, args: _chosen(lanes)(
        context, builder, sig, args[:2]
    )


@intrinsic(prefer_literal=True)
def unzipped(typingctx: Any, lower: Any, upper: Any, which: Any) -> Any:
    """Return every other lane of two neighbouring vectors, from the first or the second (a literal 0 or 1) on."""
    lanes = list(range(which.literal_value, 2 * lower.count, 2))
    return lower(lower, upper, which), lambda context, builder, sig, args: _chosen(lanes)(
        context, builder, sig, args[:2]
    )
