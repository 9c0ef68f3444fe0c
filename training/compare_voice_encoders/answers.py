"""What each row of the comparison answers, and how good that is.

Letters: N pairs, D size of the face embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dataset_scripts.faces import FaceRecogniser
from training.evaluation.generation import Decoder, decode
from training.evaluation.store import Store, key_of
from training.evaluation.subjects import Subjects, load_faces_folder
from training.evaluation.tables import Labels
from training.measures import association, retrieval
from training.measures.resampling import Figure, SpeakerBootstrap
from training.measures.similarity import unit

RECALL_AT = (1, 5, 10)


@dataclass(eq=False)
class Answer:
    """A row: what is answered to every pair, as often as it was trained.

    Attributes:
        name: of the row.
        role: "floor", "system" or "ceiling".
        centred: one (N, D) a seed; zeros where a pair was not asked.
        note: what a reader must know of the row.
        ablated: the row from which this one differs in one thing; "" for one that stands alone.
        faces: (N, D) centred: the gallery that it is held against; the real faces' if None.
    """

    name: str
    role: str
    centred: list[np.ndarray]
    note: str = ""
    ablated: str = ""
    faces: np.ndarray | None = None

    @property
    def asked(self) -> np.ndarray:
        """(N,) booleans: the pairs that were asked."""
        return (self.centred[0] != 0).any(1)

    @property
    def mean(self) -> np.ndarray:
        """(N, D): the mean direction of all seeds, as long as their mean lengths."""
        return np.mean(self.centred, axis=0)


def average_of(name: str, parts: Sequence[Answer]) -> Answer:
    """The mean of other rows' predictions, each brought to length 1; nothing is fitted for it."""
    together = np.mean([unit(part.mean) for part in parts], axis=0)
    return Answer(name, "system", [together * np.all([p.asked for p in parts], axis=0)[:, None]])


@dataclass
class Measurer:
    """The people whom all rows are asked about, and the same draws of them for all.

    Attributes:
        subjects: the pairs; their speakers are families.
        labels: their genders and ages.
        bootstrap: draws of families.
    """

    subjects: Subjects
    labels: Labels
    bootstrap: SpeakerBootstrap
    _known: dict[tuple[Answer, bytes], dict[str, Figure]] = field(default_factory=dict)

    def figures(self, answer: Answer, asked: np.ndarray | None = None) -> dict[str, Figure]:
        """AUC among everybody, one gender, one gender and age group, and R@1, 5, 10.

        Every family has one face in the gallery, the mean of its pictures. Of several seeds, a
        figure is the mean of theirs.

        Args:
            answer: the row.
            asked: (N,) booleans, the pairs that are measured; all that it was asked if None.
        """
        asked = answer.asked if asked is None else asked
        key = answer, asked.tobytes()
        if key not in self._known:
            by_seed = [self.of_seed(answer, centred, asked) for centred in answer.centred]
            self._known[key] = {
                name: _mean([figures[name] for figures in by_seed]) for name in by_seed[0]
            }
        return self._known[key]

    def of_seed(self, answer: Answer, centred: np.ndarray, asked: np.ndarray) -> dict[str, Figure]:
        """The same of predictions (N, D) of one seed."""
        families = self.subjects.speakers
        faces = self.subjects.embeddings - self.subjects.centre
        faces = faces if answer.faces is None else answer.faces
        gallery, names = retrieval.speaker_gallery(faces, families)
        rows = np.unique(families, return_index=True)[1]
        restrictions = self.labels.restrictions(rows)
        del restrictions["same_age_group"]
        compared = association.compare(centred, gallery, families, names, restrictions)
        found = association.associate(self.bootstrap, compared, asked, candidates=())
        ranks = retrieval.ranks(centred, gallery, families, names)
        found |= retrieval.retrieval(self.bootstrap, ranks, (), RECALL_AT, asked)
        shown = ("auc", "recall_at_")
        return {name: figure for name, figure in found.items() if name.startswith(shown)}


def _mean(figures: Sequence[Figure]) -> Figure:
    """The mean of figures of one bootstrap."""
    if len(figures) == 1:
        return figures[0]
    return replace(
        figures[0],
        value=float(np.mean([figure.value for figure in figures])),
        replicates=np.mean([figure.replicates for figure in figures], axis=0),
        exact=None,
    )


def decoded(
    conditions: np.ndarray,
    mean: np.ndarray,
    decoder: Decoder,
    recogniser: FaceRecogniser,
    store: Store,
    key: str,
) -> np.ndarray:
    """Embeddings (N, D) of the faces that a decoder makes of embeddings, centred by their own set.

    Args:
        conditions: (N, D) centred.
        mean: (D,) of the decoder's training, around which it knows faces.
        decoder: one that does not draw.
        recogniser: the teacher.
        store: for images and embeddings.
        key: what the faces are, in words that people can read.
    """
    images = decode(decoder, conditions + mean, None, store, key)
    return _embedded(images, recogniser, store, key)


def published(
    folder: str, subjects: Subjects, recogniser: FaceRecogniser, cache: Path
) -> np.ndarray:
    """The same of faces in a folder, a picture a pair."""
    images, _ = load_faces_folder(folder, subjects, cache)
    return _embedded(images, recogniser, Store(cache / "evaluation"), Path(folder).name)


def _embedded(images: np.ndarray, recogniser: FaceRecogniser, store: Store, key: str) -> np.ndarray:
    def embed(start: int, stop: int) -> dict[str, np.ndarray]:
        return {"embeddings": recogniser.embed(np.array(images[start:stop]))}

    whole = key_of(f"embeddings {key}", recogniser.name, images)
    rows = store.rows(whole, len(images), embed, label=f"embedding {key}")["embeddings"]
    return rows - rows.mean(0)
