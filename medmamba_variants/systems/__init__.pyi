from .registry import SYSTEMS as SYSTEMS
from .system import System as System
