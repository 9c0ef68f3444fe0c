"""What a voice lets expect of a face, where a data set states the voice's parameters.

A face is mostly what no voice can tell, and a network that is shown the faces of a few thousand
speakers learns those by heart. A data set that states how each voice was made (the cast does) knows
better targets: the mean of all faces that go with such a voice. Source: learning with privileged
information, Lopez-Paz et al., "Unifying distillation and privileged information", ICLR 2016.
"""

from typing import Any

import numpy as np

from training.data import Pairs

FOLLOW_SPEED = ("pitch_hz", "formant_ratio", "rate_ratio")  # faster resampled, all of them rise


class ExpectedFaces:
    """The mean face of a stated voice: a regression on its parameters, for either gender.

    Args:
        pairs: of the training split.

    Raises:
        ValueError: if the data set does not state each voice's parameters.
    """

    def __init__(self, pairs: Pairs):
        stated = pairs.voice_parameters
        silent = sum(not voice for voice in stated)
        if silent:
            raise ValueError(
                f"targets: expected_face needs voice_parameters, which {silent} of {len(pairs)} "
                "pairs do not state: set targets to face"
            )
        names = sorted(name for name, value in stated[0].items() if isinstance(value, int | float))
        self.parameters = np.asarray([[voice[n] for n in names] for voice in stated], np.float64)
        self.follows_speed = np.isin(names, FOLLOW_SPEED)
        self.genders, self.size = pairs.genders, pairs.embeddings.shape[1]
        faces = pairs.speaker_embeddings() - pairs.embeddings.mean(0)  # (speakers, D)
        first = np.asarray([rows[0] for rows in pairs.pairs_of_speakers()])
        self.laws = {
            gender: _fit(self.parameters[first][known], faces[known])
            for gender in np.unique(pairs.genders)
            for known in [pairs.genders[first] == gender]
        }

    def __call__(self, rows: np.ndarray, speeds: np.ndarray) -> np.ndarray:
        """What recordings let expect.

        Args:
            rows: (B,) which pairs are heard.
            speeds: (B,) how much faster than recorded they are played, 1 for not at all.

        Returns:
            (B, D) float32, centred as the embeddings are. Voices beyond all that were stated are
            taken for the last of these.
        """
        parameters = self.parameters[rows] * np.where(self.follows_speed, speeds[:, None], 1.0)
        parameters = parameters.clip(self.parameters.min(0), self.parameters.max(0))
        expected = np.empty((len(rows), self.size), np.float32)
        genders = self.genders[rows]
        for gender in np.unique(genders):
            of_gender = genders == gender
            expected[of_gender] = self.laws[gender].predict(parameters[of_gender])
        return expected


def _fit(parameters: np.ndarray, faces: np.ndarray) -> Any:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    law = make_pipeline(StandardScaler(), PolynomialFeatures(2), RidgeCV(np.logspace(-2, 4, 13)))
    return law.fit(parameters, faces)
