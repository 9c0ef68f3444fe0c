"""What a data set states of how each voice was made, as the cast does.

Letters: N pairs, B batch, P voice parameters.
"""

import numpy as np

from training.data import Pairs

FOLLOW_SPEED = ("pitch_hz", "formant_ratio", "rate_ratio")  # faster resampled, all of them rise


class StatedVoices:
    """The parameters of the recordings of a split.

    Args:
        pairs: of the split.

    Attributes:
        names: of the parameters, P of them.
        parameters: (N, P) float64.
        genders: (N,) strings.

    Raises:
        ValueError: if not every pair states its voice's parameters.
    """

    def __init__(self, pairs: Pairs):
        stated = pairs.voice_parameters
        silent = sum(not voice for voice in stated)
        if silent:
            raise ValueError(
                f"voice_parameters are wanted, which {silent} of {len(pairs)} pairs do not state: "
                "set targets to face and losses.voice_parameters to 0"
            )
        self.names = sorted(n for n, value in stated[0].items() if isinstance(value, int | float))
        self.parameters = np.asarray([[voice[n] for n in self.names] for voice in stated], float)
        self.genders = pairs.genders
        self._follows_speed = np.isin(self.names, FOLLOW_SPEED)
        self._limits = self.parameters.min(0), self.parameters.max(0)
        self._standards = {
            gender: (known.mean(0), np.maximum(known.std(0), 1e-6))  # one voice deviates by nothing
            for gender in np.unique(self.genders)
            for known in [self.parameters[self.genders == gender]]
        }

    def played(self, rows: np.ndarray, speeds: np.ndarray) -> np.ndarray:
        """The parameters of recordings that are played faster or slower.

        Args:
            rows: (B,) which pairs are heard.
            speeds: (B,) how much faster than recorded, 1 for not at all.

        Returns:
            (B, P). Voices beyond all that were stated are taken for the last of these.
        """
        parameters = self.parameters[rows] * np.where(self._follows_speed, speeds[:, None], 1.0)
        return parameters.clip(*self._limits)

    def standardised(self, rows: np.ndarray, speeds: np.ndarray) -> np.ndarray:
        """The same, in standard deviations from the mean of the voice's gender, (B, P) float32."""
        parameters, genders = self.played(rows, speeds), self.genders[rows]
        result = np.empty_like(parameters, np.float32)
        for gender, (mean, deviation) in self._standards.items():
            of_gender = genders == gender
            result[of_gender] = (parameters[of_gender] - mean) / deviation
        return result
