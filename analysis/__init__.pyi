from .across.effects import iqm as iqm
from .across.effects import p_superior as p_superior
from .across.effects import performance_profile as performance_profile
from .across.mean_tests import sign_flip as sign_flip
from .across.mean_tests import t_over_means as t_over_means
from .across.mean_tests import tost as tost
from .across.mixed import mixed_model as mixed_model
from .across.multiplicity import adjust as adjust
from .across.pareto import best_under_budget as best_under_budget
from .across.pareto import pareto_front as pareto_front
from .across.rank_tests import (
    critical_difference as critical_difference,
)
from .across.rank_tests import (
    friedman as friedman,
)
from .across.rank_tests import (
    signed_rank as signed_rank,
)
from .across.summaries import summary as summary
from .interval import Interval as Interval
from .metrics import METRICS as METRICS
from .metrics import all_metrics as all_metrics
from .paired.accuracy import mcnemar as mcnemar
from .paired.auc import delong as delong
from .paired.bootstrap import bootstrap_difference as bootstrap_difference
from .paired.bootstrap import two_level_bootstrap as two_level_bootstrap
from .power import detectable_effect as detectable_effect
from .records.ledger import absent_cells as absent_cells
from .records.ledger import load_ledger as load_ledger
from .records.manifests import load_manifest as load_manifest
from .records.medmnist import load_predictions as load_predictions
from .report.write import write_report as write_report
from .verdicts.decisions import decide as decide
from .verdicts.decisions import decide_all as decide_all
from .verdicts.declared import Contrast as Contrast
from .verdicts.verdict import Verdict as Verdict
