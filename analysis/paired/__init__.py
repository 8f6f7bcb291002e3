"""Tests of two models on the same test images: claims about these weights, or about this data set.

`delong`, `bootstrap_difference`, `randomisation_difference` and `mcnemar` hold the trained weights fixed and draw the
test images anew; `two_level_bootstrap` draws seeds and test images. None of them says anything about other data sets:
see `analysis.across`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
