"""The faces of the invented cast, and which of them come nearest to what a voice predicts.

This is the paper's retrieval. The gallery is this folder's and nobody's choice: to look for a voice
among faces of real people is identification, which this page does not offer.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "gallery"
SIDE = 224  # pixels of a face as it is shown


@dataclass(frozen=True)
class Neighbour:
    """A face of the gallery, and how near it is.

    Args:
        face (`PIL.Image.Image`): 224x224.
        similarity (`float`): cosine between the two centred embeddings, -1 to 1.
    """

    face: Image.Image
    similarity: float


class Gallery:
    """Faces of invented people that can be searched by a face embedding.

    Args:
        mean (array `(D,)`): the teacher's mean face, by which embeddings are centred; that of the
            voice encoder whose predictions are looked up.
        face_recogniser (`str`): the voice encoder's teacher.
        folder (`Path`): where `dataset_scripts.synthetic_cast.gallery` wrote it.

    Raises:
        ValueError: the gallery was made with another teacher.
    """

    def __init__(self, mean: np.ndarray, face_recogniser: str, folder: Path = FOLDER):
        import faiss
        from safetensors import safe_open

        with safe_open(folder / "gallery.safetensors", "numpy") as file:
            facts = json.loads(file.metadata()["gallery"])
            embeddings = file.get_tensor("face_embeddings")  # (faces, D), as the teacher gives them
        if facts["face_recogniser"] != face_recogniser or embeddings.shape[1] != len(mean):
            raise ValueError(
                f"the gallery holds embeddings of {facts['face_recogniser']!r}, the voice encoder "
                f"predicts those of {face_recogniser!r}: make the gallery anew, see "
                "space/gallery/README.md."
            )
        self._columns, self._side = facts["columns"], facts["side"]
        self._faces = Image.open(folder / "faces.jpg").convert("RGB")
        directions = _unit(embeddings - np.asarray(mean, np.float32))
        self._index = faiss.IndexFlatIP(directions.shape[1])
        self._index.add(directions)
        between = directions @ directions.T
        self.alike = float(np.quantile(between[np.triu_indices(len(between), 1)], 0.95))

    def __len__(self) -> int:
        return self._index.ntotal

    def nearest(self, centred_embedding: np.ndarray, count: int) -> list[Neighbour]:
        """The faces whose embeddings point most nearly where a prediction points.

        Args:
            centred_embedding (array `(D,)`): of a voice.
            count (`int`): how many; no more than there are.

        Returns:
            `list[Neighbour]`, the nearest first.
        """
        query = _unit(np.asarray(centred_embedding, np.float32)[None])
        similarities, places = self._index.search(query, min(count, len(self)))
        return [
            Neighbour(self._face(place), float(similarity))
            for similarity, place in zip(similarities[0], places[0], strict=True)
        ]

    def _face(self, place: int) -> Image.Image:
        row, column = divmod(int(place), self._columns)
        corner = column * self._side, row * self._side
        box = (*corner, corner[0] + self._side, corner[1] + self._side)
        return self._faces.crop(box).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows (n, D) of length 1, as FAISS wants them."""
    rows = np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12))
    return rows.astype(np.float32)
