from .decisions import decide as decide
from .decisions import decide_all as decide_all
from .declared import Contrast as Contrast
from .verdict import DatasetDifference as DatasetDifference
from .verdict import Verdict as Verdict
