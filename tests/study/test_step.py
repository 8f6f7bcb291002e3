"""What stands around a training step: clipping as torch does it, and memory that is kept."""

import math

import pytest
import torch
from torch import nn

from study.training.allocator import _glibc, keep_freed_memory
from study.training.clipping import clip_gradients


@pytest.mark.parametrize("scale", [1e-3, 5.0, math.inf, math.nan])
def test_clipping_is_torchs_to_the_bit(scale):
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) * scale for shape in ((3, 4), (7,), (2, 1, 3), ())]
    pairs = []
    for clip in (clip_gradients, nn.utils.clip_grad_norm_):
        parameters = [nn.Parameter(torch.zeros(value.shape)) for value in values]
        for parameter, value in zip(parameters, values):
            parameter.grad = value.clone()
        norm = clip([*parameters, nn.Parameter(torch.zeros(2))], 1.0)
        pairs.append([norm, *(parameter.grad for parameter in parameters)])
    for mine, other in zip(*pairs):
        torch.testing.assert_close(mine, other, rtol=0, atol=0, equal_nan=True)
    assert clip_gradients([nn.Parameter(torch.zeros(2))], 1.0) == 0


@pytest.mark.skipif(_glibc() is None, reason="another C library than glibc")
def test_freed_memory_is_kept_for_the_next_step():
    import resource

    assert keep_freed_memory()

    def faults():
        # Several, so that the heap's end is free in between.
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(1 << 20) for _ in range(4)]
        del tensors
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    # Fresh pages would be 4,096 of 4 kB.
    assert min(faults() for _ in range(5)) < 1024
