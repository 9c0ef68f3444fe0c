"""The voice teacher: GE2E, a speaker-verification network trained on much more speech than ships.

Wan et al., arXiv 1710.10467; weights and code from the package `resemblyzer` (Apache-2.0).
"""

import numpy as np

from training.data import Pairs

TARGET_DBFS = -30.0  # the level on which GE2E was trained


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
    done: dict[bytes, np.ndarray] = {}  # one recording may belong to several pairs
    embeddings = []
    for index in tqdm(range(len(pairs)), desc="listening with the voice teacher", unit="pair"):
        speech = pairs.speech(index)
        key = speech.tobytes()
        if key not in done:
            wave = speech.astype(np.float32) / 32768
            wave = normalize_volume(wave + 1e-6, TARGET_DBFS, increase_only=True)
            done[key] = network.embed_utterance(wave)
        embeddings.append(done[key])
    return np.asarray(embeddings, np.float32)
