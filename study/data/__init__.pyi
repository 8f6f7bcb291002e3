from .protocol import Dataset as Dataset
from .protocol import DatasetInfo as DatasetInfo
from .protocol import Split as Split
from .protocol import fingerprint as fingerprint
from .sources import Source as Source
from .sources import load_dataset as load_dataset
from .sources import open_source as open_source
from .sources import source_for as source_for
