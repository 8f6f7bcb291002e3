"""Where randomness comes from: a generator that the caller passes, and nothing else."""

import numpy as np


def check_generator(rng: object) -> None:
    """Raises ValueError, one line, unless rng is a numpy Generator: a seed or None would hide what was drawn."""
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng must be a numpy Generator such as np.random.default_rng(0), got {type(rng).__name__}")
