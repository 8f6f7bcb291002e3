"""Separation of the classes by a network's features: numbers in feature space, and a picture of it.

scikit-learn is imported late, inside the functions: it takes a second, and most readers of records never need it.
"""

import math
from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 5
PERPLEXITY = 30.0


@dataclass(frozen=True)
class Separation:
    """How well features of test images separate the classes: one network on fixed images, hence no uncertainty.

    silhouette: −1 … 1, the mean over images; NaN with one class. knn_accuracy: by vote of the `neighbours` nearest
    other images, NaN with 0 of them; `majority` is what always naming the commonest class would reach.
    """

    silhouette: float
    knn_accuracy: float
    majority: float
    neighbours: int
    n_images: int


def separation(
    features: np.ndarray, labels: np.ndarray, *, groups: np.ndarray | None = None, neighbours: int = NEIGHBOURS
) -> Separation:
    """Silhouette and nearest-neighbour accuracy of features (n, channels), in Euclidean distance as they stand.

    Images of one group (a patient) do not count as neighbours: they would vouch for one another. Where any image has
    fewer others than `neighbours`, that smaller number holds for all.
    """
    features, labels = _checked(features, labels)
    largest = 1 if groups is None else int(np.unique(groups, return_counts=True)[1].max())
    neighbours = min(neighbours, len(labels) - largest)
    return Separation(
        silhouette=silhouette(features, labels),
        knn_accuracy=knn_accuracy(features, labels, groups=groups, neighbours=neighbours) if neighbours else math.nan,
        majority=float(np.bincount(labels).max() / len(labels)),
        neighbours=neighbours,
        n_images=len(labels),
    )


def silhouette(features: np.ndarray, labels: np.ndarray) -> float:
    """The mean of (b − a) / max(a, b): a the mean distance to one's own class, b that to the nearest other class.

    An image that is alone in its class counts 0 (Rousseeuw 1987); NaN with fewer than two classes.
    """
    from sklearn.metrics import silhouette_score

    features, labels = _checked(features, labels)
    classes = len(np.unique(labels))
    if classes < 2:
        return math.nan
    # scikit-learn refuses a case that is zero by definition: every image alone in its class.
    return float(silhouette_score(features, labels)) if classes < len(labels) else 0.0


def knn_accuracy(
    features: np.ndarray, labels: np.ndarray, *, groups: np.ndarray | None = None, neighbours: int = NEIGHBOURS
) -> float:
    """The share of images whose `neighbours` nearest others name its class by majority, the image itself left out.

    Images of the same group are left out too. Of classes with equally many votes the one with the nearest image wins.
    Raises ValueError where an image has fewer others than that.
    """
    from sklearn.metrics import euclidean_distances

    features, labels = _checked(features, labels)
    distances = euclidean_distances(features)
    keys = np.arange(len(labels)) if groups is None else np.asarray(groups)
    distances[keys[:, None] == keys[None, :]] = np.inf
    fewest = int(np.isfinite(distances).sum(1).min())
    if not 1 <= neighbours <= fewest:
        raise ValueError(f"neighbours must be between 1 and {fewest}, the images of other groups, got {neighbours}")
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :neighbours]
    votes = np.zeros((len(labels), int(labels.max()) + 1))
    for rank in range(neighbours):
        # A nearer image counts a little more; all such extras together are less than one vote.
        votes[np.arange(len(labels)), labels[nearest[:, rank]]] += 1 + 2.0 ** -(rank + 2)
    return float((votes.argmax(1) == labels).mean())


def tsne(features: np.ndarray, *, rng: np.random.Generator, perplexity: float = PERPLEXITY) -> np.ndarray:
    """A t-SNE picture (n, 2) of features (n, channels): who is near whom; distances and gaps in it mean nothing.

    The perplexity is lowered to a third of the images where they are few. Raises ValueError for fewer than five.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    values = np.asarray(features, dtype=np.float64)
    if len(values) < 5:
        raise ValueError(f"features must be of at least 5 images, got {len(values)}")
    chosen = min(perplexity, (len(values) - 1) / 3)
    # A random start: the usual one from principal components divides by zero where features are constant.
    picture = TSNE(perplexity=chosen, init="random", learning_rate="auto", random_state=int(rng.integers(2**31)))
    # Its threads spin while they wait: on a busy machine a second of work takes a minute.
    with threadpool_limits(1):
        return np.asarray(picture.fit_transform(values))


def _checked(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, classes = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or len(values) != len(classes) or len(values) == 0:
        raise ValueError(
            f"features must be (images, channels), one row a label, got {values.shape} and {classes.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("features must be finite, got NaN or infinity")
    # Centred, so that products of large, nearly equal numbers do not swamp small distances.
    return values - values.mean(0), classes
