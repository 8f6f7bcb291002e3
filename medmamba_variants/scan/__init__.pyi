from .backends import use_backend as use_backend
from .op import ss2d_scan as ss2d_scan
from .selective import selective_scan as selective_scan
