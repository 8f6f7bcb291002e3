"""Elementary functions on vectors, sums over lanes, and integers in memory, for the CPU kernels."""

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from medmamba_variants.scan.cpu.vectors import ABREAST, FUSED, Vector, full, intrinsic, ir_vector

# 2^f on |f| ≤ ½ with value 1 at 0: the least relative error (9.1e-8), from a linear program over 2001 points.
EXP2_FLOAT32 = (
    1.0,
    0.6931469775578204,
    0.24022242076983596,
    0.055507337776511095,
    0.009671513022336348,
    0.001326472036617338,
)
# 2^(f − ½) on 0 ≤ f ≤ 1 with the float32 value 1 at ½, by such a program (1.03e-7) that also held the deviation
# under 6e-7 · ln 2 · |f − ½|, so that slow decays keep their rate; rounded to float32 one coefficient after the other.
EXP2_FLOAT32_SHIFTED = (
    0.7071067094802856,
    0.490133672952652,
    0.1698114275932312,
    0.03947931155562401,
    0.006355572491884232,
    0.0013267346657812595,
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


def _polynomials(builder: ir.IRBuilder, z: list[ir.Value], coefficients: tuple[float, ...]) -> list[ir.Value]:
    results = [full(z[0].type, coefficients[-1])] * len(z)
    for coefficient in reversed(coefficients[:-1]):
        term = full(z[0].type, coefficient)
        results = [
            builder.fadd(builder.fmul(result, one, flags=FUSED), term, flags=FUSED) for result, one in zip(results, z)
        ]
    return results


def _exp2(builder: ir.IRBuilder, z: list[ir.Value]) -> list[ir.Value]:
    """2^z = 2^r · 2^(z − r) with r the nearest integer, by polynomial and exponent.

    Below the exponent's range the result is 0, above it infinity, and NaN for NaN. The vectors advance side by side:
    one alone is a long chain in which each instruction waits for the one before.
    """
    kind = z[0].type
    single = isinstance(kind.element, ir.FloatType)
    coefficients = EXP2_FLOAT32 if single else EXP2_FLOAT64
    if kind.count * (4 if single else 8) == 64:
        # AVX-512 has both halves of the work as instructions, for which no z is out of range.
        if single:
            # scalef takes the floor itself, and the floor of z + ½ is the integer nearest to z.
            half = full(kind, 0.5)
            z = [builder.fadd(one, half, flags=FUSED) for one in z]
            fractions = _avx512(builder, "reduce", [(one, ir.IntType(32)(1)) for one in z])
            return _avx512(builder, "scalef", list(zip(_polynomials(builder, fractions, EXP2_FLOAT32_SHIFTED), z)))
        fractions = _avx512(builder, "reduce", [(one, ir.IntType(32)(0)) for one in z])
        wholes = [builder.fsub(*pair, flags=FUSED) for pair in zip(z, fractions)]
        return _avx512(builder, "scalef", list(zip(_polynomials(builder, fractions, coefficients), wholes)))
    mantissa, top = (23, 128) if single else (52, 1024)
    # At these ends the bits come out as exactly 0 and infinity. The comparisons are written so that NaN passes.
    for limit, side in ((full(kind, 1 - top), ">"), (full(kind, top), "<")):
        z = [builder.select(builder.fcmp_ordered(side, limit, one), limit, one) for one in z]
    # Adding 1.5 · 2^mantissa rounds to an integer and leaves it in the low bits, from where it goes to the exponent's.
    magic = full(kind, 1.5 * 2**mantissa)
    shifted = [builder.fadd(one, magic, flags=FUSED) for one in z]
    rounded = [builder.fsub(one, magic, flags=FUSED) for one in shifted]
    fractions = [builder.fsub(*pair, flags=FUSED) for pair in zip(z, rounded)]
    powers = _polynomials(builder, fractions, coefficients)
    bits = ir.VectorType(ir.IntType(32 if single else 64), kind.count)
    by = ir.Constant(bits, [mantissa] * kind.count)
    exponents = [builder.shl(builder.bitcast(one, bits), by) for one in shifted]
    sums = [builder.add(builder.bitcast(power, bits), one) for power, one in zip(powers, exponents)]
    return [builder.bitcast(one, kind) for one in sums]


def _avx512(builder: ir.IRBuilder, name: str, operands: list[tuple[ir.Value, ir.Value]]) -> list[ir.Value]:
    """z less the nearest integer or ⌊z⌋ for ("reduce", (z, 0 or 1)); p · 2^⌊w⌋ for ("scalef", (p, w))."""
    kind = operands[0][0].type
    suffix = "ps" if isinstance(kind.element, ir.FloatType) else "pd"
    # After the operands: what lanes outside the mask keep, the mask (all lanes), the rounding (as the processor does).
    rest = [full(kind, 0.0), ir.IntType(kind.count)(-1), ir.IntType(32)(4)]
    results = []
    for pair in operands:
        arguments = [*pair, *rest]
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind, [argument.type for argument in arguments]),
            f"llvm.x86.avx512.mask.{name}.{suffix}.512",
        )
        results.append(builder.call(function, arguments))
    return results


def _exp_of_minus_absolute(builder: ir.IRBuilder, z: list[ir.Value]) -> list[ir.Value]:
    zero, log2e = full(z[0].type, 0.0), full(z[0].type, math.log2(math.e))
    negative = [builder.select(builder.fcmp_ordered("<", one, zero), one, builder.fneg(one)) for one in z]
    return _exp2(builder, [builder.fmul(one, log2e, flags=FUSED) for one in negative])


def _softplus(builder: ir.IRBuilder, z: list[ir.Value]) -> list[ir.Value]:
    """log(1 + exp(z)) = max(z, 0) + log(1 + exp(−|z|)): full relative accuracy for very negative z, NaN for NaN."""
    kind = z[0].type
    zero = full(kind, 0.0)
    e = _exp_of_minus_absolute(builder, z)
    if isinstance(kind.element, ir.FloatType):
        factors, logarithms = e, _polynomials(builder, e, LOG1P_FLOAT32)
    else:
        two = full(kind, 2.0)
        s = [builder.fdiv(one, builder.fadd(two, one, flags=FUSED), flags=FUSED) for one in e]
        factors = [builder.fmul(one, two, flags=FUSED) for one in s]
        logarithms = _polynomials(builder, [builder.fmul(one, one, flags=FUSED) for one in s], ARTANH_FLOAT64)
    products = [builder.fmul(*pair, flags=FUSED) for pair in zip(factors, logarithms)]
    # max(z, 0), written so that NaN passes.
    positive = [builder.select(builder.fcmp_ordered("<", one, zero), zero, one) for one in z]
    return [builder.fadd(*pair, flags=FUSED) for pair in zip(products, positive)]


def _sigmoid(builder: ir.IRBuilder, z: list[ir.Value]) -> list[ir.Value]:
    """1 / (1 + exp(−z)), the derivative of softplus; LLVM finds that both need the same exponential."""
    zero, unity = full(z[0].type, 0.0), full(z[0].type, 1.0)
    e = _exp_of_minus_absolute(builder, z)
    upper = [builder.fdiv(unity, builder.fadd(unity, one, flags=FUSED), flags=FUSED) for one in e]
    lower = [builder.fmul(*pair, flags=FUSED) for pair in zip(e, upper)]
    return [builder.select(builder.fcmp_ordered("<", one, zero), *pair) for one, *pair in zip(z, lower, upper)]


def _neighbours(builder: ir.IRBuilder, start: ir.Value, vector: Vector, count: int) -> list[ir.Value]:
    first = builder.bitcast(start, ir_vector(vector).as_pointer())
    return [builder.gep(first, [ir.Constant(ir.IntType(64), j)]) for j in range(count)]


@intrinsic
def put_exp2(typingctx: Any, target: Any, factor: Any, source: Any, lanes: Any) -> Any:
    """Store 2^(factor · source[j]) to target[j] for as many vectors j as the group has states, at most ABREAST.

    The relative error is 2e-7 or 2e-16; 0 below the exponent's range, infinity above it, and NaN for NaN.
    """
    number, size = min(lanes.lanes.group, ABREAST), lanes.lanes.element_bytes

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        rates = [builder.load(at, align=size) for at in _neighbours(builder, args[2], source.vector, number)]
        results = _exp2(builder, [builder.fmul(args[1], one, flags=FUSED) for one in rates])
        for result, at in zip(results, _neighbours(builder, args[0], source.vector, number)):
            builder.store(result, at, align=size)
        return context.get_dummy_value()

    return types.void(target, source.vector, source, lanes), generate


def _elementwise(function: Callable[[ir.IRBuilder, list[ir.Value]], list[ir.Value]]) -> Callable:
    def typed(typingctx: Any, target: Any, source: Any, lanes: Any) -> Any:
        size = lanes.lanes.element_bytes

        def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
            loaded = [builder.load(at, align=size) for at in _neighbours(builder, args[1], source.vector, ABREAST)]
            for result, at in zip(function(builder, loaded), _neighbours(builder, args[0], source.vector, ABREAST)):
                builder.store(result, at, align=size)
            return context.get_dummy_value()

        return types.void(target, source, lanes), generate

    return typed


@intrinsic
def put_softplus(typingctx: Any, target: Any, source: Any, lanes: Any) -> Any:
    """Store softplus(source[j]) to target[j] for ABREAST vectors j."""
    return _elementwise(_softplus)(typingctx, target, source, lanes)


@intrinsic
def put_sigmoid(typingctx: Any, target: Any, source: Any, lanes: Any) -> Any:
    """Store 1 / (1 + exp(−source[j])) to target[j] for ABREAST vectors j."""
    return _elementwise(_sigmoid)(typingctx, target, source, lanes)


def _shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: list[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _pair(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, width: int) -> ir.Value:
    """Halve two vectors into one: in each block of 4 lanes, pieces of `width` lanes of a and b take turns."""
    count = a.type.count
    low, high = [], []
    for block in range(0, count, 4):
        for start in range(0, 2, width):
            for side in (0, count):
                low += [side + block + start + k for k in range(width)]
                high += [side + block + 2 + start + k for k in range(width)]
    return builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high), flags=FUSED)


def _sums_of_eight(builder: ir.IRBuilder, rows: list[ir.Value]) -> ir.Value:
    """Return the lane sums of eight vectors as one vector: a transposition of which only the additions remain."""
    first, second = (
        _pair(builder, _pair(builder, a, b, 1), _pair(builder, c, d, 1), 2) for a, b, c, d in (rows[:4], rows[4:])
    )
    half = first.type.count // 2
    if half == 2:
        return _shuffle(builder, first, second, list(range(8)))
    # In both vectors the parts of four sums repeat: fold the first into the lower half, the second into the upper.
    sides = [[start + k for start in (side, 2 * half + side) for k in range(half)] for side in (0, half)]
    result = builder.fadd(*(_shuffle(builder, first, second, side) for side in sides), flags=FUSED)
    while half > 4:
        quarter = half // 2
        sides = [[start + k for start in (side, half + side) for k in range(quarter)] for side in (0, quarter)]
        result = builder.fadd(*(_shuffle(builder, result, result, side) for side in sides), flags=FUSED)
        half = quarter
    return result


def _sum(builder: ir.IRBuilder, row: ir.Value) -> ir.Value:
    while row.type.count > 1:
        half = row.type.count // 2
        parts = [_shuffle(builder, row, row, [start + k for k in range(half)]) for start in (0, half)]
        row = builder.fadd(*parts, flags=FUSED)
    return builder.extract_element(row, ir.Constant(ir.IntType(32), 0))


@intrinsic
def sum_of(typingctx: Any, row: Any) -> Any:
    """Return the sum of a vector's lanes."""
    return row.element(row), lambda context, builder, sig, args: _sum(builder, args[0])


@intrinsic
def add_sums(typingctx: Any, target: Any, offset: Any, first: Any, second: Any, lanes: Any) -> Any:
    """Add the lane sums of two groups of vectors to neighbours at an offset of the target."""
    group, size = lanes.lanes.group, lanes.lanes.element_bytes

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        at = [*_neighbours(builder, args[2], first.vector, group), *_neighbours(builder, args[3], second.vector, group)]
        rows = [builder.load(one, align=size) for one in at]
        place = builder.gep(args[0], [args[1]])
        if len(rows) == 8 and first.vector.count >= 4:
            sums = _sums_of_eight(builder, rows)
            place = builder.bitcast(place, sums.type.as_pointer())
            builder.store(builder.fadd(builder.load(place, align=size), sums, flags=FUSED), place, align=size)
        else:
            for k, row in enumerate(rows):
                one = builder.gep(place, [ir.Constant(ir.IntType(64), k)])
                builder.store(builder.fadd(builder.load(one), _sum(builder, row), flags=FUSED), one)
        return context.get_dummy_value()

    return types.void(target, types.intp, first, second, lanes), generate


@intrinsic(prefer_literal=True)
def whole(typingctx: Any, address: Any, offset: Any, bits: Any) -> Any:
    """Return the integer at an offset from an integer address; `bits` (a literal) is 8 (unsigned), 32 or 64."""
    width = bits.literal_value

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        kind, wanted = ir.IntType(width), ir.IntType(64)
        value = builder.load(builder.gep(builder.inttoptr(args[0], kind.as_pointer()), [args[1]]))
        if width == 64:
            return value
        return builder.zext(value, wanted) if width == 8 else builder.sext(value, wanted)

    return types.intp(types.intp, types.intp, bits), generate


@intrinsic(prefer_literal=True)
def wholes(typingctx: Any, address: Any, count: Any) -> Any:
    """Return the first `count` (a literal) 64-bit integers at an integer address as a tuple."""
    result = types.UniTuple(types.intp, count.literal_value)

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        first, index = builder.inttoptr(args[0], ir.IntType(64).as_pointer()), ir.IntType(64)
        return context.make_tuple(
            builder, sig.return_type, [builder.load(builder.gep(first, [index(j)])) for j in range(result.count)]
        )

    return result(types.intp, count), generate


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
