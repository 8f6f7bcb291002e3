"""Elementary functions on vectors, sums over lanes, and integer memory for the CPU kernels: LLVM emitted by numba intrinsics."""

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from medmamba_variants.scan.cpu_vectors import FUSED, Vector, full, ir_vector

# 2^f on |f| ≤ ½ with value 1 at 0: the polynomial of least relative error (9.1e-8), from a linear program over 2001 points.
EXP2_FLOAT32 = (
    1.0,
    0.6931469775578204,
    0.24022242076983596,
    0.055507337776511095,
    0.009671513022336348,
    0.001326472036617338,
)
# In float64 the Taylor series: the first term left out is 4e-18.
EXP2_FLOAT64 = tuple(math.log(2) ** k / math.factorial(k) for k in range(14))
# log(1 + e) / e on 0 ≤ e ≤ 1 with value 1 at 0: least relative error (5.1e-9), found in the same way.
LOG1P_FLOAT32 = (
    1.0,
    -0.4999993353606848,
    0.3333053001684078,
    -0.24958755801729746,
    0.19696174810128939,
    -0.15357439802163592,
    0.10683781035036972,
    -0.057694540032194125,
    0.020219896147234327,
    -0.0033217463341650407,
)
# In float64 log(1 + e) = 2 artanh(s), s = e / (2 + e) ≤ ⅓: its series in s², the first term left out is 2e-18.
ARTANH_FLOAT64 = tuple(1 / (2 * k + 1) for k in range(17))


def _polynomial(builder: ir.IRBuilder, z: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    result = full(z.type, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = builder.fadd(builder.fmul(result, z, flags=FUSED), full(z.type, coefficient), flags=FUSED)
    return result


def _exp2(builder: ir.IRBuilder, z: ir.Value) -> ir.Value:
    """2^z = 2^r · 2^(z − r) with r the nearest integer, put into the exponent bits.

    Adding 1.5 · 2^mantissa rounds to an integer and leaves it in the low bits. Outside the exponent's range z is held at the
    ends, where the bits come out as exactly 0 and infinity. The comparisons are written so that NaN passes.
    """
    single = isinstance(z.type.element, ir.FloatType)
    mantissa, top = (23, 128) if single else (52, 1024)
    for limit, side in ((full(z.type, 1 - top), ">"), (full(z.type, top), "<")):
        z = builder.select(builder.fcmp_ordered(side, limit, z), limit, z)
    magic = full(z.type, 1.5 * 2**mantissa)
    shifted = builder.fadd(z, magic, flags=FUSED)
    fraction = builder.fsub(z, builder.fsub(shifted, magic, flags=FUSED), flags=FUSED)
    power = _polynomial(builder, fraction, EXP2_FLOAT32 if single else EXP2_FLOAT64)
    bits = ir.VectorType(ir.IntType(32 if single else 64), z.type.count)
    exponent = builder.shl(builder.bitcast(shifted, bits), ir.Constant(bits, [mantissa] * bits.count))
    return builder.bitcast(builder.add(builder.bitcast(power, bits), exponent), z.type)


def _exp_of_minus_absolute(builder: ir.IRBuilder, z: ir.Value) -> ir.Value:
    zero = full(z.type, 0.0)
    negative = builder.select(builder.fcmp_ordered("<", z, zero), z, builder.fneg(z))
    return _exp2(builder, builder.fmul(negative, full(z.type, math.log2(math.e)), flags=FUSED))


@intrinsic
def exp2(typingctx: Any, z: Any) -> Any:
    """Return 2^z: 0 below the exponent's range, infinity above, NaN for NaN; relative error 2e-7 (float32) or 2e-16 (float64)."""
    if not isinstance(z, Vector):
        return None
    return z(z), lambda context, builder, sig, args: _exp2(builder, args[0])


@intrinsic
def softplus(typingctx: Any, z: Any) -> Any:
    """Return log(1 + exp(z)) = max(z, 0) + log(1 + exp(−|z|)), to full relative accuracy for very negative z."""
    if not isinstance(z, Vector):
        return None

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        vector = ir_vector(z)
        e, zero = _exp_of_minus_absolute(builder, args[0]), full(vector, 0.0)
        # max(z, 0), written so that NaN passes.
        positive = builder.select(builder.fcmp_ordered("<", args[0], zero), zero, args[0])
        if z.element == types.float32:
            return builder.fadd(
                builder.fmul(_polynomial(builder, e, LOG1P_FLOAT32), e, flags=FUSED), positive, flags=FUSED
            )
        s = builder.fdiv(e, builder.fadd(full(vector, 2.0), e, flags=FUSED), flags=FUSED)
        series = _polynomial(builder, builder.fmul(s, s, flags=FUSED), ARTANH_FLOAT64)
        doubled = builder.fmul(s, full(vector, 2.0), flags=FUSED)
        return builder.fadd(builder.fmul(series, doubled, flags=FUSED), positive, flags=FUSED)

    return z(z), generate


@intrinsic
def sigmoid(typingctx: Any, z: Any) -> Any:
    """Return 1 / (1 + exp(−z)), the derivative of softplus; it shares softplus' exponential where both are asked for."""
    if not isinstance(z, Vector):
        return None

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        vector = ir_vector(z)
        e, one = _exp_of_minus_absolute(builder, args[0]), full(vector, 1.0)
        upper = builder.fdiv(one, builder.fadd(one, e, flags=FUSED), flags=FUSED)
        lower = builder.fmul(e, upper, flags=FUSED)
        return builder.select(builder.fcmp_ordered("<", args[0], full(vector, 0.0)), lower, upper)

    return z(z), generate


def _shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: list[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _pair(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, width: int) -> ir.Value:
    """Halve two vectors into one: within each block of 4 lanes, pieces of `width` lanes of a and b alternate (cheap shuffles)."""
    count = a.type.count
    low, high = [], []
    for block in range(0, count, 4):
        for start in range(0, 2, width):
            for side in (0, count):
                low += [side + block + start + k for k in range(width)]
                high += [side + block + 2 + start + k for k in range(width)]
    return builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high), flags=FUSED)


def _sums_of_four(builder: ir.IRBuilder, rows: list[ir.Value]) -> ir.Value:
    """Return the four lane sums of four vectors as one vector of four: a transposition of which only the additions remain."""
    result = _pair(builder, _pair(builder, rows[0], rows[1], 1), _pair(builder, rows[2], rows[3], 1), 2)
    while result.type.count > 4:
        half = result.type.count // 2
        lower = _shuffle(builder, result, result, list(range(half)))
        result = builder.fadd(lower, _shuffle(builder, result, result, list(range(half, 2 * half))), flags=FUSED)
    return result


def _sum(builder: ir.IRBuilder, row: ir.Value) -> ir.Value:
    while row.type.count > 1:
        half = row.type.count // 2
        lower = _shuffle(builder, row, row, list(range(half)))
        row = builder.fadd(lower, _shuffle(builder, row, row, list(range(half, 2 * half))), flags=FUSED)
    return builder.extract_element(row, ir.Constant(ir.IntType(32), 0))


@intrinsic(prefer_literal=True)
def put_sums(typingctx: Any, target: Any, offset: Any, source: Any, start: Any, rows: Any) -> Any:
    """Store the lane sums of `rows` (a literal) vectors, which lie at `start` of the source, as neighbours at an offset."""
    number = rows.literal_value

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        vector = ir_vector(source.vector)
        size = source.vector.element.bitwidth // 8
        first = builder.bitcast(builder.gep(args[2], [args[3]]), vector.as_pointer())
        loaded = [builder.load(builder.gep(first, [ir.Constant(ir.IntType(64), k)]), align=size) for k in range(number)]
        place = builder.gep(args[0], [args[1]])
        if number == 4 and vector.count >= 4:
            four = _sums_of_four(builder, loaded)
            builder.store(four, builder.bitcast(place, four.type.as_pointer()), align=size)
        else:
            for k, row in enumerate(loaded):
                builder.store(_sum(builder, row), builder.gep(place, [ir.Constant(ir.IntType(64), k)]))
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, rows), generate


@intrinsic(prefer_literal=True)
def whole(typingctx: Any, address: Any, offset: Any, bits: Any) -> Any:
    """Return the integer at an offset from an integer address; `bits` (a literal) is 8 (unsigned), 32 or 64."""
    width = bits.literal_value

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        kind, wanted = ir.IntType(width), ir.IntType(types.intp.bitwidth)
        value = builder.load(builder.gep(builder.inttoptr(args[0], kind.as_pointer()), [args[1]]))
        if width == wanted.width:
            return value
        return builder.zext(value, wanted) if width == 8 else builder.sext(value, wanted)

    return types.intp(types.intp, types.intp, bits), generate


@intrinsic
def put_whole(typingctx: Any, address: Any, offset: Any, number: Any) -> Any:
    """Store a 64-bit integer at an offset from an integer address."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        builder.store(args[2], builder.gep(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), [args[1]]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.int64), generate


@intrinsic
def take_ticket(typingctx: Any, address: Any) -> Any:
    """Return the 64-bit integer at an address and raise it by one, in one step that threads cannot share."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        counter = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.intp), generate
