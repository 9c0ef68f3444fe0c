"""A stand-in for the extraction of pairs: any small file is a video, its text says what is in it.

A file holds words: `person:NAME` gives two pairs of that person, `crash`, `hang`, `error`, `slow`
do what they say, `begin` leaves a mark, `nobody` is refused. Module-level functions, so that
worker processes find them.
"""

import os
import sys
import time
import zlib
from collections.abc import Sequence

import numpy as np

from dataset_scripts.pair_table import flac_bytes, jpeg_bytes, sharpness
from dataset_scripts.records import Extraction, Refusal, SourceVideo

EMBEDDING_SIZE = 128


def face_of(person: str, shift: float = 0.0) -> np.ndarray:
    """An embedding, (128,) float32: persons lie about 0.8 apart, pictures of one about 0.1."""
    generator = np.random.default_rng(zlib.crc32(person.encode()))
    centre = generator.normal(size=EMBEDDING_SIZE)
    noise = np.random.default_rng(int(1000 * shift)).normal(size=EMBEDDING_SIZE)
    return (0.57 * centre / np.linalg.norm(centre) + 0.07 * noise / 11.3).astype(np.float32)


def fake_extract(video: SourceVideo) -> Extraction:
    """Pairs as `extract_pairs` gives them, from a file's words."""
    words = video.path.read_text(errors="replace").split()
    pairs, refusals, track = [], [], 0
    seed = zlib.crc32(video.video_id.encode())
    for word in words:
        if word == "crash":
            os.abort()
        if word == "hang":
            time.sleep(600)
        if word == "begin":
            video.path.with_suffix(".begun").touch()
        if word == "slow":
            time.sleep(0.2)
        if word == "error":
            raise RuntimeError("a fault of the code")
        if word == "nobody":
            refusals.append(Refusal(video.video_id, None, None, "no_face", "no face is seen"))
        if word.startswith("person:"):
            pairs += [_pair(video, word[7:], track, k, seed) for k in range(2)]
            refusals.append(Refusal(video.video_id, 9.0, 10.5, "not_frontal", "it looks away"))
            track += 1
    generator = np.random.default_rng(seed)
    fingerprint = generator.integers(0, 2**63, 10, dtype=np.uint64).tolist()
    return Extraction(pairs, refusals, fingerprint, 20.0)


def _pair(video: SourceVideo, person: str, track: int, k: int, seed: int) -> dict:
    generator = np.random.default_rng([seed, track, k])
    start_s, end_s = 3.0 * k, 3.0 * k + 1.5
    pair_id = f"{zlib.crc32(f'{video.video_id} {track} {k}'.encode()):08x}"
    clip = generator.normal(0, 0.05, 24000).astype(np.float32)
    colours = generator.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    face = np.kron(colours, np.ones((32, 32, 1), np.uint8))  # (224, 224, 3)
    return {
        "pair_id": pair_id,
        "audio": {"bytes": flac_bytes(clip), "path": f"{pair_id}.flac"},
        "face": {"bytes": jpeg_bytes(face), "path": f"{pair_id}.jpg"},
        "face_embedding": face_of(person, k + 0.001 * (seed % 97)),
        "video_id": video.video_id,
        "start_s": start_s,
        "end_s": end_s,
        "face_time_s": start_s + 0.5,
        "face_position": [0.5, 0.5],
        "sync_score": float(generator.uniform(3, 9)),
        "frontality": float(generator.uniform(0.8, 1)),
        "sharpness": sharpness(face),
        "speech_ratio": float(generator.uniform(0.7, 1)),
        "face_size_px": float(generator.uniform(80, 200)),
        "gender": video.gender,
        "age": video.age,
        "language": video.language,
        "traits": video.traits,
        "voice_parameters": video.voice_parameters,
        "voice_id": video.voice_id,
        "source": video.source,
        "licence": video.licence,
        "track": track,
        "track_embedding": face_of(person, 0.001 * (seed % 97)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command with this extraction: `python -m tests.fake_extraction folder PATH ...`."""
    from dataset_scripts.speech_face_pairs import main as command
    from tests.fake_extraction import fake_extract as extract  # not __main__'s: workers find it

    return command(arguments, extract=extract)


if __name__ == "__main__":
    sys.exit(main())
