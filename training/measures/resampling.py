"""Figures with 95 % intervals: speakers are drawn again with replacement, with all that is theirs.

Samples of one speaker resemble each other; drawing them one by one would make every interval too
narrow. One draw of speakers serves all figures of an evaluation, so that two figures' replicates
belong together, and their difference has an interval of its own (`Figure.minus`).

Letters: N rows (pairs, recordings, images), S speakers, B resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDS = 1000
COVERED = (2.5, 97.5)  # percentiles of the replicates: a 95 % interval
FEWEST_DRAWN = 3  # speakers


@dataclass(frozen=True)
class Figure:
    """A figure, what it would have been for other draws of the speakers, and what it rests on.

    Attributes:
        value: the figure; NaN where nobody was there to measure.
        replicates: (B,) the same figure on each resample; NaN where a resample has nobody.
        speakers: how many it rests on.
        samples: how many rows.
        chance: what knowing nothing would score, where that is known.
        exact: an interval that takes the replicates' place, where these know no doubt.
    """

    value: float
    replicates: np.ndarray
    speakers: int
    samples: int
    chance: float | None = None
    exact: tuple[float, float] | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high) of the 95 % interval; None without a figure, or from one speaker or two.

        Drawing these again and again would show no doubt, or hardly any.
        """
        if self.exact is not None:
            return self.exact
        if self.speakers < FEWEST_DRAWN:
            return None
        known = self.replicates[np.isfinite(self.replicates)]
        if not np.isfinite(self.value) or not len(known):
            return None
        low, high = np.percentile(known, COVERED)
        return float(low), float(high)

    def minus(self, other: "Figure") -> "Figure":
        """How far this figure lies above another of the same speakers, resampled alike.

        Raises:
            ValueError: if they have not as many resamples; that these are the same is the caller's
                to see to: one `SpeakerBootstrap` for both.
        """
        if self.replicates.shape != other.replicates.shape:
            raise ValueError("only figures of one SpeakerBootstrap can be subtracted")
        return Figure(
            self.value - other.value,
            self.replicates - other.replicates,
            min(self.speakers, other.speakers),
            min(self.samples, other.samples),
        )

    def to_json(self) -> dict[str, Any]:
        """value, interval, speakers, samples and chance; None where there is no number."""
        value = float(self.value) if np.isfinite(self.value) else None
        return {
            "value": value,
            "interval": self.interval,
            "speakers": self.speakers,
            "samples": self.samples,
            "chance": self.chance,
        }


class SpeakerBootstrap:
    """Draws of speakers with replacement, and figures on them.

    Args:
        speakers: (N,) who each row is of.
        rounds: B, resamples.
        seed: of the draws.
        families: (N,) who is drawn together, where speakers are not independent of each other (as
            those of the cast who speak with one base voice); everybody alone if None. Figures still
            count speakers; exact intervals count families.

    Raises:
        ValueError: without any row, or if a speaker is of two families.

    Example:
        ```python
        >>> import numpy as np
        >>> bootstrap = SpeakerBootstrap(["a", "a", "b"], rounds=200)
        >>> round(bootstrap.mean(np.array([1.0, 1.0, 4.0])).value, 1)
        2.0

        ```
    """

    def __init__(
        self,
        speakers: Sequence,
        rounds: int = ROUNDS,
        seed: int = 0,
        families: Sequence | None = None,
    ):
        self.names, first, self.index = np.unique(
            np.asarray(speakers), return_index=True, return_inverse=True
        )
        if not len(self.names):
            raise ValueError("there is nobody to measure: pass at least one row")
        self.rounds, self.seed = rounds, seed
        of_rows = self.index if families is None else np.unique(families, return_inverse=True)[1]
        self.families = of_rows[first]  # (S,)
        if not np.array_equal(self.families[self.index], of_rows):
            raise ValueError("a speaker is of two families: name one for all rows of a speaker")
        count = self.families.max() + 1
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=rounds)
        self.counts = drawn[:, self.families].astype(np.float64)  # (B, S)

    def __len__(self) -> int:
        return len(self.index)

    def mean(
        self,
        values: np.ndarray,
        kept: np.ndarray | None = None,
        chance: float | None = None,
        share: bool = False,
    ) -> Figure:
        """The mean over rows.

        Args:
            values: (N,); NaN is refused, because it would hide a sample.
            kept: (N,) booleans: the group that is measured; all if None.
            chance: see `Figure`.
            share: the values are shares of successes. Where all agree (0 or 1), resampling knows
                no doubt, and the interval is the exact binomial one of as many trials as speakers,
                or families of them (Clopper and Pearson, 1934).
        """
        figure = self.ratio(values, np.ones(len(self)), kept, chance)
        if share and figure.value in (0.0, 1.0):
            from scipy.stats import binomtest

            trials = self.independent(kept)
            test = binomtest(round(figure.value * trials), trials)
            low, high = test.proportion_ci()
            return Figure(
                figure.value,
                figure.replicates,
                figure.speakers,
                figure.samples,
                chance,
                (float(low), float(high)),
            )
        return figure

    def ratio(
        self,
        numerators: np.ndarray,
        denominators: np.ndarray,
        kept: np.ndarray | None = None,
        chance: float | None = None,
    ) -> Figure:
        """Sum of `numerators` over sum of `denominators`, both (N,); see `mean`."""
        above, below = self.sums(numerators, kept), self.sums(denominators, kept)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = above.sum() / below.sum() if len(above) else np.nan
            replicates = (self.counts @ above) / (self.counts @ below)
        return self.figure(float(value), replicates, kept, chance)

    def median(self, values: np.ndarray, kept: np.ndarray | None = None) -> Figure:
        """The median over rows; of two middle ones, the mean."""
        kept = self._kept(kept)
        values, index = np.asarray(values, float)[kept], self.index[kept]
        order = np.argsort(values)
        ordered = np.append(values[order], np.nan)
        reached = np.cumsum(self.counts[:, index[order]], axis=1)  # (B, rows)
        if not len(values):
            return self.figure(np.nan, np.full(self.rounds, np.nan), kept)
        half = reached[:, -1:] / 2
        lower, upper = (reached < half).sum(1), (reached <= half).sum(1)
        replicates = (ordered[lower] + ordered[np.minimum(upper, len(values))]) / 2
        return self.figure(float(np.median(values)), replicates, kept)

    def correlation(
        self, x: np.ndarray, y: np.ndarray, kept: np.ndarray | None = None, chance: float = 0.0
    ) -> Figure:
        """Pearson's r between x and y, both (N,); NaN where one of them does not vary."""
        kept = self._kept(kept)
        x, y = (np.asarray(v, float) for v in (x, y))
        x, y = (v - v[kept].sum() / max(kept.sum(), 1) for v in (x, y))
        ones = np.ones(len(self))
        moments = np.stack(
            [self.sums(v, kept) for v in (ones, x, y, x * x, y * y, x * y)], axis=1
        )  # (S, 6)
        everybody = np.vstack([moments.sum(0), self.counts @ moments])  # (1 + B, 6)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_x, mean_y, xx, yy, xy = (everybody[:, 1:] / everybody[:, :1]).T
            variances = (xx - mean_x**2) * (yy - mean_y**2)
            floor = 1e-12 * xx.clip(1e-300) * yy.clip(1e-300)
            r = np.where(variances > floor, (xy - mean_x * mean_y) / np.sqrt(variances), np.nan)
        return self.figure(float(r[0]), r[1:], kept, chance)

    def statistic(
        self,
        function: Callable[[np.ndarray], float],
        kept: np.ndarray | None = None,
        chance: float | None = None,
    ) -> Figure:
        """Any figure, as a function of how often each row counts.

        Args:
            function: takes weights (N,), 0 where a row is left out, and returns the figure.
            kept: see `mean`.
            chance: see `Figure`.
        """
        kept = self._kept(kept)
        replicates = np.asarray([function(c[self.index] * kept) for c in self.counts])
        return self.figure(float(function(kept.astype(float))), replicates, kept, chance)

    def sums(self, values: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
        """Sum of `values` (N,) over each speaker's kept rows, (S,).

        Raises:
            ValueError: for another length, or NaN among the kept rows.
        """
        values, kept = np.asarray(values, float), self._kept(kept)
        if values.shape != self.index.shape:
            raise ValueError(f"expected {len(self)} values, got shape {values.shape}")
        if not np.isfinite(values[kept]).all():
            raise ValueError("a figure has rows without a value: give each a stand-in, or no group")
        return np.bincount(self.index[kept], values[kept], minlength=len(self.names))

    def figure(
        self,
        value: float,
        replicates: np.ndarray,
        kept: np.ndarray | None = None,
        chance: float | None = None,
    ) -> Figure:
        """A figure from its replicates (B,), which were made with `counts`."""
        kept = self._kept(kept)
        speakers = len(np.unique(self.index[kept]))
        return Figure(value, np.asarray(replicates, float), speakers, int(kept.sum()), chance)

    def over_pairs(self, values: np.ndarray) -> np.ndarray:
        """(B,) sum of values (S, S) of pairs of speakers, each as often as both were drawn.

        A pair of one family counts as often as the family: squared, what relatives have in common
        would weigh twice as much in the resamples as in the figure.
        """
        related = self.families[:, None] == self.families
        apart, together = np.where(related, 0, values), np.where(related, values, 0)
        return ((self.counts @ apart) * self.counts).sum(1) + self.counts @ together.sum(1)

    def independent(self, kept: np.ndarray | None = None) -> int:
        """How many speakers, or families of speakers, the kept rows (N,) are of."""
        return len(np.unique(self.families[self.index[self._kept(kept)]]))

    def _kept(self, kept: np.ndarray | None) -> np.ndarray:
        return np.ones(len(self), bool) if kept is None else np.asarray(kept, bool)
