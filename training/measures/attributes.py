"""Do an original and a made face show the same gender and the same age?

What is compared are readings of a judge, or a label with a reading. Letters: N rows, K classes,
S speakers, B resamples.
"""

from collections.abc import Sequence

import numpy as np

from training.measures.resampling import Figure, SpeakerBootstrap

AGE_GROUPS = ("under 30", "30 to 44", "45 to 59", "60 and over")
AGE_GROUP_STARTS = (30, 45, 60)  # years, from the second group on
# The paper's decades 10 to 70; who is younger or older stands with the first or the last.
DECADES = (
    "under 20",
    "20 to 29",
    "30 to 39",
    "40 to 49",
    "50 to 59",
    "60 to 69",
    "70 and over",
)
DECADE_STARTS = (20, 30, 40, 50, 60, 70)


def age_group(ages: np.ndarray) -> np.ndarray:
    """The group of `AGE_GROUPS` of each age (N,) in years, "" for NaN: (N,) str."""
    return _group(ages, AGE_GROUPS, AGE_GROUP_STARTS)


def decade(ages: np.ndarray) -> np.ndarray:
    """The group of `DECADES` of each age (N,) in years, "" for NaN: (N,) str."""
    return _group(ages, DECADES, DECADE_STARTS)


def _group(ages: np.ndarray, names: Sequence[str], starts: Sequence[float]) -> np.ndarray:
    ages = np.asarray(ages, float)
    groups = np.asarray(names)[np.searchsorted(starts, ages, side="right").clip(max=len(starts))]
    return np.where(np.isnan(ages), "", groups)


def confusion(truth: np.ndarray, read: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Counts (K, K) of what was read (columns) for each true class (rows).

    Args:
        truth: (N,) labels; rows whose truth is unknown ("") are left out.
        read: (N,) what the judge saw.
        classes: K names, in the table's order.

    Raises:
        ValueError: for a label that is none of the classes.
    """
    truth, read = np.asarray(truth, str), np.asarray(read, str)
    known = truth != ""
    rows, columns = _numbers(truth[known], classes), _numbers(read[known], classes)
    counts = np.bincount(rows * len(classes) + columns, minlength=len(classes) ** 2)
    return counts.reshape(len(classes), len(classes))


def class_agreement(
    bootstrap: SpeakerBootstrap,
    truth: np.ndarray,
    read: np.ndarray,
    classes: Sequence[str],
    name: str,
    kept: np.ndarray | None = None,
) -> dict[str, Figure]:
    """How often the class that is read is the true one: overall, by class, and their mean.

    Args:
        bootstrap: of the N rows' speakers.
        truth: (N,) labels; rows whose truth is unknown ("") take no part.
        read: (N,) what the judge saw.
        classes: K names.
        name: of the attribute, with which the measures' names begin.
        kept: (N,) booleans: the group that is measured; all if None.

    Returns:
        `{name}_accuracy`, `{name}_balanced_accuracy` (chance: one in as many as the group has
        classes, none for one), `{name}_accuracy_{class}` for each, spaces written as underscores.

    Raises:
        ValueError: for a label that is none of the classes.
    """
    truth, read = np.asarray(truth, str), np.asarray(read, str)
    kept = _known(truth != "", kept)
    for labels in (truth, read):
        _numbers(labels[kept], classes)
    right = truth == read
    figures = {
        f"{name}_accuracy": bootstrap.mean(right, kept, share=True),
        f"{name}_balanced_accuracy": balanced_accuracy(bootstrap, truth, read, kept),
    }
    for one in classes:
        key = f"{name}_accuracy_{one.replace(' ', '_')}"
        figures[key] = bootstrap.mean(right, kept & (truth == one), share=True)
    return figures


def balanced_accuracy(
    bootstrap: SpeakerBootstrap,
    truth: np.ndarray,
    read: np.ndarray,
    kept: np.ndarray | None = None,
) -> Figure:
    """The mean over the true classes of the share of each that is read right.

    A resample in which a class has nobody is the mean over the others. Where all rows are right,
    or all wrong, resampling knows no doubt, and the interval is binomial (Clopper and Pearson,
    1934) with as many trials as if each class had the smallest one's speakers: a little too wide
    where the classes differ in size, never too narrow.

    Args:
        bootstrap: of the N rows' speakers.
        truth: (N,) labels.
        read: (N,) labels.
        kept: (N,) booleans: the group that is measured; all if None.
    """
    truth, read = np.asarray(truth), np.asarray(read)
    kept = _known(np.ones(len(truth), bool), kept)
    classes = np.unique(truth[kept])
    if not len(classes):
        return bootstrap.figure(np.nan, np.full(bootstrap.rounds, np.nan), kept)
    shares = [bootstrap.mean(truth == read, kept & (truth == one)) for one in classes]
    replicates = np.stack([share.replicates for share in shares])  # (K, B)
    there = np.isfinite(replicates)
    with np.errstate(invalid="ignore"):  # a resample may have nobody
        replicates = np.where(there, replicates, 0).sum(0) / there.sum(0)
    value = float(np.mean([share.value for share in shares]))
    chance = 1 / len(classes) if len(classes) > 1 else None  # of one, nothing is to be told
    figure = bootstrap.figure(value, replicates, kept, chance)
    if value not in (0.0, 1.0):
        return figure
    from scipy.stats import binomtest

    smallest = min(bootstrap.independent(kept & (truth == one)) for one in classes)
    trials = len(classes) * smallest
    low, high = binomtest(round(value * trials), trials).proportion_ci()
    return Figure(
        value,
        replicates,
        figure.speakers,
        figure.samples,
        figure.chance,
        (float(low), float(high)),
    )


def age_agreement(
    bootstrap: SpeakerBootstrap,
    truth: np.ndarray,
    read: np.ndarray,
    kept: np.ndarray | None = None,
) -> dict[str, Figure]:
    """How near the age that is read comes to the true one.

    Args:
        bootstrap: of the N rows' speakers.
        truth: (N,) years; rows whose truth is unknown (NaN) take no part.
        read: (N,) years, what the judge saw.
        kept: (N,) booleans: the group that is measured; all if None.

    Returns:
        `age_mae` (mean absolute error, years), `age_r` (Pearson), and the figures of
        `class_agreement` by `AGE_GROUPS`, named `age_group_...`.

    Raises:
        ValueError: for an age that was not read (NaN).
    """
    truth, read = np.asarray(truth, float), np.asarray(read, float)
    kept = _known(np.isfinite(truth), kept)
    if np.isnan(read[kept]).any():
        raise ValueError("a face has no age read: have the judge read its fallback crop")
    error = np.abs(np.where(kept, truth - read, 0))
    known = np.where(kept, truth, 0), np.where(kept, read, 0)
    return {
        "age_mae": bootstrap.mean(error, kept),
        "age_r": bootstrap.correlation(*known, kept),
        **class_agreement(
            bootstrap, age_group(truth), age_group(read), AGE_GROUPS, "age_group", kept
        ),
    }


def _known(known: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    return known if kept is None else known & np.asarray(kept, bool)


def _numbers(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Each label's place among the classes."""
    order = np.argsort(classes)
    places = np.searchsorted(np.asarray(classes)[order], labels).clip(max=len(classes) - 1)
    places = order[places]
    wrong = np.asarray(classes)[places] != labels
    if wrong.any():
        raise ValueError(
            f"{str(labels[wrong][0])!r} is none of the classes {', '.join(classes)}: name its class"
        )
    return places
