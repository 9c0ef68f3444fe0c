"""The voice teacher: GE2E, a speaker-verification network trained on much more speech than ships.

Wan et al., arXiv 1710.10467; weights and code from the package `resemblyzer` (Apache-2.0).
"""

import hashlib

import numpy as np

from training.data import Pairs

TARGET_DBFS = -30.0  # the level on which GE2E was trained
WINDOWS_PER_SECOND = 0.7  # of 1.6 s each: they cover the recording, and hardly overlap


def voice_embeddings(pairs: Pairs, teacher: str = "ge2e") -> np.ndarray:
    """The teacher's embedding of every recording, computed once and kept beside the decoded speech.

    Args:
        pairs: of one split.
        teacher: "ge2e".

    Returns:
        (N, 256) float32, of length 1.
    """
    path = pairs.folder / f"{teacher}.npy"
    if not path.exists():
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.save(file, _embed_all(pairs))
        part.rename(path)
    return np.load(path)


def _embed_all(pairs: Pairs) -> np.ndarray:
    from resemblyzer import VoiceEncoder
    from resemblyzer.audio import normalize_volume
    from tqdm import tqdm

    network = VoiceEncoder("cpu", verbose=False)
    heard: dict[bytes, np.ndarray] = {}  # one recording may belong to several pairs
    embeddings = []
    for index in tqdm(range(len(pairs)), desc="asking the voice teacher", unit="pair"):
        speech = pairs.speech(index)
        key = hashlib.sha256(speech).digest()
        if key not in heard:
            wave = speech.astype(np.float32) / 32768 + 1e-6  # silence has no level to normalise
            wave = normalize_volume(wave, TARGET_DBFS, increase_only=True)
            heard[key] = network.embed_utterance(wave, rate=WINDOWS_PER_SECOND)
        embeddings.append(heard[key])
    return np.asarray(embeddings, np.float32)
