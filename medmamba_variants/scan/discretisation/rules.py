"""The names of the rules of discretisation; what they say stands in `factors`, which needs torch."""

RULES = ("mamba", "zoh", "bilinear", "foh")
