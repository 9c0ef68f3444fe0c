"""Faces followed through the pictures of a film: where they are, how their mouths move, how they
look at their best.

T: pictures of a track. Everything is kept for no longer than needed: the pictures for a fraction
of a second, of each face its mouths (3 KB a picture) and one picture a second.
"""

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from dataset_scripts.faces import Box, align_face, detect_boxes, predict_landmarks
from dataset_scripts.frame_quality import grey_sharpness, quality
from dataset_scripts.step_clock import StepClock
from dataset_scripts.synchrony import crop_mouth
from dataset_scripts.video import VideoFrame

REACH, WIDTH = 4, 1.6  # pictures around, and their Gaussian weights, that smooth the landmarks
MIN_OVERLAP = 0.3  # of two boxes, intersection over union, to be the same face
MAX_JUMP = 0.55  # of the distance of the eyes' corners, that a face moves in two pictures
RETRY_PICTURES = 50  # a picture without faces is searched for small ones that often
CANDIDATE_PICTURES = 25  # the best picture of so many is kept
BETTER = 1.1  # times as good: what is hardly better is not worth the time to cut it out
FINE_MARGIN = 1.0  # where small faces are followed: so many of their sizes around them


@dataclass(frozen=True)
class TrackingConfig:
    """How faces are found and followed.

    Attributes:
        detect_every: pictures; in between, a face's box is interpolated.
        detection_lines: the shorter side of the picture that the detector sees; it finds faces
            from 80 lines of it.
        min_score: the detector's, at which a track begins.
        min_score_to_continue: at which a track is taken up again where it was.
        landmarks_every: pictures; in between, the landmarks are interpolated.
        max_missed: detections that may fail within a track.
        max_faces: the largest ones are followed, a crowd is not.
    """

    detect_every: int = 5
    detection_lines: int = 360
    min_score: float = 0.1
    min_score_to_continue: float = -0.2
    landmarks_every: int = 2
    max_missed: int = 2
    max_faces: int = 6


@dataclass(frozen=True)
class FaceCandidate:
    """A picture of a face, aligned.

    Attributes:
        index: of the picture in the stretch.
        time_s: in the file, seconds.
        face: (224, 224, 3) uint8 RGB.
        landmarks: (5, 2) pixels of the film's picture.
        box: (left, top, right, bottom), pixels of the film's picture.
        place: (x, y) of the middle of the box, shares of the film's width and height.
        score: the detector's.
        quality: see `frame_quality.quality`.
    """

    index: int
    time_s: float
    face: np.ndarray
    landmarks: np.ndarray
    box: Box
    place: tuple[float, float]
    score: float
    quality: float


@dataclass
class FaceTrack:
    """A face through consecutive pictures of one shot.

    Attributes:
        start: index of its first picture in the stretch.
        boxes: (T, 4) float32, pixels: left, top, right, bottom.
        landmarks: (T, 5, 2) float32, pixels, smoothed in time.
        mouths: (T, 48, 64) uint8, as `synchrony.crop_mouth` gives them.
        is_new: (T,) bool, whether the file had a new picture there.
        score: mean of the detector's.
        candidates: the best picture of each second, in the order of time.
        place: (x, y) of the middle of the face on average, shares of the film's width and height.
    """

    start: int
    boxes: np.ndarray
    landmarks: np.ndarray
    mouths: np.ndarray
    is_new: np.ndarray
    score: float
    candidates: list[FaceCandidate]
    place: tuple[float, float]

    @property
    def end(self) -> int:
        """Index of the picture after its last one."""
        return self.start + len(self.mouths)


def track_faces(
    frames: Iterable[tuple[VideoFrame, bool]],
    config: TrackingConfig | None = None,
    clock: StepClock | None = None,
) -> Iterator[FaceTrack]:
    """Follows every face through a stretch of film.

    Args:
        frames: pictures, each with whether a shot begins with it, see `shots.mark_cuts`.
        config: how.
        clock: counts the steps "detect", "landmarks", "mouths" and "best frames".

    Returns:
        Tracks, in the order in which they end; a cut ends all.
    """
    shot = None
    for frame, starts_shot in frames:
        if shot is None or starts_shot or frame.index != shot.end:
            if shot is not None:
                yield from shot.finish()
            shot = _Shot(config or TrackingConfig(), clock or StepClock(), frame.index)
        yield from shot.add(frame)
    if shot is not None:
        yield from shot.finish()


@dataclass
class _OpenTrack:
    """A face that may still be seen in the next picture."""

    start: int
    last_box: np.ndarray  # (4,), where it was detected last
    last_index: int
    scores: list[float] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    raw: list[np.ndarray] = field(default_factory=list)  # landmarks before smoothing
    smooth: list[np.ndarray] = field(default_factory=list)
    mouths: list[np.ndarray] = field(default_factory=list)
    is_new: list[bool] = field(default_factory=list)
    candidates: dict[int, FaceCandidate] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.start + len(self.raw)


class _Shot:
    """The faces of one shot, from its first picture on."""

    def __init__(self, config: TrackingConfig, clock: StepClock, start: int):
        self.config = config
        self.clock = clock
        self.start = self.end = start
        self.frames: deque[VideoFrame] = deque()  # those that a track may still need
        self.tracks: list[_OpenTrack] = []
        self.shape = (1, 1)
        self.is_fine = False  # whether small faces are followed, in a larger picture
        self.searched_at = None  # when small faces were last looked for

    def add(self, frame: VideoFrame) -> Iterator[FaceTrack]:
        """Takes the next picture; gives the tracks that have ended."""
        self.frames.append(frame)
        self.end = frame.index + 1
        self.shape = frame.grey.shape
        if (frame.index - self.start) % self.config.detect_every:
            return
        with self.clock.step("detect"):
            found = self._detect(frame)
        self._match(frame, found)
        patience = self.config.detect_every * self.config.max_missed
        for track in [t for t in self.tracks if frame.index - t.last_index > patience]:
            self.tracks.remove(track)
            yield from self._close(track)
        needed = min((t.last_index - REACH for t in self.tracks), default=self.end)
        while self.frames and self.frames[0].index < needed:
            self.frames.popleft()

    def finish(self) -> Iterator[FaceTrack]:
        """Ends all tracks, after the last picture."""
        for track in self.tracks:
            if self.end - track.last_index <= self.config.detect_every:
                # Seen in the last detection, and nothing was cut since: it stays where it was.
                self._extend(track, self.end - 1, track.last_box)
            yield from self._close(track)
        self.tracks = []

    def _detect(self, frame: VideoFrame) -> list[tuple[np.ndarray, float]]:
        """Boxes (4,) in pixels of the film, with scores."""
        threshold = min(self.config.min_score, self.config.min_score_to_continue)
        if self.is_fine and self.tracks:
            return _detect_around([t.last_box for t in self.tracks], frame.grey, threshold)
        small, scale = frame.shrunk(self.config.detection_lines)
        found = [(np.multiply(b, scale), s) for b, s in detect_boxes(small, 0, threshold)]
        if any(score >= self.config.min_score for _, score in found) or self.tracks:
            return found
        if self.searched_at is None or frame.index - self.searched_at >= RETRY_PICTURES:
            self.searched_at = frame.index
            doublings = 0 if scale > 1.5 else 1  # a large picture has small faces as it is
            found = [(np.array(b), s) for b, s in detect_boxes(frame.grey, doublings, threshold)]
            self.is_fine = any(score >= self.config.min_score for _, score in found)
        return found

    def _match(self, frame: VideoFrame, found: list[tuple[np.ndarray, float]]) -> None:
        """Continues tracks by the faces that overlap them most; the others begin tracks."""
        overlaps = [
            (_overlap(track.last_box, box), t, f)
            for t, track in enumerate(self.tracks)
            for f, (box, score) in enumerate(found)
            if score >= self.config.min_score_to_continue
        ]
        free = set(range(len(found)))
        waiting = dict(enumerate(self.tracks))
        for overlap, t, f in sorted(overlaps, reverse=True):
            if overlap < MIN_OVERLAP or t not in waiting or f not in free:
                continue
            free.remove(f)
            track, (box, score) = waiting.pop(t), found[f]
            self._extend(track, frame.index, box)
            with self.clock.step("best frames"):
                self._note(track, frame, box, score)
        new = [found[f] for f in free if found[f][1] >= self.config.min_score]
        for box, score in sorted(new, key=lambda n: n[0][0] - n[0][2]):  # the widest first
            if len(self.tracks) < self.config.max_faces:
                track = _OpenTrack(frame.index, box, frame.index)
                self.tracks.append(track)
                self._extend(track, frame.index, box)
                with self.clock.step("best frames"):
                    self._note(track, frame, box, score)

    def _extend(self, track: _OpenTrack, until: int, box: np.ndarray) -> None:
        """Places boxes and landmarks up to a picture in which the face is in that box."""
        for index in range(track.start + len(track.boxes), until + 1):
            share = (index - track.last_index) / max(1, until - track.last_index)
            track.boxes.append(track.last_box + share * (box - track.last_box))
        track.last_box, track.last_index = box, until
        with self.clock.step("landmarks"):
            every = self.config.landmarks_every
            for index in range(track.start + -(-len(track.raw) // every) * every, until + 1, every):
                self._place_landmarks(track, index)
        with self.clock.step("mouths"):
            self._crop(track, track.end - REACH)

    def _place_landmarks(self, track: _OpenTrack, index: int) -> None:
        """Predicts the landmarks of a picture, and draws a line to them from the last ones."""
        box = track.boxes[index - track.start]
        landmarks = predict_landmarks(self._frame(index).grey, tuple(box))
        before = track.raw[-1] if track.raw else landmarks
        steps = index + 1 - track.end
        track.raw += [before + k / steps * (landmarks - before) for k in range(1, steps + 1)]

    def _frame(self, index: int) -> VideoFrame:
        return self.frames[index - self.frames[0].index]

    def _crop(self, track: _OpenTrack, until: int) -> None:
        """Cuts out the mouths before a picture, now that the landmarks around them are known."""
        for index in range(track.start + len(track.mouths), until):
            position = index - track.start
            low, high = max(0, position - REACH), min(len(track.raw), position + REACH + 1)
            weights = _smoothing(position - low, high - 1 - position)
            smooth = np.tensordot(weights, np.stack(track.raw[low:high]), 1)
            frame = self._frame(index)
            track.smooth.append(smooth)
            track.is_new.append(not frame.is_repeat)
            track.mouths.append(crop_mouth(frame.grey, smooth))

    def _note(self, track: _OpenTrack, frame: VideoFrame, box: np.ndarray, score: float) -> None:
        """Keeps the face of a picture if it is the best of its second."""
        track.scores.append(score)
        worth = quality(track.raw[-1], grey_sharpness(frame.grey, box), box[2] - box[0], score)
        second = frame.index // CANDIDATE_PICTURES
        best = track.candidates.get(second)
        if best is not None and worth <= BETTER * best.quality:
            return
        landmarks = predict_landmarks(frame.grey, tuple(box))
        face = align_face(frame.rgb(), landmarks)
        corners = tuple(float(side) for side in box)
        track.candidates[second] = FaceCandidate(
            frame.index, frame.time_s, face, landmarks, corners, self._place(box), score, worth
        )

    def _place(self, box: np.ndarray) -> tuple[float, float]:
        height, width = self.shape
        return float(box[0] + box[2]) / 2 / width, float(box[1] + box[3]) / 2 / height

    def _close(self, track: _OpenTrack) -> Iterator[FaceTrack]:
        """The finished track, in parts where it jumps: a cut may have been missed."""
        if track.end <= track.last_index:
            self._place_landmarks(track, track.last_index)
        self._crop(track, track.end)
        whole = FaceTrack(
            start=track.start,
            boxes=np.stack(track.boxes).astype(np.float32),
            landmarks=np.stack(track.smooth).astype(np.float32),
            mouths=np.stack(track.mouths),
            is_new=np.array(track.is_new),
            score=float(np.mean(track.scores)),
            candidates=list(track.candidates.values()),
            place=self._place(np.mean(track.boxes, axis=0)),
        )
        yield from _split_at_jumps(whole, np.stack(track.raw))


@functools.cache
def _smoothing(before: int, after: int) -> np.ndarray:
    """Weights of the pictures around one: a line fitted to them, so that the ends do not lag."""
    t = np.arange(-before, after + 1, dtype=np.float64)
    weights = np.exp(-0.5 * (t / WIDTH) ** 2)
    weights /= weights.sum()
    mean = weights @ t
    variance = weights @ (t - mean) ** 2
    return weights * (1 - mean * (t - mean) / variance) if variance else weights


def _split_at_jumps(track: FaceTrack, raw: np.ndarray) -> Iterator[FaceTrack]:
    middles = raw.mean(axis=1)  # (T, 2)
    eyes = np.linalg.norm(raw[:, 0] - raw[:, 2], axis=1)  # (T,)
    steps = np.linalg.norm(np.diff(middles, axis=0), axis=1)  # (T - 1,)
    # Two steps together, for every second picture's landmarks are interpolated.
    both = np.append(steps, 0) + np.append(0, steps)
    is_jump = both > MAX_JUMP * eyes
    jumps = [int(run.mean()) for run in _runs(np.flatnonzero(is_jump))]
    for first, last in zip([0, *jumps], [*jumps, len(raw)], strict=True):
        low, high = track.start + first, track.start + last
        yield FaceTrack(
            start=int(low),
            boxes=track.boxes[first:last],
            landmarks=track.landmarks[first:last],
            mouths=track.mouths[first:last],
            is_new=track.is_new[first:last],
            score=track.score,
            candidates=[c for c in track.candidates if low <= c.index < high],
            place=track.place,
        )


def _runs(indices: np.ndarray) -> list[np.ndarray]:
    """Indices in groups of neighbours."""
    if indices.size == 0:
        return []
    return np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)


def _detect_around(boxes: list[np.ndarray], grey: np.ndarray, threshold: float):
    """Detections in the part of a picture where faces were, at its full size."""
    corners = np.stack(boxes)
    margin = FINE_MARGIN * (corners[:, 2] - corners[:, 0]).max()
    left, top = np.maximum(0, corners[:, :2].min(axis=0) - margin).astype(int)
    right, bottom = (corners[:, 2:].max(axis=0) + margin).astype(int)
    part = grey[top:bottom, left:right]
    # Doubled if the detector could hardly see the smallest of them.
    doublings = int((corners[:, 2] - corners[:, 0]).min() < 90)
    offset = np.array([left, top, left, top])
    return [(np.add(b, offset), s) for b, s in detect_boxes(part, doublings, threshold)]


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(0, sides)))
    areas = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    return shared / max(1.0, areas - shared)
