"""Finding the right face in a gallery by a voice: recall at k, median rank, average precision.

Where faces tie, every order among them is equally likely and the figures are expectations over
these orders: a system that says nothing scores chance, no more and no less.

Letters: N probes (voices), M faces in the gallery, T blocks of right faces that tie.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from training.measures.means import means
from training.measures.resampling import Figure, SpeakerBootstrap
from training.measures.similarity import unit

SCORES = ("cosine", "l1", "l2")
CELLS_AT_ONCE = 4_000_000  # probes x gallery in memory; 32 MB
STEPS = 2**22  # scores are compared as integers, that many to 1,
TIED = 4  # and tie when no farther apart than this: about what float32 arithmetic leaves open


@dataclass(frozen=True)
class Ranks:
    """Where each probe's right faces stand, apart from the order among ties.

    Right faces of a probe that have the same score form one block.

    Attributes:
        gallery: M.
        rights: (N,) right faces of each probe in the gallery, at least 1.
        probe: (T,) whose block it is, ascending; a probe's best block comes first.
        wrong_ahead: (T,) wrong faces that score above the block.
        wrong_tied: (T,) wrong faces that score the same.
        right_ahead: (T,) right faces above it.
        right_tied: (T,) right faces in it.
    """

    gallery: int
    rights: np.ndarray
    probe: np.ndarray
    wrong_ahead: np.ndarray
    wrong_tied: np.ndarray
    right_ahead: np.ndarray
    right_tied: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """(N,) the first block of each probe."""
        return np.searchsorted(self.probe, np.arange(len(self.rights)))

    @property
    def first(self) -> np.ndarray:
        """(N,) expected position of the first right face, 1 is first."""
        best = self.best
        right, tied = self.right_tied[best], self.wrong_tied[best]
        return self.wrong_ahead[best] + (right + tied + 1) / (right + 1)


def ranks(
    probes: np.ndarray,
    gallery: np.ndarray,
    probe_speakers: Sequence,
    gallery_speakers: Sequence,
    score: str = "cosine",
) -> Ranks:
    """Ranks every probe's right faces among all faces of the gallery (FAISS, in blocks of probes).

    Args:
        probes: (N, D) embeddings predicted from voices.
        gallery: (M, D) embeddings of faces.
        probe_speakers: (N,) whose voice each probe is.
        gallery_speakers: (M,) whose face each entry is; a speaker may have several.
        score: "cosine", or the distance "l1" or "l2" of the embeddings as they are.

    Raises:
        ValueError: if a probe's speaker has no face in the gallery, a number is not finite, or
            the lengths do not fit.
    """
    import faiss

    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
    metric = {
        "cosine": faiss.METRIC_INNER_PRODUCT,
        "l1": faiss.METRIC_L1,
        "l2": faiss.METRIC_L2,
    }[score]
    sign = 1 if score == "cosine" else -1
    if score == "cosine":
        probes, gallery = unit(probes), unit(gallery)
    else:  # of a size at which scores can be compared as integers; all alike, no rank changes
        probes, gallery = np.asarray(probes, np.float64), np.asarray(gallery, np.float64)
        if not (np.isfinite(probes).all() and np.isfinite(gallery).all()):
            raise ValueError("an embedding holds NaN or infinity: give each row a stand-in first")
        size = max(np.linalg.norm(rows, axis=1).mean() for rows in (probes, gallery)) or 1.0
        probes, gallery = probes / size, gallery / size
    probes, gallery = probes.astype(np.float32), gallery.astype(np.float32)
    whose, owners = match_speakers(probes, gallery, probe_speakers, gallery_speakers)
    step = max(1, CELLS_AT_ONCE // len(gallery))
    blocks = []
    for start in range(0, len(probes), step):
        some = slice(start, start + step)
        scores = sign * faiss.pairwise_distances(probes[some], gallery, metric)  # (n, M)
        scores = np.rint(scores.astype(np.float64) * STEPS).astype(np.int64)  # of any size
        right = whose[some, None] == owners  # (n, M)
        blocks.append(_blocks(scores, right) + [[start], [0], [0], [0], [0]])
    probe, *counts = np.concatenate(blocks, axis=1)
    return Ranks(len(gallery), np.bincount(owners, minlength=1)[whose], probe, *counts)


def speaker_gallery(embeddings: np.ndarray, speakers: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """One face a speaker: the mean of their embeddings (M, D), and whose it is (M,), sorted."""
    embeddings = np.asarray(embeddings, np.float64)
    names, whose = np.unique(np.asarray(speakers), return_inverse=True)
    if len(whose) != len(embeddings):
        raise ValueError(f"name one speaker for each of the {len(embeddings)} embeddings")
    sums = np.zeros((len(names), embeddings.shape[1]))
    np.add.at(sums, whose, embeddings)
    return sums / np.bincount(whose)[:, None], names


def match_speakers(
    probes: np.ndarray, gallery: np.ndarray, probe_speakers: Sequence, gallery_speakers: Sequence
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (N,) and (M,) that are equal where the speaker is.

    Raises:
        ValueError: if a probe's speaker is not in the gallery, or the lengths do not fit.
    """
    if probes.ndim != 2 or gallery.ndim != 2 or probes.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"probes (N, D) and gallery (M, D) must agree in D, got {probes.shape} "
            f"and {gallery.shape}"
        )
    probe_speakers, gallery_speakers = np.asarray(probe_speakers), np.asarray(gallery_speakers)
    if (len(probe_speakers), len(gallery_speakers)) != (len(probes), len(gallery)):
        raise ValueError("name one speaker for each probe and for each face of the gallery")
    names, owners = np.unique(gallery_speakers, return_inverse=True)
    if not len(names) or not len(probe_speakers):
        raise ValueError("retrieval needs at least one probe and one face")
    whose = np.minimum(np.searchsorted(names, probe_speakers), len(names) - 1)
    missing = probe_speakers[names[whose] != probe_speakers]
    if len(missing):
        raise ValueError(
            f"{len(missing)} probes have no face in the gallery, the first is of speaker "
            f"{missing[0]}: add their faces or leave these probes out"
        )
    return whose, owners


def _blocks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(5, T): probe and the four counts of `Ranks`, from scores (n, M) and who is right (n, M)."""
    probe, entry = np.nonzero(right)
    values = scores[probe, entry]
    order = np.lexsort((-values, probe))
    probe, values = probe[order], values[order]  # a probe's best first
    starts = np.append(True, (np.diff(probe) > 0) | (-np.diff(values) > TIED))
    starts = np.flatnonzero(starts)
    tied = np.diff(starts, append=len(probe))
    highest, lowest = values[starts] + TIED, values[starts + tied - 1] - TIED
    probe = probe[starts]
    ahead = starts - starts[np.searchsorted(probe, probe)]  # right faces of the probe before it
    above, reached = np.empty(len(probe), np.int64), np.empty(len(probe), np.int64)
    step = max(1, CELLS_AT_ONCE // scores.shape[1])
    for start in range(0, len(probe), step):
        some = slice(start, start + step)
        rows = scores[probe[some]]  # (t, M)
        above[some] = (rows > highest[some, None]).sum(1)
        reached[some] = (rows >= lowest[some, None]).sum(1)
    return np.stack([probe, above - ahead, reached - above - tied, ahead, tied])


def retrieval(
    bootstrap: SpeakerBootstrap,
    ranks: Ranks,
    gallery_sizes: Sequence[int] = (100, 5000),
    at: Sequence[int] = (1, 2, 5, 10),
    kept: np.ndarray | None = None,
) -> dict[str, Figure]:
    """Recall at k, in the whole gallery and in smaller ones, median rank, mean average precision.

    For a smaller gallery, recall is its exact expectation over all galleries of that size that
    hold the right face: how many better ones come along is hypergeometric.

    Args:
        bootstrap: draws of the speakers of the N probes.
        ranks: where the right faces stand.
        gallery_sizes: of smaller galleries; those larger than the gallery are left out, and all
            are where a probe has several right faces.
        at: the k of recall at k.
        kept: (N,) booleans: the probes that are measured, against the whole gallery.

    Returns:
        `recall_at_{k}`, `recall_at_{k}_of_{size}`, `median_rank` (1 is first; several right faces:
        the first one's), `mean_average_precision`, each with its chance.
    """
    single = bool((ranks.rights == 1).all())
    values, chances = {}, {}
    some = slice(None) if kept is None else np.asarray(kept, bool)
    rights, count = ranks.rights[some], ranks.gallery
    for k in at:
        values[f"recall_at_{k}"] = _found(ranks, k)
        chances[f"recall_at_{k}"] = _mean(_chance_of_one(rights, count - rights, k))
    for size in gallery_sizes if single else ():
        for k in at if size <= count else ():
            values[f"recall_at_{k}_of_{size}"] = _found_among(ranks, k, size)
            chances[f"recall_at_{k}_of_{size}"] = min(1.0, k / size)
    figures = means(bootstrap, values, kept, chances, share=True)
    median = bootstrap.median(ranks.first, kept)
    figures["median_rank"] = replace(median, chance=(count + 1) / 2 if single else None)
    return figures | means(
        bootstrap,
        {"mean_average_precision": average_precisions(ranks)},
        kept,
        {
            "mean_average_precision": _mean(
                _precision_of_ties(0, count - rights, 0, rights) / rights
            )
        },
    )


def recall_curve(
    ranks: Ranks, at: Sequence[int], kept: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Recall (K,) and its chance (K,) at each of `at`, in the whole gallery."""
    some = slice(None) if kept is None else np.asarray(kept, bool)
    rights = ranks.rights[some]
    recall = np.asarray([_mean(_found(ranks, k)[some]) for k in at])
    chance = [_mean(_chance_of_one(rights, ranks.gallery - rights, k)) for k in at]
    return recall, np.asarray(chance)


def average_precisions(ranks: Ranks) -> np.ndarray:
    """Average precision of each probe (N,), 0 to 1, expected over the order of ties.

    Source: McSherry and Najork, 2008, "Computing information retrieval performance measures
    efficiently in the presence of tied scores".
    """
    gained = _precision_of_ties(
        ranks.wrong_ahead, ranks.wrong_tied, ranks.right_ahead, ranks.right_tied
    )
    return np.bincount(ranks.probe, gained, len(ranks.rights)) / ranks.rights


def _precision_of_ties(wrong_ahead, wrong_tied, right_ahead, right_tied) -> np.ndarray:
    """Expected sum of the precisions at the right faces of a block of ties.

    At the i-th of the block's n places stands a right face with probability r / n, and then
    (i - 1) (r - 1) / (n - 1) others are expected before it; summed over i by harmonic numbers.
    """
    from scipy.special import digamma

    before, size = wrong_ahead + right_ahead, wrong_tied + right_tied
    slope = (right_tied - 1) / np.maximum(size - 1, 1)
    harmonic = digamma(before + size + 1) - digamma(before + 1)  # sum of 1 / (before + i)
    places = (right_ahead + 1 - slope * (before + 1)) * harmonic + slope * size
    return right_tied / size * places


def _found(ranks: Ranks, k: int) -> np.ndarray:
    """(N,) probability that a right face is among the first k."""
    best = ranks.best
    places = k - ranks.wrong_ahead[best]  # that are left for the block
    return _chance_of_one(ranks.right_tied[best], ranks.wrong_tied[best], places)


def _chance_of_one(right: np.ndarray, wrong: np.ndarray, places: np.ndarray | int) -> np.ndarray:
    """Probability that the first `places` of right and wrong faces in random order hold a right."""
    from scipy.stats import hypergeom

    places = np.clip(places, 0, right + wrong)
    if (right == 1).all():
        return places / (1 + wrong)
    return hypergeom.sf(0, right + wrong, right, places)


def _found_among(ranks: Ranks, k: int, size: int) -> np.ndarray:
    """(N,) probability to be among the first k of `size` faces, for one right face a probe."""
    # Averaged over how many of the ties stand ahead: the mean over a stretch of the table.
    reached = _reached(ranks.gallery, k, size)
    low, high = ranks.wrong_ahead, ranks.wrong_ahead + ranks.wrong_tied + 1
    return (reached[high] - reached[low]) / (high - low)


@lru_cache(maxsize=64)
def _reached(gallery: int, k: int, size: int) -> np.ndarray:
    """(M + 1,) cumulative sums over how many wrong faces stand ahead in the whole gallery."""
    from scipy.stats import hypergeom

    ahead = np.arange(gallery)
    return np.append(0, np.cumsum(hypergeom.cdf(k - 1, gallery - 1, ahead, size - 1)))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
