"""Who is who: labels where the source gives them, clustering of faces where it does not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dataset_scripts.records import Refusal
from dataset_scripts.splits import DEFAULT_SHARES


@dataclass(frozen=True)
class IdentityConfig:
    """How faces become persons.

    Attributes:
        cluster_threshold: largest mean distance between two groups of faces of one person, in the
            recogniser's space.
        label_threshold: how far a face may lie from the labelled person's typical face.
        others: what becomes of a face in a labelled video that is not the labelled person's:
            "refuse" it as other_person, or "cluster" it like a face without a label.
        seed: of the splits.
        shares: of the persons, by split.
    """

    cluster_threshold: float = 0.45
    label_threshold: float = 0.6
    others: str = "refuse"
    seed: int = 0
    shares: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))


@dataclass(frozen=True)
class FaceTrack:
    """A face of a video, as the identities see it: one per (video, `track` of its pairs).

    Attributes:
        video_id: of the video.
        track: which face of the video.
        embedding: (D,) float32, the mean over several frames.
        label: the person whom the source names for this video, if it does.
        official_split: of this video, if the source has splits.
    """

    video_id: str
    track: int
    embedding: np.ndarray
    label: str | None = None
    official_split: str | None = None


@dataclass(frozen=True)
class Person:
    """A person of a data set: pass them on as `known` when data are added.

    Attributes:
        speaker_id: a label, or a name made from the founding face.
        speaker_source: "label" or "cluster".
        split: "train", "validation" or "test".
        embedding: (D,) float32, the mean over the person's tracks.
        tracks: how many faces that mean is of.
    """

    speaker_id: str
    speaker_source: str
    split: str
    embedding: np.ndarray
    tracks: int


@dataclass(frozen=True)
class Identities:
    """Who each face is.

    Attributes:
        persons: by speaker_id, sorted; those of `known` too.
        speaker_of: (video_id, track) -> speaker_id; faces that were refused are missing.
        source_of: (video_id, track) -> "label" or "cluster".
        refusals: faces that are not the person the source names.
    """

    persons: dict[str, Person]
    speaker_of: dict[tuple[str, int], str]
    source_of: dict[tuple[str, int], str]
    refusals: list[Refusal]


def assign_identities(
    tracks: Sequence[FaceTrack],
    known: Iterable[Person] = (),
    config: IdentityConfig | None = None,
) -> Identities:
    """Says who each face is, and in which split.

    Args:
        tracks: in any order; the result does not depend on it.
        known: the persons of the data set to which these are added: they keep their names and
            splits, and are never merged.
        config: thresholds, splits.

    Returns:
        Persons and who is who. A person is in one split.
    """


def find_duplicates(fingerprints: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Finds videos that show the same recording: re-encoded, scaled, trimmed.

    Args:
        fingerprints: video_id -> (frames,) uint64, a perceptual hash about every second.

    Returns:
        video_id of a duplicate -> video_id of the one to keep (the first by name).
    """
