"""How alike two embeddings are: angle, cosine, L1 and L2 on unit vectors.

Recogniser embeddings share a large mean, so that raw ones are alike whoever they are of; centred
ones (the mean taken away by the caller) are the honest figures, raw ones those that others print.

Letters: N rows (pairs), D size of the embedding.
"""

from collections.abc import Sequence

import numpy as np

from training.measures.means import means
from training.measures.resampling import Figure, SpeakerBootstrap


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., D) scaled to length 1, as float64; zero vectors stay zero.

    Raises:
        ValueError: if a number is not finite.
    """
    vectors = np.asarray(vectors, np.float64)
    if not np.isfinite(vectors).all():
        raise ValueError("an embedding holds NaN or infinity: give each row a stand-in first")
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def cosines(predictions: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Cosine of each row with the same row of the other, (N,) from -1 to 1; 0 for a zero vector."""
    one, other = _pair(predictions, references)
    return np.clip((one * other).sum(-1), -1, 1)


def feature_similarity(
    bootstrap: SpeakerBootstrap,
    predictions: np.ndarray,
    references: np.ndarray,
    kept: np.ndarray | None = None,
    suffix: str = "",
) -> dict[str, Figure]:
    """Mean angle, cosine, L1 and L2 between predictions and references (Oh et al., 2019, table 2).

    A zero vector, which is what a constant predictor becomes by centring, has cosine 0 and an angle
    of 90 degrees. L1 and L2 are taken between unit vectors, because the paper's scale is unknown.

    Args:
        bootstrap: draws of the speakers of the N rows.
        predictions: (N, D).
        references: (N, D), row i what row i of `predictions` should be.
        kept: (N,) booleans: the group that is measured; all if None.
        suffix: is added to each name, for example "_centred" or "_raw".

    Returns:
        `angle` (degrees, 0 to 180), `cosine` (-1 to 1), `l1`, `l2` (0 to 2).

    Raises:
        ValueError: if the shapes differ or a number is not finite.
    """
    one, other = _pair(predictions, references)
    cosine = np.clip((one * other).sum(-1), -1, 1)
    values = {
        "angle": np.degrees(np.arccos(cosine)),
        "cosine": cosine,
        "l1": np.abs(one - other).sum(-1),
        "l2": np.linalg.norm(one - other, axis=-1),
    }
    return means(bootstrap, {name + suffix: value for name, value in values.items()}, kept)


def angle_histogram(
    predictions: np.ndarray, references: np.ndarray, edges: Sequence[float]
) -> np.ndarray:
    """How many rows have their angle (degrees) between two edges, (len(edges) - 1,) integers."""
    angles = np.degrees(np.arccos(cosines(predictions, references)))
    return np.histogram(angles, edges)[0]


def centroid_direction(embeddings: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Direction (D,) from the negatives' mean face to the positives': nearest centroid.

    Args:
        embeddings: (N, D).
        positive: (N,) booleans.
    """
    return embeddings[positive].mean(0) - embeddings[~positive].mean(0)


def _pair(predictions: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    one, other = unit(predictions), unit(references)
    if one.shape != other.shape or one.ndim != 2:
        raise ValueError(
            f"predictions and references must be two matrices of one shape, "
            f"got {one.shape} and {other.shape}"
        )
    return one, other
