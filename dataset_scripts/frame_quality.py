"""How good a picture of a face is: from the front, sharp, well lit, large."""

from dataclasses import dataclass

import numpy as np

# Of a frontal face, in dlib's five landmarks: how far the base of the nose lies below the outer
# corners of the eyes, in distances of these corners; and how far it would lie from the plane of
# the eyes, if that could be seen. Means over frontal and turned pictures of the cast.
_NOSE_BELOW_EYES = 0.55
_NOSE_BEFORE_EYES = 0.33
_GOOD_SIZE_PX = 150.0  # a larger face has no more detail than the aligned one keeps
_DARK, _BRIGHT = 12, 243  # grey values beyond which nothing is seen


@dataclass(frozen=True)
class Exposure:
    """How a face is lit; the tone of the skin does not enter.

    Attributes:
        contrast: between the darkest and the brightest twentieth of the face, 0 to 1.
        lost: share of the face that is black or white, 0 to 1.
    """

    contrast: float
    lost: float


def frontality(landmarks: np.ndarray) -> float:
    """How far a face looks into the camera: about cos(yaw) cos(pitch), from its five landmarks.

    Args:
        landmarks: (5, 2) pixels: outer and inner corner of one eye, of the other, base of the nose.

    Returns:
        0 (in profile, or no face at all) to 1 (frontal); however the head is tilted in the plane.
    """
    x, y = nose_place(landmarks)
    sin_yaw = x / _NOSE_BEFORE_EYES
    sin_pitch = (y - _NOSE_BELOW_EYES) / _NOSE_BEFORE_EYES
    squares = max(0.0, 1 - sin_yaw**2) * max(0.0, 1 - sin_pitch**2)
    return float(np.sqrt(squares))


def nose_place(landmarks: np.ndarray) -> tuple[float, float]:
    """Where the base of the nose lies, seen along the eyes.

    Args:
        landmarks: (5, 2) pixels.

    Returns:
        Aside of the middle between the eyes and below it, in distances of their outer corners.
    """
    points = landmarks[:, 0] + 1j * landmarks[:, 1]
    across = points[0] - points[2]
    if abs(across) < 1:
        return 1.0, 1.0
    place = (points[4] - points[:4].mean()) / across
    return float(place.real), float(place.imag)


def grey_sharpness(grey: np.ndarray, box: tuple[float, float, float, float]) -> float:
    """The variance of the Laplacian within a box, by which pictures of one face are compared.

    Args:
        grey: (height, width) uint8.
        box: (left, top, right, bottom), pixels.

    Returns:
        0 (blurred) to some thousands; 0 if the box lies outside of the picture.
    """
    import cv2

    left, top, right, bottom = (max(0, round(side)) for side in box)
    part = grey[top:bottom, left:right]
    return float(cv2.Laplacian(part, cv2.CV_16S).var()) if min(part.shape) > 2 else 0.0


def exposure(face: np.ndarray) -> Exposure:
    """How an aligned face is lit.

    Args:
        face: (size, size, 3) uint8 RGB, aligned.
    """
    size = len(face)
    middle = face[size // 4 : -size // 8, size // 4 : -size // 4].mean(axis=2)
    dark, bright = np.percentile(middle, (5, 95))
    lost = np.mean((middle < _DARK) | (middle > _BRIGHT))
    return Exposure(float(bright - dark) / 255, float(lost))


def quality(landmarks: np.ndarray, sharpness: float, size_px: float, score: float) -> float:
    """One number by which the pictures of a face are ranked.

    Args:
        landmarks: (5, 2) pixels.
        sharpness: as `grey_sharpness` gives it.
        size_px: width of the face, pixels.
        score: the detector's.

    Returns:
        0 (useless) to 1.
    """
    sharp = sharpness / (sharpness + 100.0)
    large = min(1.0, size_px / _GOOD_SIZE_PX)
    sure = float(np.clip(score / 2, 0.05, 1.0))  # frontal, unhidden faces score 1 to 3
    return float(frontality(landmarks) ** 2 * sharp * large * np.sqrt(sure))
