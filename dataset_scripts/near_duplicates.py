"""The same recording found twice: re-encoded, scaled or trimmed, by hashes of its pictures."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

HASH_ROWS, HASH_COLUMNS = 8, 8
BANDS, BAND_BITS = 4, 16  # two hashes that differ in at most 3 bits have a band in common

LEAST_FRAMES = 4  # that two videos must share
LEAST_SHARE = 0.8  # of the shorter video, likewise
LARGEST_DISTANCE = 8.0  # bits of 64, the mean over the shared frames
LARGEST_RATIO = 0.5  # of that distance to the one between frames within a video
LEAST_MOTION = 1.0  # bits between frames of a video; with less, a still cannot be told from another
LEAST_BITS = 4  # set or unset: a black or evenly shaded picture has fewer
LARGEST_BUCKET = 100  # videos; a picture that more videos share says nothing
LEAST_COMMON_BANDS = 2


def hash_picture(grey: np.ndarray) -> int:
    """A perceptual hash: in which of 64 places the picture grows brighter to the right.

    Args:
        grey: (height, width) uint8.

    Returns:
        64 bits, row by row; the same but for a few bits after scaling and compression.
    """
    import cv2

    small = cv2.resize(grey, (HASH_COLUMNS + 1, HASH_ROWS), interpolation=cv2.INTER_AREA)
    bits = small[:, 1:] > small[:, :-1]  # (8, 8)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_duplicates(fingerprints: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Finds videos that show the same recording, whole or in part.

    Two videos are one if, at some offset in time, most of the shorter one's pictures are nearly
    those of the other, and much nearer than the pictures within a video are to each other: the
    same room, or the same person in it, is not the same recording.

    Args:
        fingerprints: video_id -> (frames,) uint64, `hash_picture` at a fixed rate, about a second.

    Returns:
        video_id of a duplicate -> video_id of the one to keep (the first by name).
    """
    hashes = {
        video_id: np.asarray(fingerprint, np.uint64)
        for video_id, fingerprint in sorted(fingerprints.items())
        if len(fingerprint) >= LEAST_FRAMES
    }
    kept_for: dict[str, str] = {}
    for first, second in sorted(_candidates(hashes)):
        first = kept_for.get(first, first)
        if second not in kept_for and first != second:
            if _is_same_recording(hashes[first], hashes[second]):
                kept_for[second] = first
    return kept_for


def _candidates(hashes: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """Pairs of videos, in order of names, that have some bands of rare hashes in common."""
    names = list(hashes)
    videos, bands = [], []
    for index, fingerprint in enumerate(hashes.values()):
        found = np.unique(_bands(np.unique(fingerprint[_tells(fingerprint)])))
        videos.append(np.full(len(found), index, np.int64))
        bands.append(found)
    if not names:
        return
    videos, bands = np.concatenate(videos), np.concatenate(bands)
    order = np.argsort(bands, kind="stable")  # videos stay in order within a band
    starts = np.nonzero(np.diff(bands[order], prepend=-1))[0]
    common = defaultdict(int)
    for bucket in np.split(videos[order], starts[1:]):
        if 1 < len(bucket) <= LARGEST_BUCKET:
            for i, first in enumerate(bucket):
                for second in bucket[i + 1 :]:
                    common[first, second] += 1
    for (first, second), count in common.items():
        if count >= LEAST_COMMON_BANDS:
            yield names[first], names[second]


def _tells(fingerprint: np.ndarray) -> np.ndarray:
    """Which hashes are of a picture in which there is something."""
    bits = np.bitwise_count(fingerprint)
    return (bits >= LEAST_BITS) & (bits <= 64 - LEAST_BITS)


def _bands(fingerprint: np.ndarray) -> np.ndarray:
    """(hashes * BANDS,) int64: each 16 bits of each hash, with their place."""
    shifts = np.arange(BANDS, dtype=np.uint64) * np.uint64(BAND_BITS)
    parts = (fingerprint[:, None] >> shifts) & np.uint64((1 << BAND_BITS) - 1)  # (hashes, BANDS)
    return (parts.astype(np.int64) + (np.arange(BANDS) << BAND_BITS)).ravel()


def _is_same_recording(first: np.ndarray, second: np.ndarray) -> bool:
    shorter, longer = sorted((first, second), key=len)
    tells = _tells(shorter)
    if tells.sum() < LEAST_FRAMES:
        return False
    motion = min(_motion(shorter[tells]), _motion(longer[_tells(longer)]))
    limit = min(LARGEST_DISTANCE, LARGEST_RATIO * motion)
    if motion < LEAST_MOTION:
        return False
    distances = np.bitwise_count(shorter[:, None] ^ longer[None]).astype(float)  # (short, long)
    least = max(LEAST_FRAMES, LEAST_SHARE * len(shorter))
    for offset in range(-len(shorter) + 1, len(longer)):
        aligned = np.diagonal(distances, offset)
        start = max(0, -offset)
        aligned = aligned[tells[start : start + len(aligned)]]
        if len(aligned) >= least and aligned.mean() <= limit:
            return True
    return False


def _motion(fingerprint: np.ndarray) -> float:
    """Bits in which two pictures of a video differ, half of it apart."""
    half = len(fingerprint) // 2
    return float(np.bitwise_count(fingerprint[:half] ^ fingerprint[-half:]).mean())
