"""Machine vectors inside numba kernels: a vector type, a pointer type, and the elementary functions the scan needs.

numba has no vector type; LLVM, which compiles its code, has. The intrinsics below emit LLVM vector instructions, so a
kernel written in Python computes with whole registers, whatever the automatic vectoriser thinks of the loop around it.
"""

import operator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.core.errors import TypingError
from numba.core.imputils import lower_builtin, lower_constant
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import typeof_impl

# A multiplication and an addition may become one fused instruction; nothing else changes, so NaN and infinity survive.
FUSED = ("contract",)
# How many vectors the functions of one argument take at once, and how many an array of registers has at least: enough
# independent work to fill the time in which each instruction waits for the one before.
ABREAST = 4

# In kernels an intrinsic is called without its first parameter, which a type checker cannot know.
intrinsic: Any = numba_intrinsic


@cache
def vector_bytes() -> int:
    """Return the widest vector register, in bytes, of the processor that numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    enabled = set(features.split(","))
    if triple.startswith(("x86_64", "i686")):
        return 64 if "+avx512dq" in enabled else 32 if "+avx" in enabled else 16
    return 16


@dataclass(frozen=True)
class Lanes:
    """The compile-time choices of a kernel.

    Bytes of an element, elements in a vector, whether the last vector of a row may be partial, how many states pass
    through a chunk side by side (it must divide d_state), and whether delta is a factor of low rank.
    `revision` takes no part in the computation. numba stores a compiled kernel under a hash of the values its closure
    holds, and looks at the modification time of one file only: the sources' digest keeps stale code from being loaded.
    """

    element_bytes: int
    count: int
    partial: bool
    group: int
    factored: bool
    revision: str

    @property
    def element(self) -> types.Float:
        return types.float32 if self.element_bytes == 4 else types.float64


class LanesType(types.Type):
    def __init__(self, lanes: Lanes):
        self.lanes = lanes
        super().__init__(repr(lanes))


class Vector(types.Type):
    """A register of `count` floats."""

    def __init__(self, element: types.Float, count: int):
        self.element, self.count = element, count
        super().__init__(f"Vector({element}, {count})")


class Mask(types.Type):
    """A register of `count` truth values: the lanes of a partial vector that exist."""

    def __init__(self, count: int):
        self.count = count
        super().__init__(f"Mask({count})")


class Pointer(types.Type):
    """An address whose offsets count elements; `vector` is what a read yields."""

    def __init__(self, vector: Vector):
        self.vector = vector
        super().__init__(f"Pointer({vector})")


def _ir_element(element: types.Float) -> ir.Type:
    return ir.FloatType() if element == types.float32 else ir.DoubleType()


def ir_vector(vector: Vector) -> ir.VectorType:
    return ir.VectorType(_ir_element(vector.element), vector.count)


@register_default(LanesType)
class _LanesModel(models.OpaqueModel):
    pass


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Vector):
        super().__init__(manager, numba_type, ir_vector(numba_type))


@register_default(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Mask):
        super().__init__(manager, numba_type, ir.VectorType(ir.IntType(1), numba_type.count))


@register_default(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Pointer):
        super().__init__(manager, numba_type, _ir_element(numba_type.vector.element).as_pointer())


@typeof_impl.register(Lanes)
def _typeof_lanes(value: Lanes, context: Any) -> LanesType:
    return LanesType(value)


@lower_constant(LanesType)
def _constant_lanes(context: Any, builder: ir.IRBuilder, numba_type: LanesType, value: Lanes) -> Any:
    return context.get_dummy_value()


def _splat(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    if isinstance(scalar, ir.Constant):
        return ir.Constant(vector, [scalar.constant] * vector.count)
    zero = ir.Constant(ir.IntType(32), 0)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, zero)
    return builder.shuffle_vector(
        first, first, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    )


def full(vector: ir.VectorType, number: float) -> ir.Constant:
    # float32 constants are rounded here: LLVM accepts only values which the type holds exactly.
    exact = float(np.float32(number)) if isinstance(vector.element, ir.FloatType) else float(number)
    return ir.Constant(vector, [exact] * vector.count)


@infer_global(operator.add)
@infer_global(operator.sub)
@infer_global(operator.mul)
class _VectorArithmetic(AbstractTemplate):
    """Vector ∘ vector of the same type."""

    def generic(self, args: tuple, kws: dict) -> Any:
        if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
            return signature(args[0], *args)
        return None


@lower_builtin(operator.add, Vector, Vector)
def _add(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
    return builder.fadd(*args, flags=FUSED)


@lower_builtin(operator.sub, Vector, Vector)
def _sub(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
    return builder.fsub(*args, flags=FUSED)


@lower_builtin(operator.mul, Vector, Vector)
def _mul(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
    return builder.fmul(*args, flags=FUSED)


@intrinsic
def splat(typingctx: Any, number: Any, like: Any) -> Any:
    """Return a vector that holds `number` in every lane; `like` is any vector or pointer of the wanted kind."""
    vector = like.vector if isinstance(like, Pointer) else like

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        scalar = context.cast(builder, args[0], sig.args[0], vector.element)
        return _splat(builder, scalar, ir_vector(vector))

    return vector(number, like), generate


@intrinsic
def pointer(typingctx: Any, address: Any, lanes: Any) -> Any:
    """Return the Pointer to the floats at an integer address."""
    if not isinstance(lanes, LanesType):
        raise TypingError(f"lanes must be Lanes, got {lanes}")
    result = Pointer(Vector(lanes.lanes.element, lanes.lanes.count))

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return builder.inttoptr(args[0], _ir_element(result.vector.element).as_pointer())

    return result(types.intp, lanes), generate


@intrinsic
def past(typingctx: Any, start: Any, offset: Any) -> Any:
    """Return the Pointer that lies `offset` elements further."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return builder.gep(args[0], [args[1]])

    return start(start, types.intp), generate


@intrinsic
def registers(typingctx: Any, lanes: Any) -> Any:
    """Return the Pointer to a vector per state of the group, at least ABREAST; with constant offsets, registers."""
    result = Pointer(Vector(lanes.lanes.element, lanes.lanes.count))
    number = max(lanes.lanes.group, ABREAST)

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        slot = cgutils.alloca_once(builder, ir.ArrayType(ir_vector(result.vector), number))
        return builder.bitcast(slot, _ir_element(result.vector.element).as_pointer())

    return result(lanes), generate


@intrinsic
def width_of(typingctx: Any, lanes: Any) -> Any:
    """Return how many elements a vector has, as a constant."""
    return types.intp(lanes), lambda context, builder, sig, args: context.get_constant(types.intp, lanes.lanes.count)


@intrinsic
def group_of(typingctx: Any, lanes: Any) -> Any:
    """Return how many states pass through a chunk side by side, as a constant."""
    return types.intp(lanes), lambda context, builder, sig, args: context.get_constant(types.intp, lanes.lanes.group)


@intrinsic
def is_factored(typingctx: Any, lanes: Any) -> Any:
    """Return whether delta is a factor of low rank, as a constant."""
    return types.boolean(lanes), lambda context, builder, sig, args: context.get_constant(
        types.boolean, lanes.lanes.factored
    )


@intrinsic
def item(typingctx: Any, source: Any, offset: Any) -> Any:
    """Return the one float at an offset."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return builder.load(builder.gep(args[0], [args[1]]))

    return source.vector.element(source, types.intp), generate


@intrinsic
def put_item(typingctx: Any, target: Any, offset: Any, number: Any) -> Any:
    """Store one float at an offset."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(target, types.intp, target.vector.element), generate


@intrinsic
def copy_group(typingctx: Any, target: Any, to: Any, source: Any, offset: Any, lanes: Any) -> Any:
    """Copy one element per state of the group, all at once."""
    size = lanes.lanes.element_bytes

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        kind = ir.VectorType(_ir_element(lanes.lanes.element), lanes.lanes.group).as_pointer()
        loaded = builder.load(builder.bitcast(builder.gep(args[2], [args[3]]), kind), align=size)
        builder.store(loaded, builder.bitcast(builder.gep(args[0], [args[1]]), kind), align=size)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, lanes), generate


@intrinsic
def spread(typingctx: Any, source: Any, offset: Any) -> Any:
    """Return the one float at an offset in every lane."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return _splat(builder, builder.load(builder.gep(args[0], [args[1]])), ir_vector(source.vector))

    return source.vector(source, types.intp), generate


def _vector_address(builder: ir.IRBuilder, address: ir.Value, offset: ir.Value, vector: ir.VectorType) -> ir.Value:
    return builder.bitcast(builder.gep(address, [offset]), vector.as_pointer())


@intrinsic
def present(typingctx: Any, remaining: Any, lanes: Any) -> Any:
    """Return the Mask of the first `remaining` lanes, or None when the kernel has whole vectors only."""
    if not lanes.lanes.partial:
        return types.none(types.intp, lanes), lambda context, builder, sig, args: context.get_dummy_value()
    count = lanes.lanes.count

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        wide = ir.VectorType(ir.IntType(64), count)
        return builder.icmp_signed("<", ir.Constant(wide, list(range(count))), _splat(builder, args[0], wide))

    return Mask(count)(types.intp, lanes), generate


@intrinsic(prefer_literal=True)
def prefetch(typingctx: Any, source: Any, offset: Any, to_write: Any) -> Any:
    """Ask for the cache line at an offset, to_write (a literal 0 or 1); the address need not exist."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        address, flag = builder.bitcast(builder.gep(args[0], [args[1]]), ir.IntType(8).as_pointer()), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag]), "llvm.prefetch.p0"
        )
        # To be kept in all caches; data, not instructions.
        builder.call(function, [address, flag(to_write.literal_value), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(source, types.intp, to_write), generate


@intrinsic
def kept(typingctx: Any, value: Any, mask: Any) -> Any:
    """Return the vector with zeros in the lanes outside the mask (None: all lanes stay)."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        return builder.select(args[1], args[0], full(ir_vector(value), 0.0)) if isinstance(mask, Mask) else args[0]

    return value(value, mask), generate


def _masked(
    builder: ir.IRBuilder, name: str, result: ir.Type, vector: ir.VectorType, operands: list[ir.Value]
) -> ir.Value:
    suffix = f"v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}"
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(result, [operand.type for operand in operands]),
        f"llvm.masked.{name}.{suffix}.p0",
    )
    return builder.call(function, operands)


@intrinsic
def read(typingctx: Any, source: Any, offset: Any, mask: Any) -> Any:
    """Return the vector at an offset; lanes outside the mask (None: all) are zero, their memory is not touched."""
    vector = ir_vector(source.vector)
    align = source.vector.element.bitwidth // 8

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        address = _vector_address(builder, args[0], args[1], vector)
        if isinstance(mask, Mask):
            alignment = ir.Constant(ir.IntType(32), align)
            return _masked(builder, "load", vector, vector, [address, alignment, args[2], full(vector, 0.0)])
        return builder.load(address, align=align)

    return source.vector(source, types.intp, mask), generate


@intrinsic
def write(typingctx: Any, target: Any, offset: Any, value: Any, mask: Any) -> Any:
    """Store a vector at an offset; lanes outside the mask (None: all lanes) are left as they are."""
    vector = ir_vector(target.vector)
    align = target.vector.element.bitwidth // 8

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        address = _vector_address(builder, args[0], args[1], vector)
        if isinstance(mask, Mask):
            alignment = ir.Constant(ir.IntType(32), align)
            _masked(builder, "store", ir.VoidType(), vector, [args[2], address, alignment, args[3]])
        else:
            builder.store(args[2], address, align=align)
        return context.get_dummy_value()

    return types.void(target, types.intp, target.vector, mask), generate
