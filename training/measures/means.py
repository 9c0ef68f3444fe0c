"""Several means over the same rows at once: one matrix product for all, instead of one for each.

Letters: N rows, S speakers, B resamples, F figures.
"""

from collections.abc import Mapping

import numpy as np

from training.measures.resampling import Figure, SpeakerBootstrap


def means(
    bootstrap: SpeakerBootstrap,
    values: Mapping[str, np.ndarray],
    kept: np.ndarray | None = None,
    chances: Mapping[str, float] | None = None,
    share: bool = False,
) -> dict[str, Figure]:
    """The mean over rows of each measure, as `SpeakerBootstrap.mean` gives it.

    Args:
        bootstrap: draws of the speakers of the N rows.
        values: measure to (N,) its value of each row.
        kept: (N,) booleans: the group that is measured; all if None.
        chances: measure to what knowing nothing would score.
        share: the values are shares of successes; see `SpeakerBootstrap.mean`.

    Raises:
        ValueError: for another length, or NaN among the kept rows.
    """
    chances = chances or {}
    names = list(values)
    columns = [bootstrap.sums(values[name], kept) for name in names]
    sums = np.stack([bootstrap.sums(np.ones(len(bootstrap)), kept), *columns], axis=1)  # (S, 1 + F)
    with np.errstate(invalid="ignore", divide="ignore"):
        everybody = sums.sum(0)
        resampled = bootstrap.counts @ sums  # (B, 1 + F)
        points, replicates = everybody[1:] / everybody[0], resampled[:, 1:] / resampled[:, :1]
    figures = {}
    for column, name in enumerate(names):
        value, chance = float(points[column]), chances.get(name)
        if share and value in (0.0, 1.0):  # resampling knows no doubt there: the exact interval
            figures[name] = bootstrap.mean(values[name], kept, chance, share=True)
        else:
            figures[name] = bootstrap.figure(value, replicates[:, column], kept, chance)
    return figures
