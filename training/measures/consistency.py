"""How alike the predictions from several recordings of one speaker are, and how unlike others'.

Letters: N recordings, D size of the embedding, S speakers, B resamples.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.measures.association import Trials, binned, verification
from training.measures.resampling import Figure, SpeakerBootstrap
from training.measures.similarity import unit


def consistency(
    bootstrap: SpeakerBootstrap,
    embeddings: np.ndarray,
    speakers: Sequence,
    genders: Sequence[str] | None = None,
    kept: np.ndarray | None = None,
) -> dict[str, Figure]:
    """Mean cosines within and between speakers, and whether the prediction tells speakers apart.

    Every speaker, and every pair of speakers, weighs alike in the means, however many recordings
    there are; a recording is never compared with itself. Speakers with a single recording have no
    figure within, but count between.

    Args:
        bootstrap: draws of the speakers of the N recordings.
        embeddings: (N, D) predictions, centred by the caller.
        speakers: (N,) whose recording each is.
        genders: (N,) labels of the speakers, "" unknown; without, the figures among one gender
            are left out.
        kept: (N,) booleans: the recordings that are compared with each other; all if None.

    Returns:
        `within`, `between` and `between_same_gender`, mean cosines (-1 to 1); `same_speaker_auc`
        and `same_speaker_auc_same_gender` over all pairs of recordings (chance 0.5).

    Raises:
        ValueError: if the speakers are not the bootstrap's, or a number is not finite.
    """
    speakers = np.asarray(speakers)
    if not np.array_equal(bootstrap.names[bootstrap.index], speakers):
        raise ValueError("the bootstrap must be of the recordings' speakers, in their order")
    kept = np.ones(len(speakers), bool) if kept is None else np.asarray(kept, bool)
    units = unit(embeddings)
    figures = {"within": _within(bootstrap, units, kept)}
    restrictions = {"": np.zeros(len(speakers), int)}
    if genders is not None:
        restrictions["_same_gender"] = _numbers(genders)
    same = bootstrap.index[:, None] == bootstrap.index
    own = same & ~np.eye(len(speakers), dtype=bool) & kept  # (N, N)
    trials = {}
    for suffix, labels in restrictions.items():
        figures[f"between{suffix}"] = _between(bootstrap, units, kept & (labels >= 0), labels)
        known = (labels >= 0)[:, None] & (labels >= 0)
        equal = labels[:, None] == labels
        trials[suffix] = Trials(own & known, ~same & kept & known & equal)
    scores = (units @ units.T).astype(np.float32)
    compared = binned(scores, trials, speakers, speakers)
    for suffix, some in trials.items():
        present = kept & (some.own | some.others).any(1)
        auc, _ = verification(bootstrap, compared, some, present)
        figures[f"same_speaker_auc{suffix}"] = auc
    return figures


def _within(bootstrap: SpeakerBootstrap, units: np.ndarray, kept: np.ndarray) -> Figure:
    """Mean over speakers of the mean cosine among their recordings."""
    sums, counts = _sums(bootstrap, units, kept)
    several = counts > 1
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.bincount(
            bootstrap.index[kept], np.square(units[kept]).sum(1), len(bootstrap.names)
        )  # 1 a recording, but 0 for a zero vector: what it scores with itself
        cosines = (np.square(sums).sum(1) - lengths) / (counts * (counts - 1))  # (S,)
        drawn = bootstrap.counts[:, several]
        value = cosines[several].mean() if several.any() else np.nan
        replicates = drawn @ cosines[several] / drawn.sum(1)
    return bootstrap.figure(float(value), replicates, kept & several[bootstrap.index])


def _between(
    bootstrap: SpeakerBootstrap, units: np.ndarray, kept: np.ndarray, labels: np.ndarray
) -> Figure:
    """Mean over pairs of speakers with one label of the mean cosine between their recordings."""
    sums, counts = _sums(bootstrap, units, kept)
    means = sums / np.maximum(counts, 1)[:, None]
    of_speaker = np.full(len(counts), -1)
    of_speaker[bootstrap.index[kept]] = labels[kept]
    pairs = (of_speaker[:, None] == of_speaker) & (counts > 0)[:, None] & (counts > 0)
    np.fill_diagonal(pairs, False)
    cosines = np.where(pairs, means @ means.T, 0)  # (S, S)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = cosines.sum() / np.float64(pairs.sum())
        replicates = bootstrap.over_pairs(cosines) / bootstrap.over_pairs(pairs)
    figure = bootstrap.figure(float(value), replicates, kept)
    return replace(figure, speakers=int((pairs.any(1)).sum()))


def _sums(
    bootstrap: SpeakerBootstrap, units: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of each speaker's kept unit vectors (S, D), and how many they are (S,)."""
    sums = np.zeros((len(bootstrap.names), units.shape[1]))
    np.add.at(sums, bootstrap.index[kept], units[kept])
    return sums, np.bincount(bootstrap.index[kept], minlength=len(sums))


def _numbers(labels: Sequence[str]) -> np.ndarray:
    """(N,) a number for each label, -1 for ""."""
    names, numbers = np.unique(np.asarray(labels), return_inverse=True)
    return np.where(names[numbers] == "", -1, numbers)
