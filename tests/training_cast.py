"""A data set of a few speakers, made of tones and coloured squares, in the form of DESIGN's §3."""

import io
from pathlib import Path

import numpy as np

CARD = """---
speech2face:
  face_recogniser: {teacher}
---
Tones and squares, for tests.
"""


def write_cast(
    folder: Path,
    speakers: int = 8,
    pairs: int = 2,
    teacher: str = "dlib",
    row_group_size: int | None = None,
) -> Path:
    """Writes a data set whose men hum low, women high, and whose embeddings follow their gender.

    Args:
        folder: where to.
        speakers: in each split.
        pairs: of each speaker.
        teacher: named in the card.
        row_group_size: pairs in a row group of Parquet; None for pyarrow's own choice.

    Returns:
        The folder.
    """
    import datasets
    import soundfile
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(CARD.format(teacher=teacher))
    for split in ("train", "validation", "test"):
        rows = []
        for speaker in range(speakers):
            gender = ("female", "male")[speaker % 2]
            pitch_hz = {"female": 210, "male": 120}[gender] + 3 * speaker
            identity = 0.04 * rng.standard_normal(128) + (0.05 if gender == "male" else -0.05)
            colour = rng.integers(40, 215, 3)
            for pair in range(pairs):
                time = np.arange(16000 + 4000 * pair) / 16000
                tone = sum(np.sin(2 * np.pi * pitch_hz * k * time) / k for k in range(1, 20))
                tone = 0.1 * tone + 0.003 * rng.standard_normal(len(time))
                audio, face = io.BytesIO(), io.BytesIO()
                soundfile.write(audio, tone.astype(np.float32), 16000, format="FLAC")
                picture = np.full((224, 224, 3), colour, np.uint8)
                picture[80:120, 60:160] = 255 - colour
                Image.fromarray(picture).save(face, "PNG")
                embedding = 0.1 + identity + 0.01 * rng.standard_normal(128)
                rows.append(
                    {
                        "pair_id": f"{split}-{speaker}-{pair}",
                        "audio": {"bytes": audio.getvalue(), "path": None},
                        "face": {"bytes": face.getvalue(), "path": None},
                        "face_embedding": embedding.astype(np.float32).tolist(),
                        "speaker_id": f"{split}-{speaker}",
                        "gender": gender,
                        "age": 30.0 + speaker,
                        "voice_id": f"tone/{split}-{speaker}",
                        "traits": {"hair_cut": "short", "beard": "none"},
                        "voice_parameters": {"pitch_hz": pitch_hz},
                    }
                )
        table = datasets.Dataset.from_list(rows)
        table.to_parquet(
            str(folder / f"{split}-00000-of-00001.parquet"),
            **({} if row_group_size is None else {"batch_size": row_group_size}),
        )
    return folder
