"""Figures of a voice encoder and of faces, with their chance and their intervals.

Letters: N speakers or pairs, D size of the embedding. All embeddings are centred.
"""

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., D) scaled to length 1; zero vectors stay zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def retrieval_ranks(probes: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Rank of the right face for each voice, 1 is first; ties count against the voice.

    Args:
        probes: (N, D) predictions from voices.
        gallery: (N, D) faces, row i the right one for probe i.

    Returns:
        (N,) integers from 1 to N.
    """
    scores = unit(probes) @ unit(gallery).T  # (N, N)
    own = np.diagonal(scores)[:, None]
    return (scores >= own).sum(1)


def retrieval(probes: np.ndarray, gallery: np.ndarray, at: tuple[int, ...] = (1, 5, 10)) -> dict:
    """Share of voices whose face is among the first K, each beside its chance K / N."""
    ranks = retrieval_ranks(probes, gallery)
    count = len(gallery)
    figures = {f"recall_at_{k}": float((ranks <= k).mean()) for k in at}
    return figures | {f"chance_at_{k}": min(1.0, k / count) for k in at} | {"gallery": count}


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative; ties count half.

    Args:
        scores: (N,).
        positive: (N,) booleans.

    Returns:
        0 to 1, or NaN where one class is missing.
    """
    from scipy.stats import rankdata

    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)
    return float(
        (ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    )


def verification_auc(
    probes: np.ndarray,
    gallery: np.ndarray,
    groups: np.ndarray | None = None,
    speakers: np.ndarray | None = None,
) -> float:
    """Area under the ROC curve of "is this the speaker's face?", over all N x N voice-face pairs.

    Args:
        probes: (N, D) predictions from voices.
        gallery: (N, D) faces, row i the right one for probe i.
        groups: (N,) labels; where given, only pairs within one group count (gender held equal).
        speakers: (N,) who each row is, if it may be there twice (a resample): their voice with
            another row of their face is left out.
    """
    scores = unit(probes) @ unit(gallery).T  # (N, N)
    own = np.eye(len(probes), dtype=bool)
    kept = np.ones_like(own) if groups is None else groups[:, None] == groups[None, :]
    if speakers is not None:
        kept &= own | (speakers[:, None] != speakers[None, :])
    return roc_auc(scores[kept], own[kept])


def centroid_direction(embeddings: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Direction (D,) from the negatives' mean face to the positives': nearest centroid."""
    return embeddings[positive].mean(0) - embeddings[~positive].mean(0)


def bootstrap_interval(
    values: np.ndarray, statistic=np.mean, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a statistic by resampling speakers (percentile bootstrap).

    Args:
        values: (N, ...) one row a speaker, so that a speaker's images stay together.
        statistic: function of such an array.
        rounds: resamples.
        seed: of the resampling.

    Returns:
        (2.5 %, 97.5 %) percentiles; resamples whose statistic is NaN are left out.
    """
    rng = np.random.default_rng(seed)
    values = np.asarray(values)
    draws = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(rounds)]
    low, high = np.nanpercentile(np.asarray(draws, float), [2.5, 97.5])
    return float(low), float(high)


def balanced_accuracy(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Mean over the classes in `actual` of the share of each that is predicted right."""
    return float(np.mean([np.mean(predicted[actual == c] == c) for c in np.unique(actual)]))


def mean_pairwise_distance(embeddings: np.ndarray) -> float:
    """Mean Euclidean distance over the pairs of rows (N, D); NaN for a single row."""
    from scipy.spatial.distance import pdist

    return float(np.mean(pdist(embeddings))) if len(embeddings) > 1 else float("nan")
