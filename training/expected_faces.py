"""What a voice lets expect of a face, where a data set states the voice's parameters.

A face is mostly what no voice can tell, and a network that is shown the faces of a few thousand
speakers learns those by heart. A data set that states how each voice was made (the cast does) knows
better targets: the mean of all faces that go with such a voice. Source: learning with privileged
information, Lopez-Paz et al., "Unifying distillation and privileged information", ICLR 2016.
"""

import numpy as np

from training.data import Pairs, centred


def expected_faces(pairs: Pairs) -> np.ndarray:
    """The mean face of each stated voice: a regression on its parameters, for either gender.

    Args:
        pairs: of the training split.

    Returns:
        (N, D) float32, centred as the embeddings are.

    Raises:
        ValueError: if the data set does not state each voice's parameters.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    silent = sum(not stated for stated in pairs.voice_parameters)
    if silent:
        raise ValueError(
            f"targets: expected_face needs voice_parameters, which {silent} of {len(pairs)} pairs "
            "do not state: set targets to face"
        )
    parameters = stated_parameters(pairs)  # (N, parameters)
    faces = centred(pairs, pairs)  # (N, D)
    speakers = pairs.pairs_of_speakers()
    of_speaker = np.stack([faces[rows].mean(0) for rows in speakers])  # (speakers, D)
    first = np.asarray([rows[0] for rows in speakers])
    expected = np.empty_like(faces)
    for gender in np.unique(pairs.genders):
        law = make_pipeline(
            StandardScaler(), PolynomialFeatures(2), RidgeCV(np.logspace(-2, 4, 13))
        )
        known = pairs.genders[first] == gender
        law.fit(parameters[first[known]], of_speaker[known])
        expected[pairs.genders == gender] = law.predict(parameters[pairs.genders == gender])
    return expected


def stated_parameters(pairs: Pairs) -> np.ndarray:
    """(N, parameters): the numbers among the stated voice parameters, by name."""
    stated = pairs.voice_parameters
    names = sorted(name for name, value in stated[0].items() if isinstance(value, int | float))
    return np.asarray([[row[name] for name in names] for row in stated], np.float64)
