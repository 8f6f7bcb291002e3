"""Claims in general: tests and effect sizes over data sets, from means over seeds.

The unit is the data set. Seeds are averaged within each data set first: cells of one data set are not independent, and
a test that treats them as independent finds differences that are not there.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
