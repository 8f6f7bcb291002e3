"""Operations of a network by what a count makes of them: free by convention, or with a formula of their own.

The convention stands in `medmamba_variants.cost`; what torch's counter knows by itself is not repeated here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torchvision.ops  # noqa: F401 - registers deform_conv2d
from torch.utils.flop_counter import sdpa_flop_count

from medmamba_variants.design.spectral.transforms import fft_macs

# Free by convention: layout, norms, activations, gates, pooling, sums, comparisons, indices and their
# arithmetic. Names are those of ATen operations.
FREE = frozenset(
    getattr(torch.ops.aten, name)
    for name in [
        "__rshift__",
        "_adaptive_avg_pool2d",
        "_safe_softmax",
        "_softmax",
        "_to_copy",
        "_unsafe_view",
        "_upsample_bilinear2d_aa",
        "abs",
        "add",
        "add_",
        "addcmul",
        "alias",
        "amax",
        "arange",
        "argmax",
        "as_strided",
        "avg_pool2d",
        "bernoulli",
        "bitwise_and",
        "bitwise_not",
        "bitwise_xor",
        "cat",
        "ceil",
        "celu",
        "clamp",
        "clamp_min",
        "clone",
        "col2im",
        "complex",
        "constant_pad_nd",
        "copy",
        "cos",
        "cummax",
        "cumsum",
        "detach",
        "div",
        "elu",
        "empty",
        "eq",
        "erf",
        "exp",
        "expand",
        "fill",
        "flip",
        "floor",
        "floor_divide",
        "gather",
        "ge",
        "gelu",
        "gt",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "im2col",
        "index",
        "index_add",
        "index_select",
        "le",
        "leaky_relu",
        "lift_fresh",
        "linalg_vector_norm",
        "log",
        "log1p",
        "log_sigmoid_forward",
        "lt",
        "masked_fill",
        "max",
        "max_pool2d_with_indices",
        "maximum",
        "mean",
        "min",
        "minimum",
        "mish",
        "mul",
        "native_batch_norm",
        "native_group_norm",
        "native_layer_norm",
        "ne",
        "neg",
        "new_ones",
        "new_zeros",
        "nonzero",
        "norm",
        "ones",
        "ones_like",
        "permute",
        "pixel_shuffle",
        "pixel_unshuffle",
        "pow",
        "prelu",
        "promote_types",
        "reciprocal",
        "reflection_pad2d",
        "relu",
        "remainder",
        "repeat",
        "roll",
        "round",
        "rsqrt",
        "rsub",
        "scatter",
        "select",
        "sigmoid",
        "sign",
        "silu",
        "sin",
        "slice",
        "softplus",
        "sort",
        "split",
        "split_with_sizes",
        "sqrt",
        "squeeze",
        "stack",
        "sub",
        "sum",
        "t",
        "tanh",
        "topk",
        "transpose",
        "triu",
        "unbind",
        "unfold",
        "unsafe_split",
        "unsqueeze",
        "upsample_bicubic2d",
        "upsample_bilinear2d",
        "upsample_nearest2d",
        "var_mean",
        "view",
        "view_as_complex",
        "view_as_real",
        "where",
        "zero",
        "zeros",
        "zeros_like",
    ]
)


def _attention_flops(
    query: Any, key: Any, value: Any, *options: Any, out_shape: Any = None, attn_mask: Any = None, scale: Any = None
) -> int:
    """Flops of softmax attention by the shapes of its arguments: its two products."""
    return int(sdpa_flop_count(query, key, value))


def _deformable_flops(images: Any, weight: Any, offset: Any, *options: Any, out_shape: Any = None) -> int:
    """Flops of a deformable convolution by the shapes of its arguments: bilinear samples of four pixels, and taps."""
    (batch, channels, _, _), (filters, channels_of_group, rows, columns), (_, _, height, width) = images, weight, offset
    samples = batch * channels * rows * columns * height * width
    taps = batch * filters * channels_of_group * rows * columns * height * width
    return int(2 * (4 * samples + taps))


def _fourier_flops(shape: Any, dims: Any, real: bool) -> int:
    """Flops of a fast Fourier transform of these axes of a tensor, whose shape counts all points of a real one."""
    points = math.prod(shape[dim] for dim in dims)
    return 2 * fft_macs(math.prod(shape) // points, points, real) if points else 0


def _fft_c2c_flops(x: Any, dims: Any, *options: Any, out_shape: Any = None) -> int:
    return _fourier_flops(x, dims, real=False)


def _fft_r2c_flops(x: Any, dims: Any, *options: Any, out_shape: Any = None) -> int:
    return _fourier_flops(x, dims, real=True)


def _fft_c2r_flops(x: Any, dims: Any, *options: Any, out_shape: Any = None) -> int:
    return _fourier_flops(out_shape, dims, real=True)


# What torch's counter does not know, or on other devices only, and an operation of torchvision.
FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.torchvision.deform_conv2d: _deformable_flops,
    torch.ops.aten._fft_c2c: _fft_c2c_flops,
    torch.ops.aten._fft_r2c: _fft_r2c_flops,
    torch.ops.aten._fft_c2r: _fft_c2r_flops,
}

ALIKE = frozenset(getattr(torch.ops.aten, name) for name in ["exp", "gelu", "relu", "sigmoid", "silu", "softplus"])
NORMS = frozenset(
    getattr(torch.ops.aten, name) for name in ["_native_batch_norm_legit_no_training", "native_layer_norm"]
)


def shape_alone(packet: Any, args: tuple[Any, ...]) -> Any:
    """What a free operation gives on the meta device, where that is plain; None elsewhere.

    Torch finds the shapes of a norm or an activation by working through it in Python, which took half of a count.
    """
    first = args[0] if args else None
    if not isinstance(first, torch.Tensor) or not first.is_meta or not first.is_floating_point():
        return None
    if packet in ALIKE:
        return torch.empty_like(first)
    if packet in NORMS:
        # Without training nobody reads the statistics.
        return torch.empty_like(first), first.new_empty(0), first.new_empty(0)
    return None
