"""Levels of a claim: what is drawn anew, and so what it speaks of. A contrast may declare one of the first two."""

# Data sets (their sources) are drawn anew: the claim is about data sets like these.
IN_GENERAL = "in general"
# The data sets are those at hand; seeds and test images are drawn anew.
THESE_DATA_SETS = "these data sets"
# Training and test images of one data set are drawn anew, as its folds do.
OVER_FOLDS = "folds of this data set"
THIS_DATA_SET = "this data set"
# Test images alone are drawn anew.
THESE_WEIGHTS = "these weights"

DECLARED_LEVELS = (IN_GENERAL, THESE_DATA_SETS)
# Seeds on each data set for a claim on these data sets: the spread between two has a single degree of freedom.
FEWEST_SEEDS = 3
# Folds for a claim on a data set from its folds, for the same reason.
FEWEST_FOLDS = 3
