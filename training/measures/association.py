"""Which face belongs to a voice: 1:N matching, verification AUC and equal error rate.

Most of what a voice tells of a face is gender. With gender (or age, or both) held equal between the
right face and the others, only the rest counts: that is the honest measure.

Letters: N probes (voices), M faces in the gallery, P pairs of a voice and its own face, S speakers,
B resamples, Q bins of the score, V vertices of a ROC curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from training.measures.means import means
from training.measures.resampling import Figure, SpeakerBootstrap
from training.measures.retrieval import match_speakers
from training.measures.similarity import unit

BINS_OF_EACH = 64  # edges at that many quantiles of the right pairs' scores, and of the others'
EXACT_PAIRS = 10_000  # with more, resampled pairs are weighted to first order: see `_resampled`
CURVE_POINTS = 200
Labels = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True)
class Trials:
    """Which faces each probe is held against.

    Attributes:
        own: (N, M) booleans: the speaker's own faces.
        others: (N, M) booleans: those of other speakers that count.
    """

    own: np.ndarray
    others: np.ndarray

    @cached_property
    def takes_part(self) -> np.ndarray:
        """(N,) booleans: probes that have a face of their own here."""
        return self.own.any(1)


@dataclass(frozen=True)
class Comparison:
    """Every probe scored against every face, once for all restrictions and groups.

    Attributes:
        scores: (N, M) cosines, float32.
        bins: (N, M) the scores' bins, 0 the lowest; equal scores share one.
        count: Q.
        trials: restriction ("" for none) to who is held against whom.
        probe_speakers: (N,).
        gallery_speakers: (M,).
    """

    scores: np.ndarray
    bins: np.ndarray
    count: int
    trials: dict[str, Trials]
    probe_speakers: np.ndarray
    gallery_speakers: np.ndarray


def compare(
    probes: np.ndarray,
    gallery: np.ndarray,
    probe_speakers: Sequence,
    gallery_speakers: Sequence,
    restrictions: Mapping[str, Labels] | None = None,
) -> Comparison:
    """Scores every probe against every face by the cosine.

    Args:
        probes: (N, D) embeddings predicted from voices.
        gallery: (M, D) embeddings of faces.
        probe_speakers: (N,) whose voice each probe is.
        gallery_speakers: (M,) whose face each entry is.
        restrictions: name to labels of the probes (N,) and of the faces (M,): others count only
            where their label is the probe's. Who has the label "" takes no part.

    Raises:
        ValueError: if a probe's speaker has no face in the gallery, a number is not finite, or
            the lengths do not fit.
    """
    probes, gallery = unit(probes), unit(gallery)
    whose, owners = match_speakers(probes, gallery, probe_speakers, gallery_speakers)
    own = whose[:, None] == owners  # (N, M)
    trials = {"": Trials(own, ~own)}
    for name, (of_probes, of_faces) in (restrictions or {}).items():
        of_probes, of_faces = np.asarray(of_probes), np.asarray(of_faces)
        if (len(of_probes), len(of_faces)) != own.shape:
            raise ValueError(f"{name} needs one label for each probe and for each face")
        _, numbers = np.unique(np.concatenate([of_probes, of_faces]), return_inverse=True)
        equal = numbers[: len(of_probes), None] == numbers[len(of_probes) :]
        known = (of_probes != "")[:, None] & (of_faces != "")
        trials[name] = Trials(own & known, ~own & known & equal)
    # float64 first: the same two vectors must not get two scores in two corners of a product.
    scores = (probes @ gallery.T).astype(np.float32)
    return binned(scores, trials, probe_speakers, gallery_speakers)


def binned(
    scores: np.ndarray,
    trials: dict[str, Trials],
    probe_speakers: Sequence,
    gallery_speakers: Sequence,
) -> Comparison:
    """A `Comparison` from scores (N, M); its bins follow the quantiles of `trials[""]`."""
    some = trials[""]
    quantiles = (np.arange(BINS_OF_EACH) + 0.5) / BINS_OF_EACH
    parts = [np.sort(scores[some.own]), np.sort(scores[some.others])]
    edges = [part[(quantiles * len(part)).astype(int)] for part in parts if len(part)]
    edges = np.unique(np.concatenate(edges)) if edges else np.zeros(0, np.float32)
    bins = np.searchsorted(edges, scores, side="right").astype(np.uint8)
    names = np.asarray(probe_speakers), np.asarray(gallery_speakers)
    return Comparison(scores, bins, len(edges) + 1, trials, *names)


def association(
    bootstrap: SpeakerBootstrap,
    probes: np.ndarray,
    gallery: np.ndarray,
    probe_speakers: Sequence,
    gallery_speakers: Sequence,
    restrictions: Mapping[str, Labels] | None = None,
    kept: np.ndarray | None = None,
    candidates: Sequence[int] = (2, 5, 10),
) -> dict[str, Figure]:
    """`associate` on `compare`; who measures many groups compares once and associates often.

    Args:
        bootstrap: draws of the speakers of the N probes.
        probes, gallery, probe_speakers, gallery_speakers, restrictions: see `compare`.
        kept, candidates: see `associate`.
    """
    compared = compare(probes, gallery, probe_speakers, gallery_speakers, restrictions)
    return associate(bootstrap, compared, kept, candidates)


def associate(
    bootstrap: SpeakerBootstrap,
    compared: Comparison,
    kept: np.ndarray | None = None,
    candidates: Sequence[int] = (2, 5, 10),
    restrictions: Sequence[str] | None = None,
) -> dict[str, Figure]:
    """Matching, verification AUC and equal error rate, unrestricted and with labels held equal.

    Matching 1 in n is the exact expectation over all choices of n - 1 other faces; ties are
    decided by lot. A probe with fewer others takes no part in it. The AUC and the equal error rate
    are those of all voice-face pairs together.

    Args:
        bootstrap: draws of the speakers of the N probes.
        compared: the scores.
        kept: (N,) booleans: the probes that are measured, against the whole gallery.
        candidates: the n of matching 1 in n.
        restrictions: which of the comparison's to measure ("" is none of them); all if None.

    Returns:
        `matching_1_in_{n}`, `auc` and `eer`, each with `_{restriction}` behind it for those;
        0 to 1, with their chance. NaN (and no interval) where there is nobody to compare with.

    Raises:
        ValueError: if the bootstrap is not of the probes' speakers.
    """
    if not np.array_equal(bootstrap.names[bootstrap.index], compared.probe_speakers):
        raise ValueError("the bootstrap must be of the probes' speakers, in their order")
    kept = np.ones(len(bootstrap), bool) if kept is None else np.asarray(kept, bool)
    figures = {}
    for name in compared.trials if restrictions is None else restrictions:
        trials = compared.trials[name]
        suffix = f"_{name}" if name else ""
        present = kept & trials.takes_part
        for n, figure in _matching(bootstrap, compared, trials, present, candidates).items():
            figures[f"matching_1_in_{n}{suffix}"] = figure
        auc, eer = verification(bootstrap, compared, trials, present)
        figures |= {f"auc{suffix}": auc, f"eer{suffix}": eer}
    return figures


def _matching(
    bootstrap: SpeakerBootstrap,
    compared: Comparison,
    trials: Trials,
    kept: np.ndarray,
    candidates: Sequence[int],
) -> dict[int, Figure]:
    """Matching 1 in n for each n; a probe with several own faces counts their mean."""
    count = len(kept)
    probe, face = np.nonzero(trials.own & kept[:, None])
    own = compared.scores[probe, face]
    rows, others = compared.scores[probe], trials.others[probe]  # (P, M)
    ahead = ((rows > own[:, None]) & others).sum(1)
    tied = ((rows == own[:, None]) & others).sum(1)
    total = others.sum(1)
    faces = np.bincount(probe, minlength=count)
    figures = {}
    for n in candidates:
        enough = np.zeros(count, bool)
        enough[probe[total >= n - 1]] = True
        wins = np.zeros(len(probe))
        some = total >= n - 1
        wins[some] = chance_to_win(ahead[some], tied[some], total[some], n)
        values = np.bincount(probe, wins, count) / np.maximum(faces, 1)
        figures |= means(bootstrap, {n: values}, enough, {n: 1 / n}, share=True)
    return figures


def chance_to_win(
    ahead: np.ndarray, tied: np.ndarray, total: np.ndarray, candidates: int
) -> np.ndarray:
    """Probability (P,) to score above n - 1 others drawn without replacement; ties by lot.

    With a others above, C(total - a, n - 1) of the C(total, n - 1) draws hold none of them. A lot
    puts any number of the ties above, and the sum over these numbers is C(., n) again.

    Args:
        ahead: (P,) others that score above.
        tied: (P,) others that score the same.
        total: (P,) others, at least n - 1.
        candidates: n.
    """
    from scipy.special import comb

    below = total - ahead - tied
    draws = comb(below + tied + 1, candidates) - comb(below, candidates)
    share = np.clip(draws / ((tied + 1) * comb(total, candidates - 1)), 0, 1)
    return np.where(ahead + tied == 0, 1.0, share)  # what rounding takes from 1 is no doubt


def verification(
    bootstrap: SpeakerBootstrap, compared: Comparison, trials: Trials, kept: np.ndarray
) -> tuple[Figure, Figure]:
    """AUC and equal error rate of "is this the speaker's face?" over the kept probes' pairs.

    The figures are exact; the replicates come from the scores' bins, moved to the exact figure.

    Args:
        bootstrap: draws of the speakers of the N probes.
        compared: the scores.
        trials: who is held against whom.
        kept: (N,) booleans: the probes that are measured.
    """
    rows = np.flatnonzero(kept)
    scores, own, others = compared.scores[rows], trials.own[rows], trials.others[rows]
    curve = roc(scores[own], scores[others])
    whole, resampled = _resampled(bootstrap, compared, rows, own, others)
    figures = []
    for measure in (area_under, equal_error_rate):
        value = float(measure(*curve))
        replicates = measure(*resampled) + (value - measure(*whole))
        figures.append(bootstrap.figure(value, np.clip(replicates, 0, 1), kept, chance=0.5))
    return figures[0], figures[1]


def _resampled(
    bootstrap: SpeakerBootstrap,
    compared: Comparison,
    rows: np.ndarray,
    own: np.ndarray,
    others: np.ndarray,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """ROC curves on the bins: everybody's once, and each resample's.

    A right pair counts as often as its speaker was drawn, c_i; another as often as both were,
    c_i c_j. Over many pairs that is c_i + c_j - 1 and a remainder (c_i - 1) (c_j - 1), whose mean
    is 0 and whose sum is of a lower order than the rest; it is left out there, and the sums over
    pairs become sums over speakers. A face whose speaker is no probe's is never drawn: c_j = 1.
    """
    count = compared.count
    names = bootstrap.names
    ones = np.ones((bootstrap.rounds, 1), np.float32)
    counts = np.hstack([bootstrap.counts.astype(np.float32), ones])  # (B, S + 1)
    of_probes = bootstrap.index[rows]  # (n,)
    of_faces = np.minimum(np.searchsorted(names, compared.gallery_speakers), len(names) - 1)
    drawn = names[of_faces] == compared.gallery_speakers
    of_faces = np.where(drawn, of_faces, len(names))  # (M,)
    bins = compared.bins[rows].astype(np.int32)
    size = (len(names) + 1) * count

    def by_speaker(speakers: np.ndarray, which: np.ndarray) -> np.ndarray:
        cells = (bins + speakers.astype(np.int32) * count)[which]
        return np.bincount(cells, minlength=size).reshape(-1, count)  # (S + 1, Q)

    right = by_speaker(of_probes[:, None], own)
    wrong = by_speaker(of_probes[:, None], others)
    everybody = right.sum(0), wrong.sum(0)  # (Q,) each
    if everybody[1].sum() <= EXACT_PAIRS:
        pairs = np.nonzero(others)
        one, other = of_probes[pairs[0]], of_faces[pairs[1]]
        families = np.append(bootstrap.families, -1)
        # Of one family, both were drawn as often as one of them.
        other = np.where(families[one] == families[other], len(names), other)
        weighted = _exactly(counts, one, other, bins[pairs], count)
        return _curve(*everybody), _curve(counts @ right.astype(np.float32), weighted)
    wrong = wrong + by_speaker(of_faces[None], others)
    sums = counts @ np.hstack([right, wrong]).astype(np.float32)  # (B, 2 Q)
    return _curve(*everybody), _curve(sums[:, :count], sums[:, count:] - everybody[1])


def _exactly(
    counts: np.ndarray, one: np.ndarray, other: np.ndarray, bins: np.ndarray, count: int
) -> np.ndarray:
    """(B, Q): how often pairs of speakers `one` and `other` (P,) were drawn, by their bin."""
    from scipy.sparse import csc_array

    counts = np.ascontiguousarray(counts.T)  # (S + 1, B)
    sums = np.zeros((count, counts.shape[1]), np.float32)
    for start in range(0, len(bins), 512):  # so many at once stay in the cache
        some = slice(start, start + 512)
        drawn = counts[one[some]] * counts[other[some]]  # (p, B)
        places = np.arange(len(drawn))
        cells = csc_array(
            (np.ones(len(drawn), np.float32), (bins[some], places)), (count, len(drawn))
        )
        sums += cells @ drawn
    return sums.T


def _curve(right: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates (..., Q + 1) from how many pairs lie in each bin (..., Q)."""
    rates = []
    for histogram in (wrong, right):
        above = np.cumsum(np.asarray(histogram, np.float64)[..., ::-1], -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            above = above / above[..., -1:]
        rates.append(np.concatenate([above[..., :1] * 0, above], -1))
    return rates[0], rates[1]


def roc(right: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve's false and true positive rates (V,), from (0, 0) to (1, 1).

    Args:
        right: (P,) scores of pairs that belong together.
        wrong: scores of pairs that do not, in any order.

    Returns:
        two arrays, NaN where one of the two kinds is missing.
    """
    wrong = np.sort(wrong)
    values, counts = np.unique(right, return_counts=True)
    values, reached = values[::-1], np.cumsum(counts[::-1])
    # At each right score two vertices: what lies above it, and what lies at or above it.
    above = len(wrong) - np.stack([np.searchsorted(wrong, values, s) for s in ("right", "left")], 1)
    true = np.stack([np.append(0, reached[:-1]), reached], 1) if len(values) else above
    with np.errstate(invalid="ignore", divide="ignore"):
        false = np.concatenate([[0], above.ravel(), [len(wrong)]]) / np.float64(len(wrong))
        return false, np.concatenate([[0], true.ravel(), [len(right)]]) / np.float64(len(right))


def area_under(false: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Area under ROC curves (..., V): how often a right pair scores higher; ties count half."""
    return (np.diff(false) * (true[..., 1:] + true[..., :-1]) / 2).sum(-1)


def equal_error_rate(false: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Where ROC curves (..., V) have as many false positives as false negatives, interpolated."""
    excess = false + true - 1  # from -1 to 1
    after = np.maximum((excess >= 0).argmax(-1), 1)[..., None]
    high, low = (np.take_along_axis(excess, i, -1) for i in (after, after - 1))
    end, start = (np.take_along_axis(false, i, -1) for i in (after, after - 1))
    return (start + (end - start) * low / (low - high))[..., 0]


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative; ties count half.

    Args:
        scores: (N,).
        positive: (N,) booleans.

    Returns:
        0 to 1, or NaN where one class is missing.
    """
    return float(area_under(*roc(scores[positive], scores[~positive])))


def verification_auc(compared: Comparison, restriction: str = "") -> float:
    """AUC over all voice-face pairs without an interval, for a look during training."""
    trials = compared.trials[restriction]
    return float(area_under(*roc(compared.scores[trials.own], compared.scores[trials.others])))


def roc_curve_points(
    compared: Comparison,
    restriction: str = "",
    kept: np.ndarray | None = None,
    points: int = CURVE_POINTS,
) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve for a chart: rates of false and true positives, at most `points` of each.

    Args:
        compared: the scores.
        restriction: which of the comparison's; "" for none.
        kept: (N,) booleans: the probes that are drawn; all if None.
        points: how many, evenly spaced along the curve.
    """
    trials = compared.trials[restriction]
    some = slice(None) if kept is None else np.asarray(kept, bool)
    scores = compared.scores[some]
    false, true = roc(scores[trials.own[some]], scores[trials.others[some]])
    if len(false) <= points:
        return false, true
    along = np.append(0, np.cumsum(np.hypot(np.diff(false), np.diff(true))))
    places = np.linspace(0, along[-1], points)
    return np.interp(places, along, false), np.interp(places, along, true)
