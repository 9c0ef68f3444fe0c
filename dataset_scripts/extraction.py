"""One video, one unit of work: from a file to its pairs, and to the reasons why there are no more.

Nothing a file holds may stop the work: what cannot be used is refused, with its reason, in bounded
time and memory. D: numbers in an embedding.
"""

import bisect
import contextlib
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from dataset_scripts.face_tracks import FaceCandidate, FaceTrack, TrackingConfig, track_faces
from dataset_scripts.faces import detect_boxes, get_recogniser
from dataset_scripts.frame_quality import exposure, frontality
from dataset_scripts.near_duplicates import fingerprint
from dataset_scripts.pair_table import flac_bytes, jpeg_bytes, new_pair, sharpness
from dataset_scripts.records import (
    FRAMES_PER_SECOND,
    SAMPLING_RATE,
    Extraction,
    Refusal,
    SourceVideo,
    VideoRefused,
)
from dataset_scripts.shots import mark_cuts
from dataset_scripts.speech_segments import SpeechSegment, find_speech
from dataset_scripts.step_clock import StepClock
from dataset_scripts.synchrony import (
    MIN_LEAD,
    MIN_SCORE,
    MIN_SUPPORTED_SCORE,
    SpeakerChoice,
    Synchrony,
    choose_speakers,
    measure_synchrony,
)
from dataset_scripts.video import (
    Limits,
    VideoFrame,
    VideoInfo,
    check_duration,
    probe,
    read_frames,
    read_speech,
)

SILENCE_PEAK = 1e-3  # of full scale: softer sound is a microphone that was off
CONTEXT_S = 0.4  # before and after speech, in which mouths are looked at
EMBEDDED_TOGETHER = 32  # pictures
TRACK_FACES = 5  # pictures whose embeddings are averaged to tell who a face is


@dataclass(frozen=True)
class ExtractionConfig:
    """Every threshold of the way from a video to its pairs.

    Attributes:
        limits: what a video may cost.
        tracking: how faces are found and followed.
        face_recogniser: the teacher, see `faces.get_recogniser`. Both distances between embeddings
            below are in its units, and their defaults in dlib's.
        audio_stream: which of several streams of sound, from 0; None is the default one, or the
            first that is not silent.
        min_pair_s: a pair's speech lasts at least so long, seconds.
        min_pictures_per_second: of new pictures; with fewer, no mouth is seen to move.
        min_face_px: width of the face in the film's picture, pixels; a smaller one is refused.
        min_frontality: see `frame_quality.frontality`.
        min_sharpness: see `pair_table.sharpness`.
        min_contrast, max_lost: see `frame_quality.exposure`.
        min_sync_score: a face that speaks, see `synchrony`; deviations above unrelated speech.
        min_supported_sync_score: the same, for a face that surely speaks elsewhere in the video.
        min_sync_lead: over the next face.
        max_same_face_distance: between embeddings, of one face in two segments of a video.
        max_change_in_track: between embeddings of one track; more is a cut that was missed.
        max_face_time_apart_s: where a segment shows its speaker in no good picture, one from so
            near another segment is used.
        max_position_error: between a face and where the source says it is, shares of the picture.
        max_pairs_per_segment: pairs of one segment, each with a picture from another second.
    """

    limits: Limits = field(default_factory=Limits)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    face_recogniser: str = "dlib"
    audio_stream: int | None = None
    min_pair_s: float = 1.0
    min_pictures_per_second: float = 10.0
    min_face_px: float = 60.0
    min_frontality: float = 0.8
    min_sharpness: float = 2.0
    min_contrast: float = 0.12
    max_lost: float = 0.3
    min_sync_score: float = MIN_SCORE
    min_supported_sync_score: float = MIN_SUPPORTED_SCORE
    min_sync_lead: float = MIN_LEAD
    max_same_face_distance: float = 0.32
    max_change_in_track: float = 0.45
    max_face_time_apart_s: float = 20.0
    max_position_error: float = 0.2
    max_pairs_per_segment: int = 1


def extract_pairs(
    video: SourceVideo, config: ExtractionConfig | None = None, clock: StepClock | None = None
) -> Extraction:
    """Turns a video into speech-face pairs.

    Args:
        video: as a source lists it.
        config: thresholds and limits.
        clock: counts the seconds of each step.

    Returns:
        Pairs, and what was refused and why; a file that cannot be used is refused whole. Nothing is
        raised, whatever the file holds.
    """
    try:
        with _one_thread():
            return _VideoWork(video, config or ExtractionConfig(), clock or StepClock()).run()
    except VideoRefused as refused:
        reason, detail = refused.reason, str(refused)
    except Exception as error:
        reason, detail = "failed", f"{type(error).__name__}: {error}"
    return Extraction(refusals=[Refusal(video.video_id, None, None, reason, detail)])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Workers share the cores; and sums keep their order, whatever the number of cores."""
    import cv2
    import torch

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


@dataclass(frozen=True)
class _Portrait:
    """A good picture of a face, as a pair stores it."""

    time_s: float
    place: tuple[float, float]
    picture: bytes  # JPEG
    embedding: np.ndarray  # (D,)
    frontality: float
    sharpness: float
    size_px: float
    quality: float


def _portrait(picture: FaceCandidate, embedding: np.ndarray) -> _Portrait:
    left, _, right, _ = picture.box
    return _Portrait(
        time_s=picture.time_s,
        place=picture.place,
        picture=jpeg_bytes(picture.face),
        embedding=embedding,
        frontality=frontality(picture.landmarks),
        sharpness=sharpness(picture.face),
        size_px=right - left,
        quality=picture.quality,
    )


@dataclass(eq=False)
class _Appearance:
    """A face through one track: first some pictures of it, then who it is."""

    pictures: list[FaceCandidate]  # the best first; none once they were embedded
    beside: list["_Appearance"]  # other faces at the same time: other people
    face: int | None = None  # whose it is, in this video; None if it shows more than one person
    problem: tuple[str, str] = ("no_face", "the face is seen for too short a time")
    portraits: list[_Portrait] = field(default_factory=list)


@dataclass(frozen=True)
class _SeenFace:
    """A face through a part of a segment of speech."""

    appearance: _Appearance
    start: int  # pictures, of the pair that it may give
    end: int
    synchrony: Synchrony


@dataclass(frozen=True)
class _Moment:
    """A part of a segment of speech, in which the same faces are seen."""

    speech: SpeechSegment
    seen: list[_SeenFace]

    def by_face(self) -> dict[int, _SeenFace]:
        return {s.appearance.face: s for s in self.seen if s.appearance.face is not None}


class _VideoWork:
    """What is known of one video on the way."""

    def __init__(self, video: SourceVideo, config: ExtractionConfig, clock: StepClock):
        self.video = video
        self.config = config
        self.clock = clock
        self.start_s = video.start_s or 0.0
        self.refusals: list[Refusal] = []
        self.pictures = 0  # that were decoded
        self.hashes: list[int] = []
        self.portraits: dict[int, list[_Portrait]] = defaultdict(list)
        self.known: list[tuple[np.ndarray, int]] = []  # sum of embeddings, how many; of each face
        self.waiting: list[_Appearance] = []  # whose pictures are to be embedded together
        self.moments: list[_Moment] = []

    def run(self) -> Extraction:
        with self.clock.step("probe"):
            info = self._probe()
        with self.clock.step("sound"):
            self.speech = self._read_sound(info)
        with self.clock.step("speech"):
            segments = find_speech(self.speech)
        if not segments:
            raise VideoRefused("no_speech", "nobody is heard to speak for a second or more")
        for segment, tracks in self._segments_with_faces(info, segments):
            info.check_deadline()
            self._look_at(segment, tracks)
            if sum(len(a.pictures) for a in self.waiting) >= EMBEDDED_TOGETHER:
                self._recognise_waiting()
        self._recognise_waiting()
        with self.clock.step("synchrony"):
            choices = self._choose_speakers()
        with self.clock.step("pairs"):
            pairs = [
                pair
                for moment, choice in zip(self.moments, choices, strict=True)
                for pair in self._pairs(moment, choice)
            ]
        self.refusals.sort(key=lambda r: r.start_s)
        duration_s = len(self.speech) / SAMPLING_RATE
        with self.clock.step("fingerprint"):
            print_of_both = fingerprint(self.hashes, self.speech)
        return Extraction(pairs, self.refusals, print_of_both, duration_s)

    # --- reading -----------------------------------------------------------------------------

    def _probe(self) -> VideoInfo:
        limits = self.config.limits
        info = probe(self.video.path, limits)
        if self.video.end_s is None:
            check_duration(self.video.path, info, limits)
        elif not 0 < self.video.end_s - self.start_s <= limits.max_duration_s:
            raise VideoRefused(
                "too_long" if self.video.end_s > self.start_s else "unreadable",
                f"the stretch from {self.start_s:g} to {self.video.end_s:g} s cannot be used",
            )
        return info

    def _read_sound(self, info: VideoInfo) -> np.ndarray:
        """The first stream of sound that is not silent, (samples,)."""
        streams = info.audio_streams
        if self.config.audio_stream is not None:
            streams = streams[self.config.audio_stream : self.config.audio_stream + 1]
            if not streams:
                raise VideoRefused("no_audio", f"there is no sound {self.config.audio_stream}")
        for stream in streams:
            sound = read_speech(
                self.video.path, info, self.start_s, self.video.end_s, self.config.limits, stream
            )
            if np.abs(sound).max() >= SILENCE_PEAK:
                return sound
        raise VideoRefused("silent", "all of the sound is silence")

    def _segments_with_faces(
        self, info: VideoInfo, segments: Sequence[SpeechSegment]
    ) -> Iterator[tuple[SpeechSegment, list[FaceTrack]]]:
        """Each segment of speech with the faces that are seen during it."""
        bounds = _with_context(segments)
        end_s = self.start_s + bounds[-1][1] / FRAMES_PER_SECOND
        frames = read_frames(self.video.path, info, self.start_s, end_s, self.config.limits)
        frames = self._noting_hashes(self.clock.each("decode", frames))

        def segment_of(frame: VideoFrame) -> int | None:
            k = bisect.bisect(bounds, (frame.index, np.inf)) - 1
            return k if k >= 0 and frame.index < bounds[k][1] else None

        done = 0
        for k, part in itertools.groupby(frames, segment_of):
            if k is None:
                continue
            for missing in segments[done:k]:
                yield missing, []
            marked = self.clock.each("shots", mark_cuts(part))
            yield segments[k], list(track_faces(marked, self.config.tracking, self.clock))
            done = k + 1
        if not self.pictures:
            raise VideoRefused("no_video", "no picture can be decoded while somebody speaks")
        for missing in segments[done:]:
            yield missing, []

    def _noting_hashes(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            self.pictures += 1
            second, rest = divmod(frame.index, round(FRAMES_PER_SECOND))
            if rest == 0:
                with self.clock.step("fingerprint"):
                    self.hashes += [0] * (second - len(self.hashes))  # seconds without pictures
                    self.hashes.append(perceptual_hash(frame.thumbnail(9, 8)))
            yield frame

    # --- looking at a segment ----------------------------------------------------------------

    def _look_at(self, segment: SpeechSegment, tracks: list[FaceTrack]) -> None:
        """Measures each face of a segment against the speech; notes good pictures of it."""
        usable, refusal = self._usable(tracks)
        if not usable:
            self._refuse(segment.start_s, segment.end_s, *refusal)
            return
        moments = _moments(usable, self.config.min_pair_s)
        first, last = segment.start_s * FRAMES_PER_SECOND, segment.end_s * FRAMES_PER_SECOND
        shortest = round(self.config.min_pair_s * FRAMES_PER_SECOND)
        appearances = {}
        found = False
        for start, end, members in moments:
            seen = []
            for k in members:
                low, high = max(start, usable[k].start), min(end, usable[k].end)
                pair = _overlap_of_at_least(shortest, (low, high), (first, last))
                if pair is None:
                    continue
                if k not in appearances:
                    appearances[k] = self._appearance(k, usable, appearances)
                seen.append(_SeenFace(appearances[k], *pair, self._synchrony(usable[k], low, high)))
            if seen:
                self.moments.append(_Moment(segment, seen))
                found = True
        if not found:
            detail = f"no face is seen for {self.config.min_pair_s:g} s of this speech"
            self._refuse(segment.start_s, segment.end_s, "no_face", detail)

    def _usable(self, tracks: list[FaceTrack]) -> tuple[list[FaceTrack], tuple[str, str]]:
        """Tracks that could be of a speaker; if there are none, why."""
        place = self.video.face_position
        refusal = ("no_face", "no face is seen during this speech")
        usable = []
        for track in tracks:
            width = float(np.median(track.boxes[:, 2] - track.boxes[:, 0]))
            rate = float(track.is_new.mean()) * FRAMES_PER_SECOND
            if place and np.hypot(*np.subtract(track.place, place)) > (
                self.config.max_position_error
            ):
                refusal = ("no_face", "no face is where the source says that the speaker is")
            elif width < self.config.min_face_px:
                refusal = ("face_too_small", f"the face is {width:.0f} pixels wide")
            elif rate < self.config.min_pictures_per_second:
                refusal = (
                    "not_in_sync",
                    f"{rate:.1f} pictures a second are too few to see a mouth move",
                )
            else:
                usable.append(track)
        return usable, refusal

    def _synchrony(self, track: FaceTrack, start: int, end: int) -> Synchrony:
        """Of a track's mouth with the sound, from picture `start` to `end`."""
        with self.clock.step("synchrony"):
            mouths = track.mouths[start - track.start : end - track.start]
            return measure_synchrony(mouths, self._speech_between(start, end))

    def _speech_between(self, start: int, end: int) -> np.ndarray:
        """The sound of pictures `start` to `end`, silence where it is missing."""
        samples = round(SAMPLING_RATE / FRAMES_PER_SECOND)
        speech = self.speech[start * samples : end * samples]
        return np.pad(speech, (0, (end - start) * samples - len(speech)))

    def _appearance(
        self, number: int, tracks: list[FaceTrack], others: dict[int, _Appearance]
    ) -> _Appearance:
        """Some pictures of a track: the best ones, and the frontal one farthest from them.

        If a cut was missed, the two show different persons.
        """
        track = tracks[number]
        ranked = sorted(track.candidates, key=lambda c: -c.quality)
        chosen = ranked[: self.config.max_pairs_per_segment]
        # A turned head looks like somebody else to the recogniser.
        frontal = [
            c
            for c in ranked[self.config.max_pairs_per_segment :]
            if frontality(c.landmarks) >= self.config.min_frontality
        ]
        if frontal:
            chosen.append(max(frontal, key=lambda c: abs(c.index - chosen[0].index)))
        beside = [a for k, a in others.items() if _meet(tracks[k], track)]
        appearance = _Appearance(chosen, beside)
        if chosen:
            self.waiting.append(appearance)
        return appearance

    def _recognise_waiting(self) -> None:
        """Embeds the pictures that wait, finds out whose they are, and keeps the good ones."""
        if not self.waiting:
            return
        with self.clock.step("embed"):
            faces = np.stack([c.face for a in self.waiting for c in a.pictures])
            embeddings = _recogniser(self.config.face_recogniser).embed(faces)  # (faces, D)
        ends = np.cumsum([len(a.pictures) for a in self.waiting])
        for appearance, own in zip(self.waiting, np.split(embeddings, ends[:-1]), strict=True):
            apart = np.linalg.norm(own[:, None] - own[None], axis=-1).max()
            if apart > self.config.max_change_in_track:
                appearance.problem = ("other_person", "the face becomes another one within a shot")
            else:
                others = {a.face for a in appearance.beside}
                appearance.face = self._recognise(own.mean(axis=0), others)
                with self.clock.step("best frames"):
                    self._keep_portraits(appearance, own)
            appearance.pictures = []
        self.waiting = []

    def _keep_portraits(self, appearance: _Appearance, embeddings: np.ndarray) -> None:
        """Keeps the best pictures that are good enough, or why there is none."""
        problems = []
        for picture, embedding in zip(appearance.pictures, embeddings, strict=True):
            problem = self._problem(picture)
            if problem is not None:
                problems.append(problem)
            elif len(appearance.portraits) < self.config.max_pairs_per_segment:
                appearance.portraits.append(_portrait(picture, embedding))
        self.portraits[appearance.face] += appearance.portraits
        appearance.problem = problems[0] if problems else ("no_face", "the face is not seen well")

    def _recognise(self, embedding: np.ndarray, others: set[int | None]) -> int:
        """The number of the face in this video; `others` are seen beside it."""
        distances = {
            k: float(np.linalg.norm(total / count - embedding))
            for k, (total, count) in enumerate(self.known)
            if k not in others
        }
        face = min(distances, key=distances.get, default=None)
        if face is None or distances[face] > self.config.max_same_face_distance:
            self.known.append((embedding, 1))
            return len(self.known) - 1
        total, count = self.known[face]
        self.known[face] = (total + embedding, count + 1)
        return face

    def _problem(self, picture: FaceCandidate) -> tuple[str, str] | None:
        """Why a picture is not good enough, if it is not."""
        straight = frontality(picture.landmarks)
        if straight < self.config.min_frontality:
            return "not_frontal", f"at best, the face has a frontality of {straight:.2f}"
        light = exposure(picture.face)
        if light.contrast < self.config.min_contrast or light.lost > self.config.max_lost:
            return "badly_lit", "the face is too dark, too bright or without contrast"
        sharp = sharpness(picture.face)
        if sharp < self.config.min_sharpness:
            return "blurred", f"at best, the face has a sharpness of {sharp:.1f}"
        if not _shows_a_face(picture.face):
            return "not_frontal", "no face is found in the aligned picture of it"
        return None

    # --- making pairs ------------------------------------------------------------------------

    def _choose_speakers(self) -> list[SpeakerChoice]:
        config = self.config
        return choose_speakers(
            [{face: s.synchrony for face, s in m.by_face().items()} for m in self.moments],
            config.min_sync_score,
            config.min_supported_sync_score,
            config.min_sync_lead,
        )

    def _pairs(self, moment: _Moment, choice: SpeakerChoice) -> Iterator[dict]:
        """The pairs of a part of a segment: the speaker's best pictures, in it or near it."""
        faces = moment.by_face()
        if choice.face is None:
            start = min(seen.start for seen in moment.seen) / FRAMES_PER_SECOND
            end = max(seen.end for seen in moment.seen) / FRAMES_PER_SECOND
            if not faces:
                self._refuse(start, end, *moment.seen[0].appearance.problem)
            elif choice.reason == "several_speakers":
                detail = f"several of {len(faces)} faces move with the speech"
                self._refuse(start, end, choice.reason, detail)
            else:
                count = "the face has" if len(faces) == 1 else f"the best of {len(faces)} faces has"
                self._refuse(
                    start, end, choice.reason, f"{count} a synchrony of {choice.score:.1f}"
                )
            return
        seen = faces[choice.face]
        start_s, end_s = seen.start / FRAMES_PER_SECOND, seen.end / FRAMES_PER_SECOND
        portraits = seen.appearance.portraits or self._portrait_nearby(choice.face, start_s, end_s)
        if not portraits:
            self._refuse(start_s, end_s, *seen.appearance.problem)
            return
        clip = flac_bytes(self._speech_between(seen.start, seen.end))
        for number, portrait in enumerate(portraits):
            yield self._pair(moment, choice, seen, portrait, clip, number)

    def _portrait_nearby(self, face: int, start_s: float, end_s: float) -> list[_Portrait]:
        """The best picture of a face that the segments around this one have; none if far away."""
        first_s = self.start_s + start_s - self.config.max_face_time_apart_s
        last_s = self.start_s + end_s + self.config.max_face_time_apart_s
        near = [p for p in self.portraits[face] if first_s <= p.time_s <= last_s]
        return sorted(near, key=lambda p: -p.quality)[:1]

    def _pair(self, moment, choice, seen, portrait: _Portrait, clip: bytes, number: int) -> dict:
        """A row of the data contract."""
        start_s = self.start_s + seen.start / FRAMES_PER_SECOND
        end_s = self.start_s + seen.end / FRAMES_PER_SECOND
        best = sorted(self.portraits[choice.face], key=lambda p: -p.quality)[:TRACK_FACES]
        return {
            **new_pair(self.video, start_s, end_s, clip, portrait.picture, number),
            "face_embedding": portrait.embedding,
            "face_time_s": portrait.time_s,
            "face_position": list(portrait.place),
            "sync_score": choice.score,
            "frontality": portrait.frontality,
            "sharpness": portrait.sharpness,
            "speech_ratio": moment.speech.speech_ratio,
            "face_size_px": portrait.size_px,
            "track": choice.face,
            "track_embedding": np.mean([p.embedding for p in best], axis=0),
        }

    def _refuse(self, start_s: float, end_s: float, reason: str, detail: str) -> None:
        """Notes a refused part of the stretch; times from the start of the stretch."""
        start_s, end_s = round(self.start_s + start_s, 3), round(self.start_s + end_s, 3)
        self.refusals.append(Refusal(self.video.video_id, start_s, end_s, reason, detail))


def perceptual_hash(picture: np.ndarray) -> int:
    """64 bits that stay nearly the same when a picture is scaled, compressed or lightened.

    Args:
        picture: (8, 9, 3) uint8, the whole picture shrunk.

    Returns:
        A bit for each pair of neighbours: whether the right one is lighter.

    Source: the difference hash, N. Krawetz, "Kind of like that", 2013.
    """
    grey = picture.astype(np.int32).sum(axis=2)  # (8, 9)
    bits = (grey[:, 1:] > grey[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _with_context(segments: Sequence[SpeechSegment]) -> list[tuple[int, int]]:
    """(first picture, end) of each segment and of the pauses around it, which tell of synchrony."""
    bounds = []
    for k, segment in enumerate(segments):
        pause = segment.start_s - segments[k - 1].end_s if k else np.inf
        before_s = min(CONTEXT_S, pause / 2, segment.start_s)
        pause = segments[k + 1].start_s - segment.end_s if k + 1 < len(segments) else np.inf
        after_s = min(CONTEXT_S, pause / 2)
        first = round((segment.start_s - before_s) * FRAMES_PER_SECOND)
        first = max(first, bounds[-1][1]) if bounds else first
        bounds.append((first, round((segment.end_s + after_s) * FRAMES_PER_SECOND)))
    return bounds


def _overlap_of_at_least(
    shortest: int, part: tuple[int, int], segment: tuple[float, float]
) -> tuple[int, int] | None:
    """What a part shares with a segment, lengthened within the part by up to half if too short."""
    start = max(part[0], math.ceil(segment[0] - 1e-6))
    end = min(part[1], math.floor(segment[1] + 1e-6))
    missing = shortest - (end - start)
    if missing > shortest / 2:
        return None
    if missing > 0:
        end = min(part[1], end + missing)
        start = max(part[0], end - shortest)
    return (start, end) if end - start >= shortest else None


def _moments(tracks: Sequence[FaceTrack], min_pair_s: float) -> list[tuple[int, int, list[int]]]:
    """Cuts a segment into parts in which the same faces are seen.

    Returns:
        (first picture, end, tracks seen for at least `min_pair_s` of it), in the order of time.
    """
    shortest = round(min_pair_s * FRAMES_PER_SECOND)
    free = [(t.start, t.end) for t in tracks]
    parts = []
    while free:
        start, end = max(free, key=lambda part: part[1] - part[0])
        if end - start < shortest:
            break
        members = [
            k for k, t in enumerate(tracks) if min(end, t.end) - max(start, t.start) >= shortest
        ]
        parts.append((start, end, members))
        free = [rest for part in free for rest in _without(part, (start, end))]
    return sorted(parts)


def _without(part: tuple[int, int], taken: tuple[int, int]) -> list[tuple[int, int]]:
    """What is left of an interval."""
    before, after = (part[0], min(part[1], taken[0])), (max(part[0], taken[1]), part[1])
    return [(start, end) for start, end in (before, after) if start < end]


def _meet(one: FaceTrack, other: FaceTrack) -> bool:
    return one.start < other.end and other.start < one.end


def _shows_a_face(face: np.ndarray) -> bool:
    """Whether the detector finds a face where it should be in an aligned picture, (S, S, 3) RGB."""
    import cv2

    size = len(face)
    for (left, top, right, bottom), _ in detect_boxes(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)):
        away = max(abs(left + right - size), abs(top + bottom - size)) / 2
        if away < size / 4 and right - left > size / 3:
            return True
    return False


@functools.cache
def _recogniser(name: str):
    return get_recogniser(name)
