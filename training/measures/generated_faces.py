"""Generated faces: do they keep the identity asked for, do they differ, are they like real ones?

All on embeddings of the face recogniser. Letters: N faces, V voices, n images of a voice, D size
of the embedding, S speakers, B resamples.
"""

from itertools import combinations

import numpy as np

from training.measures.resampling import Figure, SpeakerBootstrap

ROWS_AT_ONCE = 1024  # of the kernel matrix, to bound memory


def identity_kept(
    bootstrap: SpeakerBootstrap,
    outputs: np.ndarray,
    conditions: np.ndarray,
    kept: np.ndarray | None = None,
) -> dict[str, Figure]:
    """How much of the embedding that was decoded is found in the image again.

    Args:
        bootstrap: of the N rows' speakers.
        outputs: (N, D) embeddings of the images, centred.
        conditions: (N, D) what they were decoded from, centred alike.
        kept: (N,) booleans: the group that is measured; all if None.

    Returns:
        `identity_cosine`, the mean cosine, -1 to 1, chance 0.
    """
    outputs, conditions = np.asarray(outputs, float), np.asarray(conditions, float)
    if outputs.shape != conditions.shape:
        raise ValueError(f"{outputs.shape} outputs for {conditions.shape} conditions: give pairs")
    lengths = np.linalg.norm(outputs, axis=1) * np.linalg.norm(conditions, axis=1)
    cosines = (outputs * conditions).sum(1) / np.where(lengths > 0, lengths, 1)  # (N,)
    return {"identity_cosine": bootstrap.mean(cosines, kept, chance=0.0)}


def diversity(
    bootstrap: SpeakerBootstrap,
    draws: np.ndarray,
    reference_distance: float | np.ndarray,
    kept: np.ndarray | None = None,
) -> dict[str, Figure]:
    """How much the images of one voice differ from each other.

    Args:
        bootstrap: of the V voices' speakers.
        draws: (V, n, D) embeddings of the n >= 2 images of each voice.
        reference_distance: mean distance between different persons, for example of
            `distance_between_persons`; one number, or (V,) one for each voice.
        kept: (V,) booleans: the group that is measured; all if None.

    Returns:
        `distance`, mean Euclidean distance over the pairs of images of a voice, and
        `relative_distance`, the same as a share of `reference_distance`.

    Raises:
        ValueError: for fewer than two images a voice, or a reference that is not above 0.
    """
    draws = np.asarray(draws, float)
    if draws.ndim != 3 or draws.shape[1] < 2:
        raise ValueError(f"expected (voices, 2 or more images, size), got shape {draws.shape}")
    reference = np.broadcast_to(np.asarray(reference_distance, float), len(draws))
    if not (reference > 0).all():
        raise ValueError("the distance between persons must be above 0: give that of real faces")
    pairs = list(combinations(range(draws.shape[1]), 2))
    distances = np.mean(
        [np.linalg.norm(draws[:, i] - draws[:, j], axis=1) for i, j in pairs], axis=0
    )  # (V,)
    return {
        "distance": bootstrap.mean(distances, kept),
        "relative_distance": bootstrap.mean(distances / reference, kept),
    }


def distance_between_persons(embeddings: np.ndarray, speakers: np.ndarray) -> float:
    """Mean Euclidean distance between faces (N, D) of different persons; NaN if there is but one.

    Args:
        embeddings: (N, D).
        speakers: (N,) whose face each is.
    """
    from scipy.spatial.distance import cdist

    embeddings, speakers = np.asarray(embeddings, float), np.asarray(speakers)
    total, count = 0.0, 0
    for start in range(0, len(embeddings), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        others = speakers[block, None] != speakers[None, :]
        total += cdist(embeddings[block], embeddings)[others].sum()
        count += int(others.sum())
    return total / count if count else float("nan")


def kernel_distance(
    bootstrap: SpeakerBootstrap,
    generated: np.ndarray,
    real: np.ndarray,
    kept: np.ndarray | None = None,
) -> dict[str, Figure]:
    """Squared maximum mean discrepancy of generated and real faces: how unlike the two sets are.

    The kernel is (x.y / D + 1)^3, as in the kernel inception distance (Binkowski et al., ICLR
    2018), here on the recogniser's features; the estimate is unbiased and may fall below 0. Only
    faces of different speakers are compared: a speaker's faces, and the generated with the real
    face of the same person, are no independent draws, and would hide a difference. (The inception
    distance does compare the i-th image with the i-th, which for unrelated sets is the same.) So
    a speaker who is drawn twice into a resample never meets himself either.

    Two samples of one distribution have an interval that holds 0 more often than in 95 of 100
    cases: resampling a statistic that is 0 at first order overstates its spread (about 1.7 times).

    Args:
        bootstrap: of the N rows' speakers.
        generated: (N, D) embeddings, as the recogniser gives them.
        real: (N, D), of the same speakers row by row.
        kept: (N,) booleans: the group that is measured; all if None.

    Returns:
        `kernel_distance`, and `real_halves`, the same between the real faces of two random halves
        of the speakers: what it is for sets that differ by chance alone.
    """
    generated, real = np.asarray(generated, float), np.asarray(real, float)
    if generated.shape != real.shape or len(real) != len(bootstrap):
        raise ValueError(
            f"{generated.shape} generated for {real.shape} real faces of {len(bootstrap)} rows: "
            "give one of each a row"
        )
    kept = np.ones(len(real), bool) if kept is None else np.asarray(kept, bool)
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(bootstrap.index[rows], kind="stable")]  # a speaker's rows together
    speakers, starts = np.unique(bootstrap.index[rows], return_index=True)
    generated, real = generated[rows], real[rows]
    sizes = np.diff(np.append(starts, len(rows))).astype(float)  # (S,) rows of each
    within_real = _kernel_sums(real, real, starts)  # (S, S)
    across = _kernel_sums(generated, real, starts)
    differences = _kernel_sums(generated, generated, starts) + within_real - across - across.T
    # Everybody once, then the resamples: (1 + B, S)
    counts = np.vstack([np.ones(len(speakers)), bootstrap.counts[:, speakers]])
    distance = _mean_over_pairs(differences, sizes, counts, counts)
    half = np.zeros(len(speakers))
    half[np.random.default_rng(bootstrap.seed).permutation(len(speakers))[::2]] = 1
    first, second = counts * half, counts * (1 - half)
    halves = (
        _mean_over_pairs(within_real, sizes, first, first)
        + _mean_over_pairs(within_real, sizes, second, second)
        - 2 * _mean_over_pairs(within_real, sizes, first, second)
    )
    return {
        "kernel_distance": bootstrap.figure(float(distance[0]), distance[1:], kept, 0.0),
        "real_halves": bootstrap.figure(float(halves[0]), halves[1:], kept, 0.0),
    }


def _kernel_sums(x: np.ndarray, y: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums (S, S) of the kernel over the rows of each two different speakers, 0 for one's own."""
    if not len(x):
        return np.zeros((0, 0))
    columns = []
    for start in range(0, len(x), ROWS_AT_ONCE):
        kernel = x[start : start + ROWS_AT_ONCE] @ y.T / x.shape[1] + 1
        kernel *= kernel * kernel  # the third power, without the slow general one
        columns.append(np.add.reduceat(kernel, starts, 1))  # (rows, S)
    sums = np.add.reduceat(np.concatenate(columns), starts, 0)
    np.fill_diagonal(sums, 0)
    return sums


def _mean_over_pairs(
    sums: np.ndarray, sizes: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Mean kernel (R,) over rows of two different speakers, who count `left` and `right` (R, S)."""
    total = ((left @ sums) * right).sum(1)
    pairs = (left * sizes).sum(1) * (right * sizes).sum(1) - (left * right * sizes**2).sum(1)
    return np.divide(total, pairs, out=np.full(len(left), np.nan), where=pairs > 0)
