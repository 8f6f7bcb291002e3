from .ledger import absent_cells as absent_cells
from .ledger import load_ledger as load_ledger
from .ledger import read_records as read_records
from .manifests import load_manifest as load_manifest
from .schema import validate_record as validate_record
