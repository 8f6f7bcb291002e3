"""CPU kernel that adds up what tasks have summed apart."""

from numba.core.ccallback import CFunc

from medmamba_variants.scan.cpu.functions import wholes
from medmamba_variants.scan.cpu.kernels import c_function
from medmamba_variants.scan.cpu.vectors import Lanes, item, pointer, put_item, read, width_of, write


def sum_kernel(lanes: Lanes) -> CFunc:
    """Return the kernel that sums parts (tasks, groups, padded channels) over tasks, in order.

    The result goes to group · group_stride + channel · channel_stride; the first part is overwritten. It runs on a
    single thread.
    """

    def fused_sum(arguments):
        parts_at, result_at, tasks, groups, channels, group_stride, channel_stride = wholes(arguments, 7)
        width, parts, result = width_of(lanes), pointer(parts_at, lanes), pointer(result_at, lanes)
        padded = (channels + width - 1) // width * width
        size = groups * padded
        for at in range(0, size, width):
            total = read(parts, at, None)
            for task in range(1, tasks):
                total = total + read(parts, task * size + at, None)
            write(parts, at, total, None)
        for group in range(groups):
            for d in range(channels):
                put_item(result, group * group_stride + d * channel_stride, item(parts, group * padded + d))

    return c_function(fused_sum)
