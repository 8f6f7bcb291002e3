import numpy as np
import pytest

from analysis.paired.models import Model, joint


def models_of(seed, images, classes, count):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    # In few kinds, so that images are alike.
    return [Model(labels, np.eye(classes)[rng.integers(0, classes, images) % 3]) for _ in range(count)]


# Of many models the columns do not fit into one number.
@pytest.mark.parametrize("count", [1, 2, 5, 45])
def test_the_joint_table_has_a_cell_for_each_kind_of_image(count):
    models = models_of(count, 60, 9, count)
    columns = np.stack([models[0].labels, *(model.predicted for model in models)])
    cells, cell, counts = np.unique(columns, axis=1, return_inverse=True, return_counts=True)
    found = joint(models)
    np.testing.assert_array_equal(np.vstack([found.truth, found.predicted.T]), cells)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(found.cell, cell.reshape(-1))
