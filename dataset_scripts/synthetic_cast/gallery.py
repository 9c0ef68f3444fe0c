"""A gallery of the cast's faces for retrieval: one picture of pictures, and their embeddings.

`python -m dataset_scripts.synthetic_cast.gallery DATA_SET space/gallery` takes one frontal picture
of each member of the validation and the test split, whom no voice encoder was trained on.
"""

import argparse
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SPLITS = ("validation", "test")
SIDE = 112  # pixels of a face in the gallery: half of the data set's
JPEG_QUALITY = 85
COLUMNS = ("speaker_id", "frontality", "face", "face_embedding")


def write_gallery(dataset: Path, folder: Path) -> int:
    """Writes `faces.jpg`, a grid of faces row by row, and `gallery.safetensors`, their embeddings.

    Args:
        dataset: the synthetic cast, as `dataset_scripts.synthetic_cast` writes it.
        folder: where to; made if need be.

    Returns:
        How many members the gallery has.

    Raises:
        ValueError: not a data set of the cast; a gallery shows nobody who exists.
    """
    from safetensors.numpy import save_file

    facts = _facts(dataset)
    members = [member for split in SPLITS for member in _members(dataset, split)]
    if not members:
        raise ValueError(f"{dataset} has no {' or '.join(SPLITS)} split: name the whole data set.")
    columns = math.ceil(math.sqrt(len(members)))
    folder.mkdir(parents=True, exist_ok=True)
    _grid([member["face"] for member in members], columns).save(
        folder / "faces.jpg", quality=JPEG_QUALITY, optimize=True
    )
    embeddings = np.array([member["face_embedding"] for member in members], np.float32)
    # One entry: safetensors writes several in no order, and the file shall be the same again.
    metadata = {"gallery": json.dumps(facts | {"columns": columns, "side": SIDE})}
    save_file({"face_embeddings": embeddings}, folder / "gallery.safetensors", metadata)
    return len(members)


def _facts(dataset: Path) -> dict:
    """Whose embeddings these are, and of which data set; refuses any but the synthetic cast."""
    import yaml

    card = dataset / "README.md"
    parts = card.read_text().split("---", 2) if card.is_file() else []
    facts = (yaml.safe_load(parts[1]) or {}).get("speech2face", {}) if len(parts) == 3 else {}
    if facts.get("builder") != "dataset_scripts.synthetic_cast":
        raise ValueError(
            f"{dataset} is no synthetic cast: a gallery is made of invented people alone, see "
            "python -m dataset_scripts.synthetic_cast."
        )
    return {
        "face_recogniser": facts["face_recogniser"],
        "fingerprint": facts["fingerprint"],
        "speakers": facts["configuration"]["speakers"],
    }


def _members(dataset: Path, split: str) -> list[dict]:
    """The most frontal picture of each speaker of a split, in the order of their names."""
    import pyarrow.parquet as parquet

    best: dict[str, dict] = {}
    for path in sorted(dataset.glob(f"{split}-*.parquet")):
        for row in parquet.read_table(path, columns=list(COLUMNS)).to_pylist():
            so_far = best.setdefault(row["speaker_id"], row)
            if row["frontality"] > so_far["frontality"]:
                best[row["speaker_id"]] = row
    return [best[name] for name in sorted(best)]


def _grid(faces: list[dict], columns: int):
    """One picture (`PIL.Image.Image`) of all faces, row by row; the last row may end early."""
    from PIL import Image

    grid = Image.new("RGB", (columns * SIDE, math.ceil(len(faces) / columns) * SIDE), "white")
    for index, face in enumerate(faces):
        picture = Image.open(io.BytesIO(face["bytes"])).convert("RGB")
        picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        grid.paste(picture, (index % columns * SIDE, index // columns * SIDE))
    return grid


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the gallery; returns 0, or 1 with a sentence if there is nothing to make it of."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.synthetic_cast.gallery",
        description="Makes the gallery that the Space compares voices with.",
    )
    parser.add_argument("dataset", type=Path, help="folder of the synthetic cast")
    parser.add_argument("folder", type=Path, help="where the gallery goes, such as space/gallery")
    options = parser.parse_args(arguments)
    try:
        count = write_gallery(options.dataset, options.folder)
    except ValueError as error:
        print(f"gallery: {error}", file=sys.stderr)
        return 1
    print(f"{count} faces in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
