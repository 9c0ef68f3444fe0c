"""Where somebody speaks: stretches of 1 to 10 s, cut where the voice pauses."""

from dataclasses import dataclass

import numpy as np

from dataset_scripts.records import SAMPLING_RATE

MIN_SEGMENT_S, MAX_SEGMENT_S = 1.0, 10.0
_CHUNK_SAMPLES = 512  # of silero-vad, 32 ms
_CHUNK_S = _CHUNK_SAMPLES / SAMPLING_RATE
_STARTS_ABOVE, _ENDS_BELOW = 0.5, 0.35  # probability of speech
_MIN_SPEECH_S = 0.8  # in a segment: a cough or a beat of music is shorter
_PADDING_S = 0.08  # kept before and after: soft consonants
_SOFTEST = 1e-4  # of full scale, root mean square: below, nobody speaks


@dataclass(frozen=True)
class SpeechSegment:
    """A stretch in which somebody speaks.

    Attributes:
        start_s, end_s: seconds.
        speech_ratio: share of it that is speech, 0 to 1.
    """

    start_s: float
    end_s: float
    speech_ratio: float


def find_speech(waveform: np.ndarray, max_pause_s: float = 0.3) -> list[SpeechSegment]:
    """Finds speech with silero-vad; music and noise are none.

    Args:
        waveform: (samples,) float32, mono, 16 kHz, -1 to 1.
        max_pause_s: a longer pause ends a segment, seconds.

    Returns:
        Segments in order, each of 1 to 10 s; empty if nobody speaks for so long. Longer speech is
        cut where the voice is weakest.

    Raises:
        ValueError: for an array that is no waveform.
    """
    import torch

    from modeling_speech2face import speech_probabilities

    waveform = np.ascontiguousarray(waveform, np.float32)
    if waveform.ndim != 1 or not np.isfinite(waveform).all():
        raise ValueError("expected a waveform as an array (samples,) of finite numbers")
    duration_s = len(waveform) / SAMPLING_RATE
    if duration_s < MIN_SEGMENT_S:
        return []
    loudness = _loudness(waveform)  # (chunks,)
    probability = speech_probabilities(torch.from_numpy(waveform)).numpy()  # (chunks,)
    probability = np.where(loudness < _SOFTEST, 0.0, probability)
    strength = _smooth(probability) + 0.1 * _smooth(np.log10(loudness + _SOFTEST))
    longest = int((MAX_SEGMENT_S - 2 * _PADDING_S) / _CHUNK_S)
    pieces = [
        piece
        for start, end in _stretches(probability, round(max_pause_s / _CHUNK_S))
        for piece in _cut(start, end, strength, longest)
    ]
    segments = []
    for k, (start, end) in enumerate(pieces):
        spoken = probability[start:end] >= _STARTS_ABOVE
        if spoken.sum() * _CHUNK_S < _MIN_SPEECH_S:
            continue
        # Half of the pause at most, so that neighbours do not overlap.
        earliest = (pieces[k - 1][1] + start) / 2 if k else 0
        latest = (end + pieces[k + 1][0]) / 2 if k + 1 < len(pieces) else np.inf
        padding = max(_PADDING_S, (MIN_SEGMENT_S - (end - start) * _CHUNK_S) / 2 + 0.01) / _CHUNK_S
        start_s = max(start - padding, earliest) * _CHUNK_S
        end_s = min(min(end + padding, latest) * _CHUNK_S, duration_s)
        if end_s - start_s >= MIN_SEGMENT_S:
            ratio = spoken.sum() * _CHUNK_S / (end_s - start_s)
            segments.append(SpeechSegment(start_s, end_s, float(min(ratio, 1.0))))
    return segments


def _loudness(waveform: np.ndarray) -> np.ndarray:
    """(samples,) -> (chunks,) root mean square."""
    padded = np.pad(waveform, (0, -len(waveform) % _CHUNK_SAMPLES))
    return np.sqrt((padded.reshape(-1, _CHUNK_SAMPLES) ** 2).mean(1))


def _smooth(signal: np.ndarray) -> np.ndarray:
    from scipy.ndimage import uniform_filter1d

    return uniform_filter1d(signal.astype(np.float64), 5, mode="nearest")


def _stretches(probability: np.ndarray, max_pause: int) -> list[tuple[int, int]]:
    """Chunks from which speech starts and to which it goes on, over pauses up to `max_pause`."""
    stretches = []
    speaks = False
    for chunk, value in enumerate(probability):
        if not speaks and value >= _STARTS_ABOVE:
            if stretches and chunk - stretches[-1][1] <= max_pause:
                stretches[-1] = (stretches[-1][0], chunk + 1)
            else:
                stretches.append((chunk, chunk + 1))
            speaks = True
        elif speaks and value >= _ENDS_BELOW:
            stretches[-1] = (stretches[-1][0], chunk + 1)
        else:
            speaks = False
    return stretches


def _cut(start: int, end: int, strength: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Cuts a stretch into pieces of at most `longest` chunks, where the voice is weakest."""
    pieces = []
    shortest = int(MIN_SEGMENT_S / _CHUNK_S) + 1
    while end - start > longest:
        # As few pieces as can be, and none of them too short.
        rest = -(-(end - start) // longest) - 1
        first = max(start + shortest, end - rest * longest)
        last = min(start + longest, end - shortest)
        cut = first + int(np.argmin(strength[first : last + 1]))
        pieces.append((start, cut))
        start = cut
    return [*pieces, (start, end)]
