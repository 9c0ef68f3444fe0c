"""The columns of a speech-face pair, and how speech and faces are stored in them."""

import hashlib
import io
from collections.abc import Sequence

import numpy as np

from dataset_scripts.records import SAMPLING_RATE, SourceVideo

JPEG_QUALITY = 95
TILE, CAPTION = 224, 16  # pixels of a contact sheet's picture, and of the line below it


def pair_features(face_embedding_size: int):
    """The columns of a pair, which `datasets` reads back from the file itself.

    Args:
        face_embedding_size: D, of the teacher.

    Returns:
        `datasets.Features`; speech stays bytes, so that writing and reading need no torchcodec.
    """
    from datasets import Audio, Features, Image, List, Value

    from dataset_scripts.synthetic_cast.traits import SHAPE_COMPONENTS, Traits, VoiceParameters

    kinds = {
        str: Value("string"),
        float: Value("float32"),
        int: Value("int64"),
        tuple[float, float, float]: List(Value("float32"), length=3),
        tuple[float, ...]: List(Value("float32"), length=SHAPE_COMPONENTS),
    }

    def struct(kind: type) -> dict:
        return {name: kinds[field.type] for name, field in kind.__dataclass_fields__.items()}

    text, number = Value("string"), Value("float32")
    return Features(
        {
            "pair_id": text,
            "audio": Audio(sampling_rate=SAMPLING_RATE, decode=False),
            "face": Image(),
            "face_embedding": List(number, length=face_embedding_size),
            "speaker_id": text,
            "speaker_source": text,
            "video_id": text,
            "start_s": Value("float64"),
            "end_s": Value("float64"),
            "face_time_s": Value("float64"),  # where in the video the face was taken
            "face_position": List(number, length=2),  # its middle, shares of width and height
            "sync_score": number,  # none for stills: nothing moves
            "frontality": number,
            "sharpness": number,
            "speech_ratio": number,
            "face_size_px": number,
            "gender": text,
            "age": number,
            "language": text,
            "landmarks": List(List(number, length=2)),
            "normalized_face": Image(),  # the cast's: frontal, neutral, evenly lit
            "normalized_landmarks": List(List(number, length=2)),
            "traits": struct(Traits),
            "voice_parameters": struct(VoiceParameters),
            "voice_id": text,
            "source": text,
            "licence": text,
        }
    )


def new_pair(
    video: SourceVideo, start_s: float, end_s: float, speech: bytes, face: bytes, number: int = 0
) -> dict:
    """A pair, as far as it follows from where it comes from.

    Args:
        video: as its source lists it.
        start_s, end_s: of the speech in the file, seconds.
        speech: FLAC.
        face: JPEG.
        number: of several pairs of the same speech.

    Returns:
        Columns of the data contract, with the stable `pair_id`; what is measured is to be added.
    """
    start_s, end_s = round(start_s, 3), round(end_s, 3)
    name = f"{video.video_id} {start_s} {end_s}" + (f" {number}" if number else "")
    pair_id = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]
    return {
        "pair_id": pair_id,
        "audio": {"bytes": speech, "path": f"{pair_id}.flac"},
        "face": {"bytes": face, "path": f"{pair_id}.jpg"},
        "video_id": video.video_id,
        "start_s": start_s,
        "end_s": end_s,
        "gender": video.gender,
        "age": video.age,
        "language": video.language,
        "landmarks": None,
        "normalized_face": None,
        "normalized_landmarks": None,
        "traits": video.traits,
        "voice_parameters": video.voice_parameters,
        "voice_id": video.voice_id,
        "source": video.source,
        "licence": video.licence,
    }


def flac_bytes(clip: np.ndarray) -> bytes:
    """Speech as the column `audio` stores it.

    Args:
        clip: (samples,) mono at 16 kHz, -1 to 1.

    Returns:
        A FLAC file of 16 bits.
    """
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, clip, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def jpeg_bytes(face: np.ndarray) -> bytes:
    """A face as the column `face` stores it.

    Args:
        face: (height, width, 3) uint8 RGB.

    Returns:
        A JPEG file whose colours are not subsampled.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(face).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def open_picture(picture: bytes):
    """The RGB picture (`PIL.Image.Image`) of a file's bytes."""
    from PIL import Image

    return Image.open(io.BytesIO(picture)).convert("RGB")


def sharpness(face: np.ndarray) -> float:
    """The variance of the Laplacian of the grey picture, 0 (blurred) to some thousands.

    Args:
        face: (height, width, 3) RGB.
    """
    from scipy.ndimage import laplace

    return float(laplace(face.mean(axis=2)).var())


def contact_sheet(tiles: Sequence[tuple[bytes, str] | None], columns: int):
    """Faces in rows, each with a line of words below.

    Args:
        tiles: JPEG bytes of a 224x224 face, and its words; None leaves the place empty.
        columns: faces a row.

    Returns:
        A `PIL.Image.Image`, white where there is no face.
    """
    from PIL import Image, ImageDraw

    lines = max(1, -(-len(tiles) // columns))
    sheet = Image.new("RGB", (columns * TILE, lines * (TILE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, tile in enumerate(tiles):
        if tile is None:
            continue
        picture, words = tile
        x, y = k % columns * TILE, k // columns * (TILE + CAPTION)
        sheet.paste(open_picture(picture), (x, y))
        draw.text((x + 4, y + TILE + 2), words, fill="black")
    return sheet
