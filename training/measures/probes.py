"""Can a trait be read from an embedding at all? Linear probes whose chance is known.

A probe is fitted on some speakers and read on others (10 folds by speaker, seeded), so that what it
scores is what the features tell of people it never saw.

**How it is fitted.** A ridge regression on each training speaker's mean features, standardised, its
strength chosen on the training speakers. A number is predicted as it is, a class by one column a
class, each divided by the class's share, and the highest wins: a rule that serves the mean accuracy
over classes, not the largest class.

**Why the intervals are wider than the resampling alone.** Every two folds test each other: what
speaker i teaches about j is, by the symmetry of the ridge, what j teaches about i, and is counted
twice. Where the features tell nothing, the variance of the score is therefore twice what
resampling the finished predictions shows. The replicates' distances from the figure are stretched
by sqrt(2) to that end. Where the features tell much, this is too wide, never too narrow (compare
Bates, Hastie and Tibshirani, "Cross-validation: what does it estimate", 2021).

**Why r has no bias.** A fold whose targets are high leaves a training set whose mean is low: pooled
predictions of noise correlate below 0. Targets are therefore centred, and predictions centred and
scaled, within each fold.

**What is held equal** (`within`, for example gender and age). Numbers enter with their squares and
apart by label; features and target are both freed of all that by regression on the training
speakers ("partialling out", Robinson 1988; Chernozhukov et al. 2018), and the probe predicts what
remains. What it adds is compared with a probe that is fitted alike, with the same covariates and
features, but to what remains of *other* people (the mean of several exchanges): that one has as
much noise to fit, so that features that tell nothing beyond the covariates score above it by 0 on
the mean, not below.

Letters: N rows, S speakers, F features, K classes or 1, C columns of covariates, B resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from training.measures.attributes import balanced_accuracy
from training.measures.resampling import Figure, SpeakerBootstrap

FOLDS = 10
LEAST_SPEAKERS = 20  # or families; fewer teach a probe nothing: no figure
LEAST_IN_A_CLASS = 8  # speakers; a class with fewer takes no part
STRENGTHS = np.logspace(-1, 5, 13)  # of the ridge, on standardised features
EXCHANGES = 16  # of the targets among people, for the covariates' own score
WIDER = np.sqrt(2)  # see above


def probe_number(
    bootstrap: SpeakerBootstrap,
    features: np.ndarray,
    target: np.ndarray,
    speakers: np.ndarray,
    within: Sequence[np.ndarray] | np.ndarray | None = None,
    kept: np.ndarray | None = None,
    families: np.ndarray | None = None,
) -> dict[str, Figure]:
    """How well a number, for example a length or an age, is predicted from the features.

    Args:
        bootstrap: of the N rows' speakers.
        features: (N, F), for example embeddings.
        target: (N,); rows where it is unknown (NaN) take no part.
        speakers: (N,) who each row is.
        within: covariates (N,) each, or (N, C): labels or numbers to hold equal. Rows where one is
            unknown ("" or NaN) take no part.
        kept: (N,) booleans: the group that is measured; all if None.
        families: (N,) who must not be in two folds, where speakers are not independent; the
            bootstrap should then be of families, too. The speakers if None.

    Returns:
        `r` between prediction and target, chance 0. With `within` both are what remains beyond the
        covariates, and there are also `from_covariates`, the r with the whole target of the
        covariates and a probe fitted to other people's remains, and `above_covariates`, by how much
        the r of the covariates and the right probe is higher (chance 0). No figure (None) for fewer
        than `LEAST_SPEAKERS` speakers (or families) or a target that does not vary.
    """
    target = np.asarray(target, float)
    group = _group(bootstrap, features, np.isfinite(target), within, kept)
    rows, names = np.flatnonzero(group), ["r"]
    names += [] if within is None else ["from_covariates", "above_covariates"]
    people = np.asarray(speakers)[rows]
    kin = people if families is None else np.asarray(families)[rows]
    varies = len(rows) and np.ptp(target[rows]) > 0
    if not varies or len(np.unique(kin)) < LEAST_SPEAKERS:
        return _nobody(bootstrap, names, group)
    truth = target[rows, None]
    folds = _deal(kin, None, bootstrap.seed)
    design, inputs = _design(within, rows), np.asarray(features, float)[rows]
    exchanges = 0 if within is None else EXCHANGES
    fit = _cross_fit(inputs, truth, design, people, folds, exchanges)

    def r(prediction: np.ndarray, actual: np.ndarray) -> Figure:
        values = np.zeros((2, len(bootstrap)))
        values[0, rows] = _within_folds(prediction[:, 0], folds, scaled=True)
        values[1, rows] = _within_folds(actual[:, 0], folds)
        return bootstrap.correlation(*values, group)

    taken = folds.max() + np.linalg.matrix_rank(design)
    figures = {"r": _wider_r(r(fit.beyond[0], truth - fit.covariates), taken)}
    if within is None:
        return figures
    scores = [r(fit.covariates + beyond, truth) for beyond in fit.beyond]
    return figures | _against_covariates(bootstrap, scores, group, partial(_wider_r, taken=taken))


def probe_class(
    bootstrap: SpeakerBootstrap,
    features: np.ndarray,
    target: np.ndarray,
    speakers: np.ndarray,
    within: Sequence[np.ndarray] | np.ndarray | None = None,
    kept: np.ndarray | None = None,
    families: np.ndarray | None = None,
) -> dict[str, Figure]:
    """How well a class, for example an eye colour, is predicted from the features.

    Args:
        bootstrap: of the N rows' speakers.
        features: (N, F), for example embeddings.
        target: (N,) labels; rows where it is unknown ("") take no part, nor do those of a class
            with fewer than `LEAST_IN_A_CLASS` speakers (see `classes_probed`).
        speakers: (N,) who each row is.
        within: see `probe_number`.
        kept: (N,) booleans: the group that is measured; all if None.
        families: see `probe_number`.

    Returns:
        `balanced_accuracy`, chance one in as many as there are classes. With `within` it is that of
        the covariates and the features together, its chance is `from_covariates`, that of the
        covariates and a probe fitted to other people's remains, and the test is `above_covariates`,
        by how much it is higher (chance 0). No figure (None) for fewer than `LEAST_SPEAKERS`
        speakers (or families) or two classes.
    """
    target, people = np.asarray(target, str), np.asarray(speakers)
    group = _group(bootstrap, features, target != "", within, kept)
    classes = classes_probed(target, people, group)
    group &= np.isin(target, classes)
    rows, names = np.flatnonzero(group), ["balanced_accuracy"]
    names += [] if within is None else ["from_covariates", "above_covariates"]
    people = people[rows]
    kin = people if families is None else np.asarray(families)[rows]
    if len(classes) < 2 or len(np.unique(kin)) < LEAST_SPEAKERS:
        return _nobody(bootstrap, names, group)
    truth = (target[rows, None] == np.asarray(classes)).astype(float)  # (N, K)
    folds = _deal(kin, target[rows], bootstrap.seed)
    design, inputs = _design(within, rows), np.asarray(features, float)[rows]
    exchanges = 0 if within is None else EXCHANGES
    fit = _cross_fit(inputs, truth, design, people, folds, exchanges)

    def score(beyond: np.ndarray) -> Figure:
        read = np.full(len(bootstrap), "", target.dtype)
        read[rows] = np.asarray(classes)[((fit.covariates + beyond) / fit.shares).argmax(1)]
        return balanced_accuracy(bootstrap, target, read, group)

    scores = [score(beyond) for beyond in fit.beyond]
    own = _wider(scores[0])
    if within is None:
        return {"balanced_accuracy": own}
    compared = _against_covariates(bootstrap, scores, group, _wider)
    own = replace(own, chance=compared["from_covariates"].value)
    return {"balanced_accuracy": own} | compared


def classes_probed(
    target: np.ndarray, speakers: np.ndarray, kept: np.ndarray | None = None
) -> tuple[str, ...]:
    """The classes that `probe_class` tells apart: those with `LEAST_IN_A_CLASS` speakers or more.

    Args:
        target: (N,) labels, "" where unknown.
        speakers: (N,) who each row is.
        kept: (N,) booleans: the group that is measured; all if None.
    """
    target, speakers = np.asarray(target, str), np.asarray(speakers)
    known = (target != "") & (True if kept is None else np.asarray(kept, bool))
    return tuple(
        str(one)
        for one in np.unique(target[known])
        if len(np.unique(speakers[known & (target == one)])) >= LEAST_IN_A_CLASS
    )


@dataclass
class _Fit:
    """What is predicted of each row by a probe that did not see its speaker.

    Attributes:
        covariates: (N, K) what the covariates alone say.
        beyond: (1 + E, N, K) what the features add to that; from the second on, what they add
            where the training speakers' targets were exchanged.
        shares: (N, K) the mean target in the training folds.
    """

    covariates: np.ndarray
    beyond: np.ndarray
    shares: np.ndarray


def _cross_fit(
    features: np.ndarray,
    target: np.ndarray,
    design: np.ndarray,
    speakers: np.ndarray,
    folds: np.ndarray,
    exchanges: int = 0,
) -> _Fit:
    """Fits the probe on each fold's complement, (N, F) and (N, C) to (N, K)."""
    _, index = np.unique(speakers, return_inverse=True)
    mean_features, mean_target, mean_design, fold_of = (
        _means(table, index) for table in (features, target, design, folds[:, None])
    )
    fit = _Fit(*(np.zeros(shape) for shape in _shapes(target.shape, exchanges)))
    rng = np.random.default_rng(exchanges)
    for fold in range(folds.max() + 1):
        train, test = fold_of[:, 0] != fold, folds == fold
        basis = _orthonormal(mean_design[train])  # (S, C)
        inputs = _freed(mean_features[train], basis)
        scale = inputs.std(0)
        scale[scale <= 1e-9 * np.abs(mean_features).max()] = np.inf  # does not vary: takes no part
        left = _freed(mean_target[train], basis)  # (S, K)
        lefts = [left] + [_exchanged(left, basis, rng) for _ in range(exchanges)]
        slopes = _ridge(inputs / scale, np.stack(lefts), basis.shape[1])  # (1 + E, F, K)
        both = np.hstack([mean_features, mean_target])[train]
        explained = design[test] @ np.linalg.lstsq(mean_design[train], both, rcond=None)[0]
        inputs = (features[test] - explained[:, : features.shape[1]]) / scale
        fit.beyond[:, test] = inputs @ slopes
        fit.covariates[test] = explained[:, features.shape[1] :]
        fit.shares[test] = mean_target[train].mean(0)
    return fit


def _shapes(shape: tuple[int, int], exchanges: int) -> list[tuple[int, ...]]:
    return [shape, (1 + exchanges, *shape), shape]


def _orthonormal(design: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns' span, (S, C) to (S, rank)."""
    from scipy.linalg import orth

    return orth(design, rcond=1e-9)


def _freed(table: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """What the covariates do not explain of a table (S, ...)."""
    return table - basis @ (basis.T @ table)


def _exchanged(left: np.ndarray, basis: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remaining targets (S, K) given to other people, as free of the covariates and as large."""
    exchanged = _freed(rng.permutation(left), basis)
    lengths = np.linalg.norm(left, axis=0), np.linalg.norm(exchanged, axis=0)
    return exchanged * np.divide(*lengths, out=np.zeros(left.shape[1]), where=lengths[1] > 0)


def _ridge(inputs: np.ndarray, outputs: np.ndarray, used: int) -> np.ndarray:
    """Slopes (T, F, K) of ridge regressions of each of (T, S, K) on (S, F), strength by GCV.

    Generalised cross-validation (Golub, Heath and Wahba, 1979), not leaving one out: rows that
    were freed of the covariates sum to 0, so that the others give the one left out away.

    Args:
        inputs: (S, F) freed of `used` covariates.
        outputs: (T, S, K) freed likewise; one strength for each of T.
        used: degrees of freedom that the covariates took.
    """
    u, scales, v = np.linalg.svd(inputs, full_matrices=False)
    along = u.T @ outputs  # (T, min(S, F), K)
    outside = (outputs**2).sum((1, 2)) - (along**2).sum((1, 2))  # (T,)
    shrunk = scales**2 / (scales**2 + STRENGTHS[:, None])  # (strengths, min(S, F))
    errors = ((1 - shrunk) ** 2) @ (along**2).sum(2).T + outside  # (strengths, T)
    free = len(inputs) - used - shrunk.sum(1)
    best = (errors / np.maximum(free, 1e-3)[:, None] ** 2).argmin(0)  # (T,)
    weights = scales / (scales**2 + STRENGTHS[best, None])  # (T, min(S, F))
    return v.T @ (weights[:, :, None] * along)


def _means(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Mean rows (S, ...) of each speaker."""
    sums = np.zeros((index.max() + 1, table.shape[1]))
    np.add.at(sums, index, table)
    return sums / np.bincount(index)[:, None]


def _deal(speakers: np.ndarray, classes: np.ndarray | None, seed: int) -> np.ndarray:
    """The fold (N,) of each row: speakers dealt in random order, of each class alike."""
    names, first = np.unique(speakers, return_index=True)
    order = np.random.default_rng(seed).permutation(len(names))
    if classes is not None:
        order = order[np.argsort(classes[first][order], kind="stable")]
    fold = np.empty(len(names), int)
    fold[order] = np.arange(len(names)) % min(FOLDS, len(names) // 4)
    return fold[np.searchsorted(names, speakers)]


def _within_folds(values: np.ndarray, folds: np.ndarray, scaled: bool = False) -> np.ndarray:
    """Values (N,) centred in each fold, and divided by their deviation there if `scaled`."""
    rows = np.bincount(folds)
    values = values - (np.bincount(folds, values) / rows)[folds]
    if not scaled:
        return values
    deviation = np.sqrt(np.bincount(folds, values**2) / rows)
    return values / np.where(deviation > 0, deviation, 1)[folds]


def _columns(within: Sequence[np.ndarray] | np.ndarray | None) -> list[np.ndarray]:
    """Each covariate as numbers where it is one, else as labels."""
    if within is None:
        return []
    if isinstance(within, np.ndarray):
        within = [within] if within.ndim == 1 else list(within.T)
    columns = []
    for column in map(np.asarray, within):
        try:
            columns.append(column.astype(float))
        except ValueError:
            columns.append(column.astype(str))
    return columns


def _design(within: Sequence[np.ndarray] | np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """(N, C): a constant or one column a label, and numbers with their squares by label."""
    columns = [column[rows] for column in _columns(within)]
    labels = np.full(len(rows), "")
    for column in (c for c in columns if c.dtype.kind == "U"):
        labels = np.strings.add(np.strings.add(labels, "|"), column)
    numbers = [np.ones(len(rows))]
    for column in (c for c in columns if c.dtype.kind != "U"):
        standard = (column - column.mean()) / (column.std() or 1)
        numbers += [standard, standard**2]
    return np.stack([n * (labels == one) for one in np.unique(labels) for n in numbers], axis=1)


def _group(
    bootstrap: SpeakerBootstrap,
    features: np.ndarray,
    known: np.ndarray,
    within: Sequence[np.ndarray] | np.ndarray | None,
    kept: np.ndarray | None,
) -> np.ndarray:
    """(N,) rows that take part."""
    lengths = {len(bootstrap), len(features), len(known), *map(len, _columns(within))}
    if len(lengths) > 1:
        raise ValueError(f"features, target and covariates need one row each, got {lengths} rows")
    group = known & (True if kept is None else np.asarray(kept, bool))
    for column in _columns(within):
        group &= column != "" if column.dtype.kind == "U" else np.isfinite(column)
    if not np.isfinite(np.asarray(features)[group]).all():
        raise ValueError("a row has features that are no numbers: give it those of a stand-in")
    return group


def _against_covariates(
    bootstrap: SpeakerBootstrap,
    scores: list[Figure],
    group: np.ndarray,
    wider: Callable[[Figure], Figure],
) -> dict[str, Figure]:
    """The mean of all scores but the first, and how far the first lies above it.

    The half of the difference's variance that resampling does not show (see above) is here that
    among the exchanges, which are rather many small losses and a few large ones than normal.
    """
    own, *others = scores
    values = np.asarray([other.value for other in others])  # (E,)
    mean = np.mean([other.replicates for other in others], axis=0)  # (B,)
    by_chance = (values - values.mean())[np.arange(bootstrap.rounds) % len(values)]
    above = own.replicates - mean - by_chance / WIDER
    return {
        "from_covariates": wider(bootstrap.figure(float(values.mean()), mean, group)),
        "above_covariates": bootstrap.figure(own.value - float(values.mean()), above, group, 0.0),
    }


def _wider(figure: Figure) -> Figure:
    """A share with replicates `WIDER` times as far from it."""
    replicates = figure.value + WIDER * (figure.replicates - figure.value)
    return replace(figure, replicates=replicates.clip(0, 1))


def _wider_r(figure: Figure, taken: int) -> Figure:
    """The same on Fisher's scale, where a correlation's spread does not depend on its size.

    Fold means and covariates, which were taken out, leave `taken` speakers' worth of freedom less.
    """
    left = max(figure.speakers - taken, 1)
    by = WIDER * np.sqrt(figure.speakers / left)
    limit = 1 - 1e-12
    z, replicates = (
        np.arctanh(np.clip(v, -limit, limit)) for v in (figure.value, figure.replicates)
    )
    return replace(figure, replicates=np.tanh(z + by * (replicates - z)))


def _nobody(bootstrap: SpeakerBootstrap, names: list[str], group: np.ndarray) -> dict[str, Figure]:
    unknown = np.full(bootstrap.rounds, np.nan)
    return {name: bootstrap.figure(np.nan, unknown, group) for name in names}
