"""What a voice encoder must beat: oracles of gender and age, and ridge regression from a teacher.

Each predicts every pair from folds that do not hold its family.

Letters: N pairs, D size of the face embedding, V values of a voice.
"""

from collections.abc import Sequence

import numpy as np

from training.compare_voice_encoders.people import Fold, inner_folds
from training.evaluation.subjects import Subjects
from training.evaluation.systems import Donors
from training.measures.association import compare, verification_auc

INNER_FOLDS = 5
# Relative to the voices' own variance; the best lies well inside for every teacher tried.
PENALTIES = tuple(10 ** np.arange(-2.0, 2.1, 0.5))


def oracle(
    subjects: Subjects, genders: np.ndarray, age_groups: np.ndarray, folds: Sequence[Fold]
) -> np.ndarray:
    """Centred mean faces (N, D) of the training people of a gender and age group.

    Args:
        subjects: the pairs.
        genders: (N,), "" for any.
        age_groups: (N,), "" for any.
        folds: see `people.folds_of`.
    """
    predicted = np.zeros_like(subjects.embeddings, np.float64)
    for training, held_out in folds:
        known = subjects.embeddings[training]
        donors = Donors(
            known,
            subjects.speakers[training],
            genders[training],
            age_groups[training],
            subjects.faces.__getitem__,
        )
        means, which = donors.of_cells(
            donors.mean_embedding, genders[held_out], age_groups[held_out]
        )
        predicted[held_out] = means[which] - known.mean(0)
    return predicted


def ridge(
    voices: Sequence[np.ndarray],
    embeddings: np.ndarray,
    families: np.ndarray,
    genders: np.ndarray,
    folds: Sequence[Fold],
) -> tuple[np.ndarray, list[float]]:
    """Ridge regression from voice embeddings to face embeddings, a penalty chosen in each fold.

    Every value of a voice is brought to unit variance, and every teacher counts alike: the same as
    kernel ridge regression with the mean of the teachers' linear kernels. The penalty is the one
    whose predictions of inner folds have the highest AUC, the mean of that among everybody and
    among one gender.

    Args:
        voices: a (N, V) of each teacher.
        embeddings: (N, D) of the faces, raw.
        families: (N,).
        genders: (N,).
        folds: see `people.folds_of`.

    Returns:
        Centred predictions (N, D), and the penalties that were chosen.
    """
    weights = np.concatenate([np.full(v.shape[1], v.shape[1] ** -0.5) for v in voices])  # (V,)
    features = np.hstack(voices)  # (N, V)
    predicted, chosen = np.zeros_like(embeddings, np.float64), []
    for training, held_out in folds:
        scores = np.zeros(len(PENALTIES))
        inner = [
            (rows, _regress(features, weights, embeddings, known, rows))
            for known, rows in inner_folds(training, families, INNER_FOLDS)
        ]
        rows = np.concatenate([rows for rows, _ in inner])
        faces = embeddings[rows] - embeddings[training].mean(0)
        for number in range(len(PENALTIES)):
            guessed = np.concatenate([by_penalty[number] for _, by_penalty in inner])
            scores[number] = _score(guessed, faces, families[rows], genders[rows])
        best = int(scores.argmax())
        chosen.append(float(PENALTIES[best]))
        predicted[held_out] = _regress(
            features, weights, embeddings, training, held_out, PENALTIES[best : best + 1]
        )[0]
    return predicted, chosen


def _regress(
    features: np.ndarray,
    weights: np.ndarray,
    embeddings: np.ndarray,
    training: np.ndarray,
    rows: np.ndarray,
    penalties: Sequence[float] = PENALTIES,
) -> list[np.ndarray]:
    """Centred predictions (rows, D) with each of the penalties."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features[training])
    known, asked = (scaler.transform(features[some]) * weights for some in (training, rows))
    centred = embeddings[training] - embeddings[training].mean(0)
    # One decomposition for all penalties P: asked known' (known known' + P)^-1 centred
    values, vectors = np.linalg.eigh(known @ known.T)
    targets, scores = vectors.T @ centred, asked @ known.T @ vectors
    return [scores @ (targets / (values + penalty)[:, None]) for penalty in penalties]


def _score(
    predicted: np.ndarray, faces: np.ndarray, families: np.ndarray, genders: np.ndarray
) -> float:
    same_gender = {"same_gender": (genders, genders)}
    compared = compare(predicted, faces, families, families, same_gender)
    return (verification_auc(compared) + verification_auc(compared, "same_gender")) / 2
