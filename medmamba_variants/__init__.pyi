from .checkpoints import load_public_state_dict as load_public_state_dict
from .config import PRESETS as PRESETS
from .config import VariantConfig as VariantConfig
from .config import preset as preset
from .cost import Cost as Cost
from .cost import Measurement as Measurement
from .cost import count_cost as count_cost
from .cost import measure_latency as measure_latency
from .design.axes import AXES as AXES
from .model import MedMambaVariant as MedMambaVariant
from .model import build_model as build_model
from .scan.backends import use_backend as use_backend
from .scan.op import ss2d_scan as ss2d_scan
from .scan.paths import (
    ScanPath as ScanPath,
)
from .scan.paths import (
    custom_path as custom_path,
)
from .scan.paths import (
    scan_path as scan_path,
)
from .scan.paths import (
    window_path as window_path,
)
from .scan.selective import selective_scan as selective_scan
from .systems.registry import SYSTEMS as SYSTEMS
from .systems.system import System as System
