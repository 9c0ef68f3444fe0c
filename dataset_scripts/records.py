"""What the builder of pairs passes from step to step: videos, refusals, what came of a video."""

from dataclasses import dataclass, field
from pathlib import Path

FRAMES_PER_SECOND = 25.0  # every video is read on this timeline
SAMPLING_RATE = 16000  # Hz, of every waveform


@dataclass(frozen=True)
class SourceVideo:
    """A video, or a stretch of one, as a source lists it: one unit of work.

    Attributes:
        video_id: unique in the source and stable: it names the unit and enters every pair's id.
        path: of the file.
        source: what the pairs' column `source` says.
        licence: what the pairs' column `licence` says, as the source states it.
        speaker_id: whose video it is, if the source says; None leaves it to clustering.
        split: "train", "validation" or "test" if the source has official splits, or "dev" for train
            and validation together; else None.
        start_s, end_s: the stretch to use, seconds; None is the start or the end of the file.
        face_position: (x, y) of the speaker's face as shares of width and height, if given.
        gender, age, language: if the source states them.
        traits, voice_parameters, voice_id: the truth, for the cast only.
    """

    video_id: str
    path: Path
    source: str
    licence: str
    speaker_id: str | None = None
    split: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    face_position: tuple[float, float] | None = None
    gender: str | None = None
    age: float | None = None
    language: str | None = None
    traits: dict | None = None
    voice_parameters: dict | None = None
    voice_id: str | None = None


REASONS = {
    "unreadable": "the file cannot be read as a video",
    "too_long": "the video is longer than the limit",
    "too_large": "the frames are larger than the limit",
    "too_slow": "the video took longer than the limit to read",
    "no_video": "the file has no pictures",
    "no_audio": "the file has no sound",
    "silent": "the sound is silent",
    "no_speech": "nobody speaks for a second or more",
    "no_face": "no face is seen",
    "face_too_small": "the face is too small",
    "not_frontal": "the face is never seen from the front",
    "blurred": "the face is never sharp",
    "badly_lit": "the face is too dark or too bright",
    "not_in_sync": "no face moves its mouth with the speech",
    "several_speakers": "more than one face moves with the speech",
    "other_person": "the face is not that of the person the source names",
    "duplicate": "the video was seen before",
    "gone": "the video can no longer be had",
    "failed": "an unforeseen error",
}


class VideoRefused(Exception):
    """A video that gives no pairs.

    Args:
        reason: a key of `REASONS`.
        detail: one sentence about this file.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(detail or REASONS[reason])
        self.reason = reason


@dataclass(frozen=True)
class Refusal:
    """A video or a segment that gave no pair: a row of `refused.parquet`.

    Attributes:
        video_id: of the video.
        start_s, end_s: the segment, seconds; None for the whole video.
        reason: a key of `REASONS`.
        detail: one sentence.
    """

    video_id: str
    start_s: float | None
    end_s: float | None
    reason: str
    detail: str


@dataclass(frozen=True)
class Extraction:
    """What came of a video.

    Attributes:
        pairs: rows of the data contract without `speaker_id`, `speaker_source` and split, plus
            `face_time_s` and `face_position` (where in the video the face was taken: seconds, and
            (x, y) of the middle of its box as shares of width and height; both stay in the data
            set), `track` (int: which face of the video) and `track_embedding` (D float32: the mean
            embedding over several frames of that face, for clustering; both do not).
        refusals: what was refused, with reasons.
        fingerprint: uint64 numbers by which near-duplicate videos are found, see
            `near_duplicates.fingerprint`; empty if the video could not be read.
        duration_s: how much of the video was read, seconds.
    """

    pairs: list[dict] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    fingerprint: list[int] = field(default_factory=list)
    duration_s: float = 0.0
