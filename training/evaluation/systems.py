"""What is measured: voices' predictions and faces, between their floors and their ceilings.

Embeddings are compared with embeddings, faces with faces. Real embeddings are centred by the mean
face of the data set's training split (where it has none, by its own mean), predicted ones by that
of their checkpoint's training; the embeddings of decoded faces, whoever decoded them, by the mean
of their own set, because a decoder's faces have a mean of their own.

Letters: N pairs, D size of the embedding, S side of an image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluation.instruments import Readings
from training.evaluation.subjects import Subjects
from training.measures.retrieval import speaker_gallery

FEWEST_IN_A_CELL = 2  # speakers; an oracle's rarer group is given the next larger one's face
FACES_IN_AN_AVERAGE = 200


@dataclass
class System:
    """One answer for every pair: an embedding, or a face and its embedding.

    Attributes:
        name: as the tables call it.
        role: "system", "floor", "ceiling" or "control".
        kind: "embeddings" or "faces".
        raw: (N, D) in the teacher's own space.
        centred: (N, D).
        family: what it belongs to: a checkpoint's or a folder's name, "" for what all share.
        seconds: of speech that it heard.
        decoder: of the checkpoint, that made the faces; "" where none did.
        readings: what the instruments read from the faces.
        conditions: (N, D) centred embeddings that a decoder was asked for.
        from_true: the same decoder's faces from the true embeddings, where there are any.
    """

    name: str
    role: str
    kind: str
    raw: np.ndarray
    centred: np.ndarray
    family: str = ""
    seconds: float | None = None
    decoder: str = ""
    readings: Readings | None = None
    conditions: np.ndarray | None = None
    from_true: "System | None" = None


def faces_system(name: str, role: str, readings: Readings, **more: Any) -> System:
    """Faces as a system: their embeddings are centred by the mean of their own set."""
    raw = readings.embeddings
    mean = raw.mean(0, dtype=np.float64)
    centred = raw - mean
    # One face for everybody is its own mean: what rounding leaves of it is no direction.
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    centred = np.where(lengths > 1e-5 * np.linalg.norm(mean), centred, 0)
    return System(name, role, "faces", raw, centred, readings=readings, **more)


def embeddings_system(name: str, role: str, raw: np.ndarray, centre: np.ndarray, **more) -> System:
    """Embeddings (N, D) as a system, centred as the data set's faces are."""
    return System(name, role, "embeddings", raw, raw - centre, **more)


def embedding_floors(subjects: Subjects, genders: np.ndarray, age_groups: np.ndarray) -> list:
    """What needs no voice: the mean face, that of the gender, and that of gender and age.

    The oracles are told what no system is told, the speaker's gender and age group. Their means
    are those of the training split; where the data set has none, or it does not state gender and
    age, of the pairs themselves, which makes these floors a little higher than any honest guess
    could be.

    Args:
        subjects: the pairs.
        genders: (N,) "female", "male" or "".
        age_groups: (N,) names or "".
    """
    donors = Donors.of(subjects, genders, age_groups)

    def floor(name: str, genders: Any, ages: Any) -> System:
        means, which = donors.of_cells(donors.mean_embedding, genders, ages)
        return embeddings_system(name, "floor", means[which], subjects.centre)

    nobody = np.full(len(genders), "")
    constant = np.repeat(subjects.centre[None], len(genders), 0)
    return [
        embeddings_system("constant", "floor", constant, subjects.centre),
        floor("gender oracle", genders, nobody),
        floor("gender-and-age oracle", genders, age_groups),
    ]


def face_floors(
    subjects: Subjects,
    genders: np.ndarray,
    age_groups: np.ndarray,
    read: Callable[[np.ndarray, str], Readings],
) -> list[System]:
    """The same as faces: pixel averages of aligned faces, of all, of a gender, of gender and age.

    Args:
        subjects: the pairs.
        genders: (N,) "female", "male" or "".
        age_groups: (N,) names or "".
        read: the instruments, from images (n, S, S, 3) and a key for the cache.
    """
    donors = Donors.of(subjects, genders, age_groups)
    nobody = np.full(len(genders), "")
    floors = []
    for name, of_genders, of_ages in (
        ("average face", nobody, nobody),
        ("average face of the gender", genders, nobody),
        ("average face of the gender and age group", genders, age_groups),
    ):
        pictures, which = donors.of_cells(donors.average_face, of_genders, of_ages)
        readings = read(pictures, name).take(which)
        floors.append(faces_system(name, "floor", readings))
    return floors


@dataclass
class Donors:
    """Whom the floors are averaged from.

    Attributes:
        embeddings: (M, D) raw.
        speakers: (M,).
        genders: (M,).
        age_groups: (M,).
        faces: rows (k,) to images (k, S, S, 3) uint8, aligned.
    """

    embeddings: np.ndarray
    speakers: np.ndarray
    genders: np.ndarray
    age_groups: np.ndarray
    faces: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def of(cls, subjects: Subjects, genders: np.ndarray, age_groups: np.ndarray) -> "Donors":
        """The training split's people where it states gender and age, else the pairs themselves.

        Without their ages, the oracle of gender and age would be that of gender under its name.
        """
        from training.measures.attributes import age_group

        training = subjects.training
        groups = None if training is None else age_group(training.ages)
        if training is not None and (training.genders != "").any() and (groups != "").any():
            return cls(
                training.embeddings, training.speakers, training.genders, groups, training.faces
            )
        return cls(
            subjects.embeddings,
            subjects.speakers,
            genders,
            age_groups,
            lambda rows: np.asarray(subjects.faces[np.sort(rows)]),
        )

    def rows(self, gender: str, group: str) -> np.ndarray:
        """Rows of a gender and age group ("" for any); of fewer where too few are that."""
        rows = np.flatnonzero(
            (self.genders == gender if gender else True)
            & (self.age_groups == group if group else True)
            & np.ones(len(self.genders), bool)
        )
        if len(np.unique(self.speakers[rows])) >= FEWEST_IN_A_CELL or not (gender or group):
            return rows
        return self.rows(gender, "") if group else self.rows("", "")

    def of_cells(
        self, function: Callable, genders: np.ndarray, groups: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`function` of each cell's rows (cells, ...), and the cell of each of N pairs (N,)."""
        cells, which = np.unique(np.stack([genders, groups]), axis=1, return_inverse=True)
        return np.stack([function(self.rows(*cell)) for cell in cells.T]), which

    def mean_embedding(self, rows: np.ndarray) -> np.ndarray:
        """(D,): the mean over speakers of each one's mean embedding."""
        return speaker_gallery(self.embeddings[rows], self.speakers[rows])[0].mean(0)

    def average_face(self, rows: np.ndarray) -> np.ndarray:
        """(S, S, 3) uint8: the mean of up to 200 speakers' aligned faces, a picture each."""
        _, first = np.unique(self.speakers[rows], return_index=True)
        chosen = rows[first]
        if len(chosen) > FACES_IN_AN_AVERAGE:
            chosen = np.random.default_rng(0).choice(chosen, FACES_IN_AN_AVERAGE, replace=False)
        return self.faces(np.sort(chosen)).astype(np.float64).mean(0).round().astype(np.uint8)


def embedding_ceilings(subjects: Subjects) -> list[System]:
    """The true embedding itself, and that of another picture of the speaker."""
    ceilings = {"true embedding": subjects.embeddings}
    other = another_picture(subjects)
    if other is not None:
        ceilings["another picture of the speaker"] = other
    return [
        embeddings_system(name, "ceiling", raw, subjects.centre) for name, raw in ceilings.items()
    ]


def another_picture(subjects: Subjects) -> np.ndarray | None:
    """(N, D): for each pair the embedding of the speaker's next picture; None if one has no other.

    How alike two pictures of one person are is the ceiling of what a perfect listener could score.
    (The gallery's face of a speaker, the mean of all pictures, holds this one, too: in retrieval
    and association this ceiling is a little high, in feature similarity it is not.)
    """
    following = np.arange(len(subjects.speakers))
    for speaker in np.unique(subjects.speakers):
        rows = np.flatnonzero(subjects.speakers == speaker)
        if len(rows) < 2:
            return None
        following[rows] = np.roll(rows, -1)
    return subjects.embeddings[following]
