"""What the paper's decoder learns to make: a normalized face and its landmarks for every pair.

The cast knows both: a frontal, neutral, evenly lit rendering of each person, and its landmarks from
the geometry. Elsewhere the pair's own face stands in, with landmarks from dlib's predictor, whose
file was trained on pictures that exclude commercial use.

Letters: N pairs, T targets, S side of a face in pixels.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.faces import ALIGNED_SIZE
from training.data import Pairs, load_pairs, open_split

NORMALIZED = "normalized_face"
SMALL = 64  # pixels; where the pairs' own faces are not needed


@dataclass
class FaceTargets:
    """Faces to decode to.

    Attributes:
        faces: (T, 3, S, S) uint8, memory-mapped.
        landmarks: (T, 68, 2) float32, pixels (x, y) of these faces.
        of_pair: (N,) which target each pair has; pairs of one person of the cast share theirs.
        normalized: whether these are normalized faces, or the pairs' own.
    """

    faces: np.ndarray
    landmarks: np.ndarray
    of_pair: np.ndarray
    normalized: bool


def load_targets(dataset: str, split: str, cache: str, size: int) -> tuple[Pairs, FaceTargets]:
    """Reads one split's pairs, and what their embeddings are to be decoded to.

    Args:
        dataset: as for `training.data.load_pairs`.
        split: "train", "validation" or "test".
        cache: folder for what is decoded.
        size: S.

    Raises:
        FileNotFoundError: if there is no such data set or split.
        ValueError: if the data set names no teacher.
    """
    table = open_split(dataset, split, cache)
    names = np.asarray(table["speaker_id"])
    _, first, of_pair = np.unique(names, return_index=True, return_inverse=True)
    normalized = NORMALIZED in table.column_names and table[int(first[0])][NORMALIZED] is not None
    pairs = load_pairs(dataset, split, cache, SMALL if normalized else size)
    folder = pairs.folder / f"targets-{size}"
    if not (folder / "landmarks.npy").exists():  # written last
        folder.mkdir(exist_ok=True)
        if normalized:
            _write(folder, size, len(first), _normalized_faces(table, first))
        else:
            _write(folder, size, len(pairs), _own_faces(pairs))
    return pairs, FaceTargets(
        faces=np.load(folder / "faces.npy", mmap_mode="r"),
        landmarks=np.load(folder / "landmarks.npy"),
        of_pair=of_pair if normalized else np.arange(len(pairs)),
        normalized=normalized,
    )


def _normalized_faces(table: Any, rows: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """The cast's truth about some rows: faces (224, 224, 3) and landmarks (68, 2) in them."""
    from PIL import Image

    table = table.select_columns([NORMALIZED, "normalized_landmarks"])
    for row in rows.tolist():
        face = Image.open(io.BytesIO(table[row][NORMALIZED]["bytes"])).convert("RGB")
        yield np.asarray(face), np.asarray(table[row]["normalized_landmarks"], np.float32)


def _own_faces(pairs: Pairs) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """The pairs' own faces, and where dlib's predictor sees their landmarks."""
    from training.evaluation.instruments import detect_aligned, landmarks_of

    for face in pairs.faces:
        picture = np.ascontiguousarray(face.transpose(1, 2, 0))[None]
        yield picture[0], landmarks_of(picture, detect_aligned(picture)[0])[0]


def _write(folder: Path, size: int, count: int, targets: Iterable) -> None:
    """Writes faces.npy, brought to `size`, and landmarks.npy, which tells that both are whole."""
    from PIL import Image
    from tqdm import tqdm

    faces = np.lib.format.open_memmap(folder / "faces.npy", "w+", np.uint8, (count, 3, size, size))
    landmarks = np.zeros((count, 68, 2), np.float32)
    progress = tqdm(targets, total=count, desc="faces to decode to", unit="face")
    for row, (face, points) in enumerate(progress):
        picture = Image.fromarray(face).resize((size, size), Image.Resampling.BOX)
        faces[row] = np.asarray(picture).transpose(2, 0, 1)
        # Pixel 0 has its middle at 0: scaled are distances from the picture's corner at -1/2.
        landmarks[row] = (points + 0.5) * (size / ALIGNED_SIZE) - 0.5
    faces.flush()
    np.save(folder / "landmarks.npy", landmarks)
