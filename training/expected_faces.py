"""What a voice lets expect of a face, where a data set states the voice's parameters.

A face is mostly what no voice can tell, and a network that is shown the faces of a few thousand
speakers learns those by heart. A data set that states how each voice was made (the cast does) knows
better targets: the mean of all faces that go with such a voice. Source: learning with privileged
information, Lopez-Paz et al., "Unifying distillation and privileged information", ICLR 2016.
"""

from typing import Any

import numpy as np

from training.data import Pairs
from training.stated_voices import StatedVoices


class ExpectedFaces:
    """The mean face of a stated voice: a regression on its parameters, for either gender.

    Args:
        pairs: of the training split.
        voices: what they state.
    """

    def __init__(self, pairs: Pairs, voices: StatedVoices):
        self.voices, self.size = voices, pairs.embeddings.shape[1]
        faces = pairs.speaker_embeddings() - pairs.embeddings.mean(0)  # (speakers, D)
        first = np.asarray([rows[0] for rows in pairs.pairs_of_speakers()])
        self.laws = {
            gender: _fit(voices.parameters[first][known], faces[known])
            for gender in np.unique(voices.genders)
            for known in [voices.genders[first] == gender]
        }

    def __call__(self, rows: np.ndarray, speeds: np.ndarray) -> np.ndarray:
        """What recordings let expect, see `StatedVoices.played`.

        Returns:
            (B, D) float32, centred as the embeddings are.
        """
        parameters, genders = self.voices.played(rows, speeds), self.voices.genders[rows]
        expected = np.empty((len(rows), self.size), np.float32)
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
