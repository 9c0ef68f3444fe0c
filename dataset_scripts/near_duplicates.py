"""The same recording found twice: re-encoded, scaled or trimmed.

A talking head in a room looks much the same from second to second and from film to film, so that
pictures tell rooms and persons apart, but not two recordings made there. What is said does: two
videos are one recording if their sound agrees in its finest print at one offset in time, and their
pictures agree there too (the same sound over other pictures is another film).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# The print of the sound: J. Haitsma and T. Kalker, "A highly robust audio fingerprinting system",
# ISMIR 2002, with 16 bands for speech and steps of 40 ms.
SAMPLING_RATE = 16000  # Hz
STEP = 640  # samples, 40 ms
WINDOW = 8192  # samples, 0.5 s: a trim by half a step changes little
BANDS = 16  # a bit each
LOWEST_HZ, HIGHEST_HZ = 300.0, 3000.0
STEPS_PER_WORD = 4  # 16 bits each make 64
STEPS_PER_SECOND = SAMPLING_RATE // STEP
WINDOWS_AT_ONCE = 256  # 8 MB

KEY_APART = 6  # steps between the two prints of a key: near ones are alike
MOST_KEYS = 20_000_000  # about 200 hours; of more, a part is kept, chosen by its bits
PAIRS_AT_ONCE = 1_000_000  # of places with one key, 50 MB
LARGEST_BUCKET = 50  # places; a key found in more (silence, a hum, a jingle) tells nothing

LEAST_STEPS = 2 * STEPS_PER_SECOND  # that two videos must share
LEAST_SHARE = 0.8  # of the shorter video, likewise
LARGEST_ERROR = 0.3  # share of the sound's bits that differ; 0.5 is chance
PARTS = 4  # each of which must agree: half a recording and other speech are no duplicate
LARGEST_ERROR_OF_A_PART = 0.38
ABOUT_AS_LONG = 1.25  # times
LARGEST_DISTANCE = 12.0  # bits of 64 in which the pictures differ, the mean over what is shared


def fingerprint(pictures: Sequence[int], sound: np.ndarray) -> list[int]:
    """What `find_duplicates` needs to know of a video: some 60 bytes a second.

    Args:
        pictures: a 64-bit perceptual hash of a picture of each second, from the first; may be
            empty.
        sound: (samples,) float32 mono at 16 kHz, from the same moment on.

    Returns:
        uint64 numbers: how many pictures, their hashes, and the print of the sound.
    """
    steps = _print_of_sound(sound)  # (steps,) uint16
    steps = np.pad(steps, (0, -len(steps) % STEPS_PER_WORD))
    words = np.ascontiguousarray(steps).view("<u8")
    return [len(pictures), *map(int, pictures), *words.tolist()]


def find_duplicates(fingerprints: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Finds videos that are the same recording, at least four fifths of the shorter one.

    Args:
        fingerprints: video_id -> as `fingerprint` gives it; empty if nothing is known.

    Returns:
        video_id of a duplicate -> video_id of the one to keep: the longest, so that no excerpt
        stands for the whole; of those about as long, the first by name.
    """
    prints = {
        video_id: _Print.of(numbers) for video_id, numbers in fingerprints.items() if len(numbers)
    }

    def rank(video_id: str) -> tuple[int, str]:
        length = max(1, len(prints[video_id].steps))
        return -round(np.log(length) / np.log(ABOUT_AS_LONG)), video_id

    names = sorted(prints, key=rank)
    prints = {name: prints[name] for name in names}
    kept_for: dict[str, str] = {}
    for first, second, offset in _candidates(list(prints.values())):
        first, second = names[first], names[second]
        if second in kept_for or first in kept_for:
            continue  # one of the first's own duplicates, or itself, answers for the second
        if _is_same_recording(prints[first], prints[second], offset):
            kept_for[second] = first
    return kept_for


@dataclass(frozen=True)
class _Print:
    pictures: np.ndarray  # (seconds,) uint64
    steps: np.ndarray  # (steps,) uint16

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "_Print":
        numbers = np.asarray(numbers, np.uint64)
        count = int(numbers[0])
        return cls(numbers[1 : 1 + count], numbers[1 + count :].astype("<u8").view("<u2"))


def _print_of_sound(sound: np.ndarray) -> np.ndarray:
    """(steps,) uint16: where the energy grows more in a band than in the next one up."""
    from scipy.fft import rfft

    edges_hz = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 2)
    bins = np.round(edges_hz * WINDOW / SAMPLING_RATE).astype(int)
    taper = np.hanning(WINDOW).astype(np.float32)
    padded = np.pad(sound, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::STEP]  # (steps + 1, 8192)
    energies = []
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        spectrum = rfft(windows[start : start + WINDOWS_AT_ONCE] * taper)
        power = np.abs(spectrum[:, : bins[-1]]) ** 2
        energies.append(np.add.reduceat(power, bins[:-1], axis=1))
    energy = np.concatenate(energies)  # (steps + 1, BANDS + 1)
    slope = np.diff(energy, axis=1)
    bits = np.diff(slope, axis=0) > 0  # (steps, BANDS)
    return np.packbits(bits, axis=1, bitorder="little").view("<u2")[:, 0]


def _candidates(prints: list[_Print]) -> Iterator[tuple[int, int, int]]:
    """(first video, second video, steps by which the second begins later): keys in common."""
    keys, videos, places = [], [], []
    kept = 1 + sum(len(of_video.steps) for of_video in prints) // MOST_KEYS
    for index, of_video in enumerate(prints):
        steps = of_video.steps.astype(np.int64)
        if len(steps) < LEAST_STEPS:
            continue
        key = steps[:-KEY_APART] | steps[KEY_APART:] << BANDS  # (steps - KEY_APART,), 32 bits
        place = np.nonzero(_mix(key) % kept == 0)[0]
        keys.append(key[place])
        videos.append(np.full(len(place), index, np.int32))
        places.append(place.astype(np.int32))
    if not keys:
        return
    keys, videos, places = map(np.concatenate, (keys, videos, places))
    order = np.argsort(keys, kind="stable")  # videos stay in order within a key
    keys, videos, places = keys[order], videos[order], places[order]
    first = np.nonzero(np.diff(keys, prepend=-1))[0]  # of each bucket of equal keys
    size = np.diff(first, append=len(keys))
    # A candidate is one number, some gigabytes less than a tuple of three for hundreds of hours.
    farthest = int(places.max()) if len(places) else 0
    offsets = 2 * farthest + 1
    found = [np.empty(0, np.int64)]
    for count in range(2, LARGEST_BUCKET + 1):
        starts = first[size == count]
        pair = np.triu_indices(count, 1)
        for part in np.array_split(starts, 1 + len(starts) * len(pair[0]) // PAIRS_AT_ONCE):
            i, j = (np.add.outer(part, side).ravel() for side in pair)
            other = videos[i] != videos[j]
            i, j = i[other], j[other]
            both = videos[i].astype(np.int64) * len(prints) + videos[j]
            found.append(np.unique(both * offsets + (places[i] - places[j] + farthest)))
    for packed in np.unique(np.concatenate(found)):
        both, offset = divmod(int(packed), offsets)
        yield *divmod(both, len(prints)), offset - farthest


def _mix(keys: np.ndarray) -> np.ndarray:
    """Numbers that look random, so that the keys that are kept are of every kind."""
    return (keys * 0x9E3779B1 >> 15) & 0xFFFF


def _is_same_recording(first: _Print, second: _Print, offset: int) -> bool:
    a, b = _overlap(first.steps, second.steps, offset)
    shorter = min(len(first.steps), len(second.steps))
    if len(a) < max(LEAST_STEPS, LEAST_SHARE * shorter):
        return False
    sounding = (a != 0) | (b != 0)  # digital silence prints nothing, in both
    if sounding.sum() < LEAST_STEPS / 2:
        return False
    errors = np.bitwise_count(a[sounding] ^ b[sounding]) / BANDS  # (steps,)
    worst_part = max(part.mean() for part in np.array_split(errors, PARTS))
    if errors.mean() > LARGEST_ERROR or worst_part > LARGEST_ERROR_OF_A_PART:
        return False
    if not len(first.pictures) or not len(second.pictures):
        return True  # a source without moving pictures
    a, b = _overlap(first.pictures, second.pictures, round(offset / STEPS_PER_SECOND))
    return len(a) > 0 and bool(np.bitwise_count(a ^ b).mean() <= LARGEST_DISTANCE)


def _overlap(first: np.ndarray, second: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """The parts of two series that lie at the same time if the second begins `offset` later."""
    first, second = first[max(0, offset) :], second[max(0, -offset) :]
    shared = min(len(first), len(second))
    return first[:shared], second[:shared]
