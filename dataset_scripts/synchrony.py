"""Does this face speak this sound? Mouth motion against speech, with a search over the offset.

The mouth's motion is fitted to a few motions that every mouth makes (jaw down, lips apart, lips
wide), so that it does not matter what the mouth looks like; speech is the rise and fall of its
energy in a few bands. Which motion goes with which rise, and how many frames sooner or later, is a
small table of weights, fitted on films of the cast by `python -m dataset_scripts.fit_synchrony`.
The weighted sum of their correlations is measured against what it would be by chance, between a
mouth and a speech that are as fast or slow as these: so the clip calibrates its own score.

Letters: T frames, M motions (rows of `MOTIONS`), A features of the sound (`SOUNDS`), D delays.
"""

import functools
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_scripts.records import FRAMES_PER_SECOND, SAMPLING_RATE

MOUTH_HEIGHT, MOUTH_WIDTH = 48, 64  # pixels, of a crop of mouth and chin

# Where dlib's five landmarks lie in its aligned chip of 224 pixels (padding 0.25), as x + iy: means
# over frontal pictures of the cast. The nose weighs more: it is nearest to the mouth, and moves
# with it when the head nods.
_CHIP_LANDMARKS = np.array([165.7 + 68.8j, 133.2 + 71.2j, 54.3 + 68.8j, 86.8 + 71.2j, 110 + 130j])
_LANDMARK_WEIGHTS = np.array([1.0, 1.0, 1.0, 1.0, 2.0]) / 6
_CROP_CORNER = 54 + 122j  # upper left corner of the crop in that chip: the nose's base to the chin
_CROP_SCALE = 1.75  # chip pixels a crop pixel


def crop_mouth(grey: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cuts out mouth and chin, turned and scaled by the eyes and the nose.

    Args:
        grey: (height, width) uint8, a picture.
        landmarks: (5, 2) pixels, x and y, as `faces.detect_faces` gives them.

    Returns:
        (48, 64) uint8; what lies beyond the picture repeats its edge.

    Raises:
        ValueError: for an array that is no grey picture, or landmarks that are no face.
    """
    import cv2

    if not isinstance(grey, np.ndarray) or grey.ndim != 2 or grey.dtype != np.uint8:
        raise ValueError("expected a grey picture as an array (height, width) of uint8")
    turn, origin = _chip_to_picture(landmarks)
    step = turn * _CROP_SCALE  # picture pixels a crop pixel, as a complex number
    # A large face is drawn several times larger than the crop and averaged down: no aliasing.
    finer = min(max(1, round(abs(step))), 8)
    corner = origin + turn * _CROP_CORNER + step * (0.5 + 0.5j) * (1 / finer - 1)
    step = step / finer
    matrix = np.array([[step.real, -step.imag, corner.real], [step.imag, step.real, corner.imag]])
    size = (MOUTH_WIDTH * finer, MOUTH_HEIGHT * finer)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mouth = cv2.warpAffine(grey, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if finer == 1:
        return mouth
    return cv2.resize(mouth, (MOUTH_WIDTH, MOUTH_HEIGHT), interpolation=cv2.INTER_AREA)


@functools.cache
def _centred_landmarks() -> tuple[complex, np.ndarray, float]:
    """Mean of the chip's landmarks, the landmarks about it, and their weighted size squared."""
    mean = complex(_LANDMARK_WEIGHTS @ _CHIP_LANDMARKS)
    centred = _CHIP_LANDMARKS - mean
    return mean, centred, float(_LANDMARK_WEIGHTS @ np.abs(centred) ** 2)


def _chip_to_picture(landmarks: np.ndarray) -> tuple[complex, complex]:
    """The similarity, picture = turn * chip + origin, nearest to the landmarks (least squares)."""
    points = np.asarray(landmarks, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ValueError(f"expected 5 finite landmarks (5, 2), got shape {points.shape}")
    points = points[:, 0] + 1j * points[:, 1]
    mean, centred, power = _centred_landmarks()
    turn = complex((_LANDMARK_WEIGHTS * np.conj(centred)) @ points) / power
    if abs(turn) < 1e-3:
        raise ValueError("the landmarks lie in one point: they are no face's")
    return turn, complex(_LANDMARK_WEIGHTS @ points) - turn * mean


# --- what the mouth does ---------------------------------------------------------------------

MOTIONS = ("jaw", "lips", "width", "darkness", "energy")
_CHUNK = 128  # frames worked on at once: memory stays small for long tracks
_BLUR = 1.5  # crop pixels: steps of some pixels a frame still look like small ones
_SOFT_LIMIT = 2.5  # standard deviations, where a cut or a jump of the landmarks stops counting


@functools.cache
def _motion_fields() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fields of motion (4 of the head, then jaw, lips, width), where they are fitted, and inside.

    Returns:
        (7, 2, 24, 32) displacements along x and y on every second pixel of a crop; (24, 32) the
        weight of each pixel; (24, 32) the weight of the place where the mouth opens.
    """
    y, x = np.mgrid[0:MOUTH_HEIGHT:2, 0:MOUTH_WIDTH:2].astype(np.float32) + 0.5
    x, y = (x - 32) / 16, (y - 17) / 16  # the mouth's line is at row 17
    one, zero = np.ones_like(x), np.zeros_like(x)
    jaw = np.exp(-((x / 1.5) ** 2)) / (1 + np.exp(-y / 0.1))
    lips = np.exp(-(x**2) - (y / 0.56) ** 2)
    fields = [(one, zero), (zero, one), (-y, x), (x, y)]  # to the side, down, turn, nearer
    fields += [(zero, jaw), (zero, lips * np.tanh(4 * y)), (lips * np.tanh(x / 0.75), zero)]
    window = np.exp(-((x / 1.6) ** 4) - ((y - 0.3) / 1.4) ** 6)
    inside = np.exp(-((x / 0.7) ** 2) - ((y - 0.15) / 0.35) ** 2)
    return np.array(fields, np.float32), window.astype(np.float32), inside / inside.sum()


def mouth_motion(mouths: np.ndarray) -> np.ndarray:
    """How the mouth moves from frame to frame: its own motion, the head's taken out.

    Args:
        mouths: (T, 48, 64) uint8 at 25 frames a second, as `crop_mouth` gives them.

    Returns:
        (T, M) float32, standardised: speed of jaw, lips and width, darkening of the inside, and
        how much the mouth changes; row t is from frame t - 1 to t, and row 0 is nought.

    Raises:
        ValueError: for fewer than two crops, or arrays of another shape.
    """
    expected = (MOUTH_HEIGHT, MOUTH_WIDTH)
    if not isinstance(mouths, np.ndarray) or mouths.ndim != 3 or mouths.shape[1:] != expected:
        raise ValueError(f"expected crops of mouths as an array (T, {expected[0]}, {expected[1]})")
    if len(mouths) < 2:
        raise ValueError("expected at least two crops: motion is from one frame to the next")
    chunks = [
        _motion_of_chunk(mouths[max(0, start - 1) : start + _CHUNK])
        for start in range(0, len(mouths), _CHUNK)
        if len(mouths[max(0, start - 1) : start + _CHUNK]) > 1
    ]
    motion = np.concatenate([np.zeros((1, len(MOTIONS))), *chunks])
    motion[0, -1] = motion[1, -1]
    motion[:, -1] = _without_drift(motion[:, -1:])[:, 0]
    motion[0] = 0
    return _standardised(motion)


def _motion_of_chunk(mouths: np.ndarray) -> np.ndarray:
    """(T, 48, 64) -> (T - 1, M): least squares of the change from frame to frame."""
    import cv2

    fields, window, inside = _motion_fields()
    blurred = [cv2.GaussianBlur(mouth.astype(np.float32), (0, 0), _BLUR) for mouth in mouths]
    small = np.stack(blurred)[:, ::2, ::2]  # (T, 24, 32)
    contrast = small.std((1, 2)).mean() + 3  # grey levels; the 3 keeps noise from being blown up
    small = (small - small.mean((1, 2), keepdims=True)) / contrast
    change = small[1:] - small[:-1]
    middle = (small[1:] + small[:-1]) / 2
    along_y, along_x = np.gradient(middle, axis=(1, 2))
    along_y, along_x = along_y[:, None], along_x[:, None]
    root = np.sqrt(window)
    slopes = (along_x * fields[:, 0] + along_y * fields[:, 1]) * root  # (T - 1, 7, 24, 32)
    slopes = slopes.reshape(len(change), len(fields), -1)
    moved = (-change * root).reshape(len(change), -1, 1)
    normal = slopes @ slopes.transpose(0, 2, 1)  # (T - 1, 7, 7)
    ridge = 0.02 * np.trace(normal.mean(0)) / len(fields) + 1e-6
    speed = np.linalg.solve(normal + ridge * np.eye(len(fields)), slopes @ moved)[..., 0]
    head = np.einsum("tf,tfp->tp", speed[:, :4], slopes[:, :4])
    unexplained = ((moved[..., 0] - head) ** 2).mean(1)
    # A file of few pictures a second repeats some: they must not look like great stillness.
    energy = np.log(unexplained + 0.1 * np.median(unexplained) + 1e-4)
    darkening = -(change * inside).sum((1, 2))
    return np.column_stack([speed[:, 4:], darkening, energy])


def _without_drift(signal: np.ndarray, seconds: float = 1.0) -> np.ndarray:
    """A signal (T, n) minus its own slow course."""
    from scipy.ndimage import gaussian_filter1d

    width = seconds * FRAMES_PER_SECOND
    return signal - gaussian_filter1d(signal, width, axis=0, mode="nearest")


def _standardised(signal: np.ndarray) -> np.ndarray:
    """(T, n) about zero, with unit variance; what is far out is drawn in, what is still is 0."""
    signal = signal - signal.mean(0)
    spread = 1.4826 * np.median(np.abs(signal), axis=0)
    spread = np.maximum(spread, 0.5 * signal.std(0)) + 1e-9
    signal = np.tanh(signal / (_SOFT_LIMIT * spread))
    signal = signal - signal.mean(0)
    deviation = signal.std(0)
    return (signal / np.where(deviation > 1e-6, deviation, np.inf)).astype(np.float32)


# --- what the sound does ---------------------------------------------------------------------

_BANDS_HZ = ((80, 400), (400, 1000), (1000, 2000), (2000, 3600), (3600, 7600), (80, 7600))
_RISES = ("rise_1", "rise_2", "rise_3", "rise_4", "rise_5", "rise")
_SHARES = ("share_1", "share_2", "share_3", "share_4", "share_5")
SOUNDS = (*_RISES, "level", *_SHARES, "flux")
_SAMPLES_PER_FRAME = int(SAMPLING_RATE / FRAMES_PER_SECOND)
_HOP, _WINDOW, _FFT = 160, 400, 512  # samples: 10 ms, 25 ms
_FLOOR_DB = -30.0  # below the loud parts: what is softer is silence


def speech_changes(speech: np.ndarray, frames: int) -> np.ndarray:
    """How the sound rises and falls between the frames of a film.

    Args:
        speech: (samples,) float32 at 16 kHz; sample 0 is at the time of frame 0.
        frames: T, at 25 a second; sound that is missing at the end is silence.

    Returns:
        (T, A) float32, standardised: rise of the logarithm of energy in five bands and in all,
        the level of all, the bands' levels against it, and the flux; row t is between frame t - 1
        and t.
    """
    needed = frames * _SAMPLES_PER_FRAME
    speech = np.asarray(speech, np.float32)[:needed]
    speech = np.pad(speech, (_WINDOW // 2, needed - len(speech) + _WINDOW))
    speech = np.append(speech[0], speech[1:] - 0.95 * speech[:-1])  # pre-emphasis
    starts = np.arange(0, needed, _HOP)
    windows = np.lib.stride_tricks.sliding_window_view(speech, _WINDOW)[starts]
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32), _FFT)) ** 2
    frequency = np.fft.rfftfreq(_FFT, 1 / SAMPLING_RATE)
    edges = np.array(_BANDS_HZ)
    in_band = (frequency[:, None] >= edges[:, 0]) & (frequency[:, None] < edges[:, 1])
    energy = spectrum @ in_band.astype(spectrum.dtype)  # (4 T, 6)
    floor = np.percentile(energy, 95, axis=0) * 10 ** (_FLOOR_DB / 10) + 1e-9
    level = np.log(energy + floor)
    onset = np.maximum(np.diff(level, axis=0, prepend=level[:1]), 0).mean(1)
    level, onset = level.reshape(frames, -1, 6).mean(1), onset.reshape(frames, -1).mean(1)
    before = np.concatenate([level[:1], level[:-1]])
    middle = level + before
    levels = _without_drift(np.column_stack([middle[:, -1], middle[:, :-1] - middle[:, -1:]]))
    flux = onset + np.append(onset[0], onset[:-1])
    return _standardised(np.column_stack([level - before, levels, flux]))


# --- do they belong together -----------------------------------------------------------------

MAX_OFFSET_S = 0.4  # sound and picture of a file are seldom further apart
MAX_LAG = round(MAX_OFFSET_S * FRAMES_PER_SECOND)
_MEMORY = 6  # frames, after which neither mouth nor speech knows what it did
_FEWEST_FRAMES = round(0.9 * FRAMES_PER_SECOND)  # fewer say nothing: the score is nought
REACH = 3  # frames before and after, over which the weights look
WEIGHTS_FILE = Path(__file__).with_name("synchrony_weights.json")


@dataclass(frozen=True)
class Synchrony:
    """How surely a mouth and a sound belong together.

    Attributes:
        score: standard deviations above unrelated speech, the search over offsets counted: about
            standard normal for unrelated ones, higher is surer.
        offset_s: how much later the sound comes than the mouth's motion, seconds.
        lag_curve: (L,) the same for each offset of `lag_offsets_s()`, without counting the search.
    """

    score: float
    offset_s: float
    lag_curve: np.ndarray


def lag_offsets_s() -> np.ndarray:
    """(L,) seconds, the offsets that are searched: how much later the sound comes."""
    return np.arange(-MAX_LAG, MAX_LAG + 1) / FRAMES_PER_SECOND


@functools.cache
def read_weights() -> np.ndarray:
    """What `fit_synchrony` found.

    Returns:
        (M, A, D): the weight of motion m between frames t - 1 and t, with sound a d - `REACH`
        frames later.
    """
    fitted = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    return np.array([[fitted[f"{motion} {sound}"] for sound in SOUNDS] for motion in MOTIONS])


def measure_synchrony(
    mouths: np.ndarray, speech: np.ndarray, offset_s: float | None = None
) -> Synchrony:
    """Measures whether a mouth speaks a sound.

    Args:
        mouths: (T, 48, 64) uint8 at 25 frames a second, as `crop_mouth` gives them.
        speech: (samples,) float32 at 16 kHz, from the time of the first frame to that of the last.
        offset_s: of the sound against the picture, if the whole video's is known (see
            `common_offset`): then nothing is searched, and the score is sharper.

    Returns:
        The score, at the best offset or the given one.

    Raises:
        ValueError: for crops or sound of another shape.

    Example:
        >>> measure_synchrony(track.mouths, speech).score > MIN_SCORE  # doctest: +SKIP
        True
    """
    motion = mouth_motion(mouths)
    return compare(motion, speech_changes(speech, len(motion)), offset_s)


def compare(motion: np.ndarray, sound: np.ndarray, offset_s: float | None = None) -> Synchrony:
    """`measure_synchrony` on what `mouth_motion` and `speech_changes` gave.

    Args:
        motion: (T, M); sound: (T, A); offset_s: as in `measure_synchrony`.

    Returns:
        The score, at the best offset or the given one.
    """
    curve = _lag_curve(motion, sound)
    if offset_s is not None:
        return _at_offset(Synchrony(0.0, 0.0, curve), offset_s)
    likely = curve - rarity()
    best = int(np.argmax(likely))
    return Synchrony(_after_search(likely[best]), float(lag_offsets_s()[best]), curve)


def _lag_curve(motion: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """(L,) weighted sum of correlations at each offset, in deviations of unrelated speech."""
    from scipy.fft import irfft, next_fast_len, rfft

    frames = len(motion)
    if frames < _FEWEST_FRAMES:
        return np.zeros(2 * MAX_LAG + 1)
    expected = _expected_motion(sound)  # (T, M)
    n = next_fast_len(frames + MAX_LAG + 1, real=True)
    together = rfft(motion, n, axis=0).conj() * rfft(expected, n, axis=0)
    agreement = irfft(together.sum(1), n) / frames
    agreement = np.concatenate([agreement[-MAX_LAG:], agreement[: MAX_LAG + 1]])
    deviation = _deviation_of_unrelated(motion, expected)
    return agreement / deviation if deviation > 1e-9 else np.zeros_like(agreement)


def _expected_motion(sound: np.ndarray) -> np.ndarray:
    """(T, A) -> (T, M): what the weights expect each motion to do, up to a scale."""
    weights = read_weights()
    frames = len(sound)
    padded = np.pad(sound, ((REACH, REACH), (0, 0)))
    delays = range(weights.shape[2])
    return sum(padded[d : d + frames] @ weights[:, :, d].T for d in delays)


def _deviation_of_unrelated(motion: np.ndarray, expected: np.ndarray) -> float:
    """Standard deviation of the mean product of two such signals that know nothing of each other.

    Bartlett's formula: it is the sum over lags of the product of their autocovariances, which the
    clip itself gives; with signals that are slow, chance correlates them more.
    """
    frames = len(motion)
    variance = 0.0
    for lag in range(min(_MEMORY, frames - 1) + 1):
        one = motion[lag:].T @ motion[: frames - lag] / frames  # (M, M)
        other = expected[lag:].T @ expected[: frames - lag] / frames
        share = (1.0 if lag == 0 else 2.0) * (1 - lag / (_MEMORY + 1))
        variance += share * float((one * other).sum())
    return np.sqrt(max(variance, 0.0) / frames)


def rarity() -> np.ndarray:
    """(L,) by how much an offset's score is lowered: few files are out of step by 80 ms or more.

    With four in five within 80 ms, the others are each a dozen times rarer: some 0.9 deviations
    where the score is near three.
    """
    frames = np.abs(lag_offsets_s()) * FRAMES_PER_SECOND
    return 0.9 * np.clip((frames - 2) / 3, 0, 1)


def _after_search(score: float, tries: float = 5.0) -> float:
    """The score, as if it had not been the best of several tries (Sidak), in deviations."""
    from scipy.stats import norm

    score = float(np.clip(score, -30, 30))  # beyond, probabilities are nought
    below = tries * norm.logcdf(score)  # log of the probability that all tries stay below
    # Each tail by itself: the other one would round to 1.
    return float(norm.isf(-np.expm1(below)) if score > 0 else norm.ppf(np.exp(max(below, -700.0))))


# --- who speaks ------------------------------------------------------------------------------

# By `fit_synchrony`'s table on films of the cast: of unrelated sounds that begin when the mouth
# does, about one in 150 passes (of those that begin at any time, none of 2,800), and of speaking
# faces 98 in 100, by one segment alone.
MIN_SCORE = 3.25  # of a face that speaks
MIN_SUPPORTED_SCORE = 2.0  # of one that, by other segments, speaks in the video at that offset
MIN_LEAD = 1.0  # over every other face


@dataclass(frozen=True)
class SpeakerChoice:
    """Which face speaks in a segment.

    Attributes:
        face: its key, or None.
        reason: why there is none: "not_in_sync" or "several_speakers" (of `records.REASONS`).
        score: the best face's.
        offset_s: the best face's, seconds.
    """

    face: Hashable | None
    reason: str | None
    score: float
    offset_s: float


def choose_speakers(
    segments: Sequence[Mapping[Hashable, Synchrony]],
    min_score: float = MIN_SCORE,
    min_supported_score: float = MIN_SUPPORTED_SCORE,
    min_lead: float = MIN_LEAD,
) -> list[SpeakerChoice]:
    """Chooses who speaks in each segment of one video.

    A face is as many frames before or behind the sound in all of a file. So what other segments
    tell about it is used in each: it is looked for at that offset, and needs less proof. A face
    that is seen in many segments and speaks in none of the others needs more.

    Args:
        segments: for each segment of speech, the synchrony of each face seen in it, searched over
            all offsets. The same key is the same face throughout the video.
        min_score, min_supported_score, min_lead: standard deviations.

    Returns:
        A choice for each segment.
    """
    leading = [max(faces, key=lambda face: faces[face].score, default=None) for faces in segments]
    choices = []
    for k, faces in enumerate(segments):
        judged, thresholds = {}, {}
        for face, sync in faces.items():
            # Where another face moves better with the sound, this one is not expected to speak.
            others = [
                segments[j][face] for j, first in enumerate(leading) if j != k and first == face
            ]
            offset_s = common_offset(others, min_score)
            judged[face] = sync if offset_s is None else _at_offset(sync, offset_s)
            tries = sum(face in other for other in segments)
            alone = _for_several_tries(min_score, tries)
            thresholds[face] = alone if offset_s is None else min_supported_score
        choices.append(_choose(judged, thresholds, min_score, min_lead))
    return choices


def choose_speaker(
    faces: Mapping[Hashable, Synchrony], min_score: float = MIN_SCORE, min_lead: float = MIN_LEAD
) -> SpeakerChoice:
    """Chooses who speaks in one segment, by nothing but this segment.

    Args:
        faces: the synchrony of each face seen in it.
        min_score: of a face that speaks, standard deviations.
        min_lead: of that face over every other, standard deviations.

    Returns:
        The face, or why there is none.
    """
    return _choose(faces, dict.fromkeys(faces, min_score), min_score, min_lead)


def common_offset(measured: Sequence[Synchrony], min_score: float = MIN_SCORE) -> float | None:
    """The offset at which a face speaks in several segments taken together.

    Args:
        measured: of one face, in each segment; searched over all offsets.
        min_score: of all of them together, standard deviations.

    Returns:
        Seconds that the sound comes later; None if the segments together do not show that it
        speaks, or there are none.
    """
    if not measured:
        return None
    curve = np.sum([sync.lag_curve for sync in measured], 0) / np.sqrt(len(measured))
    likely = curve - rarity()
    best = int(np.argmax(likely))
    return float(lag_offsets_s()[best]) if _after_search(likely[best]) >= min_score else None


def _for_several_tries(min_score: float, tries: int) -> float:
    """The score that chance reaches no oftener in several segments than `min_score` in one."""
    from scipy.stats import norm

    return float(norm.isf(norm.sf(min_score) / tries))


def _at_offset(sync: Synchrony, offset_s: float) -> Synchrony:
    """What the same lag curve says when the offset is known to a frame."""
    offsets = lag_offsets_s()
    near = np.abs(offsets - offset_s) <= 1.01 / FRAMES_PER_SECOND
    best = int(np.argmax(np.where(near, sync.lag_curve, -np.inf)))
    score = _after_search(sync.lag_curve[best], tries=1.5)
    return Synchrony(score, float(offsets[best]), sync.lag_curve)


def _choose(
    faces: Mapping[Hashable, Synchrony],
    thresholds: Mapping[Hashable, float],
    min_score: float,
    min_lead: float,
) -> SpeakerChoice:
    """The best face, if it passes its threshold and no other one speaks too, or nearly as well."""
    if not faces:
        return SpeakerChoice(None, "not_in_sync", 0.0, 0.0)
    first, *rest = sorted(faces, key=lambda face: faces[face].score, reverse=True)
    best = faces[first]
    runner_up = faces[rest[0]].score if rest else -np.inf
    face, reason = first, None
    if best.score < thresholds[first]:
        face, reason = None, "not_in_sync"
    elif runner_up >= min_score or best.score - runner_up < min_lead:
        face, reason = None, "several_speakers"
    return SpeakerChoice(face, reason, best.score, best.offset_s)
