"""Who was not heard in training: families, folds, and the pairs that a fold's training is given.

Letters: N pairs, D size of the face embedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data import Pairs
from training.evaluation.store import key_of
from training.evaluation.subjects import Subjects
from training.evaluation.tables import Labels

# Two faces nearer than this share of the distance that three quarters of all pairs of faces stay
# below are one person's, as where pairs are made (dataset_scripts/identities.py tells why).
SHARE_OF_SCALE = 0.43

Fold = tuple[np.ndarray, np.ndarray]  # rows to train on, rows held out


def families_of(subjects: Subjects) -> np.ndarray:
    """Which pairs must not be parted: of one speaker, or of one person by the faces.

    One person may speak in several videos, and names of videos are all that most collections know.
    So faces are clustered (average linkage), and what shares a speaker or a cluster, directly or
    through others, is one family.

    Returns:
        (N,) integers from 0.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import pdist
    from sklearn.cluster import AgglomerativeClustering

    threshold = SHARE_OF_SCALE * np.percentile(pdist(subjects.embeddings), 75)
    clusters = AgglomerativeClustering(
        n_clusters=None, linkage="average", distance_threshold=threshold
    ).fit_predict(subjects.embeddings)
    names, speakers = np.unique(subjects.speakers, return_inverse=True)
    size = len(names) + clusters.max() + 1  # nodes: speakers, then clusters
    links = coo_array((np.ones(len(speakers)), (speakers, len(names) + clusters)), (size, size))
    component = connected_components(links, directed=False)[1][speakers]
    return np.unique(component, return_inverse=True)[1]


def folds_of(families: np.ndarray, count: int) -> list[Fold]:
    """Every pair held out once, families as a whole, by lot, in folds of about one size.

    Raises:
        ValueError: if there are fewer families than folds.
    """
    from sklearn.model_selection import GroupKFold

    names, index = np.unique(families, return_inverse=True)
    if len(names) < count:
        raise ValueError(
            f"{count} folds need as many people, these pairs are of {len(names)}: name fewer folds"
        )
    # By lot, because a data set may come in an order, women and men by turns.
    lots = np.random.default_rng(0).permutation(len(names))
    return list(GroupKFold(count).split(families, groups=lots[index]))


def inner_folds(rows: np.ndarray, families: np.ndarray, count: int) -> Iterator[Fold]:
    """The same within the training rows of a fold: what is chosen is chosen on these alone."""
    for training, held_out in folds_of(families[rows], count):
        yield rows[training], rows[held_out]


@dataclass
class SomePairs(Pairs):
    """Some rows of other pairs, whose speech is read where it lies.

    Attributes:
        whole: the other pairs.
        rows: (N,) which of them.
    """

    whole: Pairs
    rows: np.ndarray

    def speech(self, index: int) -> np.ndarray:
        """The recording of a pair, (samples,) int16 at 16 kHz."""
        return self.whole.speech(self.rows[index])


def pairs_of(subjects: Subjects, families: np.ndarray, labels: Labels, cache: Path) -> Pairs:
    """The pairs as a training reads them; their speech is decoded once.

    A family is one speaker: another picture of a person is no negative of a contrast. Faces are
    left out: a voice encoder sees their embeddings alone.

    Args:
        subjects: the pairs.
        families: (N,) integers from 0.
        labels: their genders and ages.
        cache: where decoded speech is kept.
    """
    folder = cache / key_of(f"speech {subjects.name}", subjects.fingerprint)
    if not (folder / "ends.npy").exists():
        _decode(subjects, folder)
    ends = np.load(folder / "ends.npy")
    return Pairs(
        folder=folder,
        teacher=subjects.teacher,
        speakers=families,
        speaker_names=[str(family) for family in range(families.max() + 1)],
        pair_ids=subjects.pair_ids,
        embeddings=np.asarray(subjects.embeddings, np.float32),
        genders=labels.genders,
        ages=labels.ages,
        voice_sources=np.full(len(subjects), ""),
        traits=subjects.traits,
        voice_parameters=subjects.voice_parameters,
        faces=np.zeros((len(subjects), 3, 0, 0), np.uint8),
        samples=np.memmap(folder / "samples.int16", np.int16, "r"),
        ends=ends,
    )


def _decode(subjects: Subjects, folder: Path) -> None:
    """Writes samples.int16, one recording after the other; ends.npy says that it is whole."""
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    lengths = []
    with (folder / "samples.int16").open("wb") as file:
        for row in tqdm(range(len(subjects)), desc="decoding speech", unit="pair"):
            samples = (subjects.speech(row) * 32768).round().clip(-32768, 32767).astype(np.int16)
            samples.tofile(file)
            lengths.append(len(samples))
    np.save(folder / "ends.npy", np.cumsum([0, *lengths]))


def some_of(pairs: Pairs, rows: np.ndarray, folder: Path) -> SomePairs:
    """Some rows of the pairs; the folder is for what a training keeps about them."""
    present, speakers = np.unique(pairs.speakers[rows], return_inverse=True)
    return SomePairs(
        folder=folder,
        teacher=pairs.teacher,
        speakers=speakers,
        speaker_names=[pairs.speaker_names[speaker] for speaker in present],
        pair_ids=[pairs.pair_ids[row] for row in rows],
        embeddings=pairs.embeddings[rows],
        genders=pairs.genders[rows],
        ages=pairs.ages[rows],
        voice_sources=pairs.voice_sources[rows],
        traits=[pairs.traits[row] for row in rows],
        voice_parameters=[pairs.voice_parameters[row] for row in rows],
        faces=pairs.faces[rows],
        samples=pairs.samples[:0],
        ends=np.zeros(1, int),
        whole=pairs,
        rows=rows,
    )
