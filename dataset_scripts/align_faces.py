"""Faces of photographs, aligned as the teacher and the data sets have them.

`python -m dataset_scripts.align_faces PICTURE... --output FOLDER` cuts the largest face out of each
photograph, for `pipe(face_image="FOLDER/PICTURE.png")`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataset_scripts.faces import align_face, detect_faces

DETECTED_SIDE = 1024  # pixels, the longer side of the picture in which a face is looked for


def align_photograph(path: str | Path) -> np.ndarray:
    """Cuts the largest face out of a photograph.

    Args:
        path: of a picture in any format that Pillow reads; turned upright as its camera says.

    Returns:
        (224, 224, 3) uint8 RGB, as `faces.align_face` cuts it.

    Raises:
        ValueError: if the file cannot be read, or no face is found.
    """
    from PIL import Image

    photograph = _read(path)
    smaller = photograph.copy()
    smaller.thumbnail((DETECTED_SIDE, DETECTED_SIDE), Image.Resampling.BOX)
    for upsample in (0, 1):  # doubled only if need be: that takes four times as long
        faces = detect_faces(np.asarray(smaller), upsample)
        if faces:
            scale = np.divide(photograph.size, smaller.size)  # (2,)
            landmarks = (faces[0].landmarks + 0.5) * scale - 0.5
            return align_face(np.asarray(photograph), landmarks)
    raise ValueError("no face is found: take a picture in which it is larger, and seen from ahead")


def _read(path: str | Path):
    """The photograph (`PIL.Image.Image`, RGB), upright."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError("this is not a picture: save it as JPEG or PNG") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PNG's are SyntaxErrors
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ValueError(f"cannot be read ({reason})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Aligns the faces; returns 0, or 1 if there is none of one or more pictures."""
    options = _parser().parse_args(arguments)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _refuse(f"{options.output} cannot be made ({error.strerror}): name another folder")
    failures, written = 0, {}
    for path in options.pictures:
        try:
            target = options.output / f"{path.stem}.png"
            _refuse_to_overwrite(target, path, options.pictures, written)
            written[target.name.casefold()] = path
            _save(align_photograph(path), target)
        except ValueError as error:
            failures += _refuse(f"{path}: {error}")
        except ModuleNotFoundError as error:
            return _refuse(f"{error}: install the extra `data`, see dataset_scripts/README.md")
        except (ImportError, OSError) as error:
            return _refuse(str(error))
    return 1 if failures else 0


def _refuse_to_overwrite(
    target: Path, path: Path, pictures: Sequence[Path], written: dict[str, Path]
) -> None:
    """Neither another's face nor a photograph; not every file system tells a from A."""
    if target.name.casefold() in written:
        other = written[target.name.casefold()]
        raise ValueError(f"its face would replace that of {other}: rename one of them")
    if target.exists() and any(p.exists() and target.samefile(p) for p in pictures):
        raise ValueError(f"its face would replace the photograph {target}: name another --output")


def _save(face: np.ndarray, target: Path) -> None:
    from PIL import Image

    Image.fromarray(face).save(target)


def _refuse(sentence: str) -> int:
    print(f"align_faces: {sentence}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.align_faces",
        description="Cuts the largest face out of each photograph, upright and scaled as the face "
        "recogniser wants it: FOLDER/PICTURE.png, 224x224.",
    )
    parser.add_argument(
        "pictures", nargs="+", type=Path, metavar="PICTURE", help="photograph of a face"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="where the faces go"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
