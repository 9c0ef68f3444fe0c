"""Does this face speak this sound? Mouth motion against speech, with a search over the offset."""

import functools

import numpy as np

MOUTH_HEIGHT, MOUTH_WIDTH = 48, 64  # pixels, of a crop of mouth and chin

# Where dlib's five landmarks lie in its aligned chip of 224 pixels (padding 0.25), as x + iy: means
# over frontal pictures of the cast. The nose weighs more: it is nearest to the mouth, and moves
# with it when the head nods.
_CHIP_LANDMARKS = np.array([165.7 + 68.8j, 133.2 + 71.2j, 54.3 + 68.8j, 86.8 + 71.2j, 110 + 130j])
_LANDMARK_WEIGHTS = np.array([1.0, 1.0, 1.0, 1.0, 2.0]) / 6
_CROP_CORNER = 54 + 122j  # upper left corner of the crop in that chip: the nose's base to the chin
_CROP_SCALE = 1.75  # chip pixels a crop pixel


def crop_mouth(grey: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cuts out mouth and chin, turned and scaled by the eyes and the nose.

    Args:
        grey: (height, width) uint8, a picture.
        landmarks: (5, 2) pixels, x and y, as `faces.detect_faces` gives them.

    Returns:
        (48, 64) uint8; what lies beyond the picture repeats its edge.

    Raises:
        ValueError: for an array that is no grey picture, or landmarks that are no face.
    """
    import cv2

    if not isinstance(grey, np.ndarray) or grey.ndim != 2 or grey.dtype != np.uint8:
        raise ValueError("expected a grey picture as an array (height, width) of uint8")
    turn, origin = _chip_to_picture(landmarks)
    step = turn * _CROP_SCALE  # picture pixels a crop pixel, as a complex number
    # A large face is drawn several times larger than the crop and averaged down: no aliasing.
    finer = min(max(1, round(abs(step))), 8)
    corner = origin + turn * _CROP_CORNER + step * (0.5 + 0.5j) * (1 / finer - 1)
    step = step / finer
    matrix = np.array([[step.real, -step.imag, corner.real], [step.imag, step.real, corner.imag]])
    size = (MOUTH_WIDTH * finer, MOUTH_HEIGHT * finer)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mouth = cv2.warpAffine(grey, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if finer == 1:
        return mouth
    return cv2.resize(mouth, (MOUTH_WIDTH, MOUTH_HEIGHT), interpolation=cv2.INTER_AREA)


@functools.cache
def _centred_landmarks() -> tuple[complex, np.ndarray, float]:
    """Mean of the chip's landmarks, the landmarks about it, and their weighted size squared."""
    mean = complex(_LANDMARK_WEIGHTS @ _CHIP_LANDMARKS)
    centred = _CHIP_LANDMARKS - mean
    return mean, centred, float(_LANDMARK_WEIGHTS @ np.abs(centred) ** 2)


def _chip_to_picture(landmarks: np.ndarray) -> tuple[complex, complex]:
    """The similarity, picture = turn * chip + origin, nearest to the landmarks (least squares)."""
    points = np.asarray(landmarks, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ValueError(f"expected 5 finite landmarks (5, 2), got shape {points.shape}")
    points = points[:, 0] + 1j * points[:, 1]
    mean, centred, power = _centred_landmarks()
    turn = complex((_LANDMARK_WEIGHTS * np.conj(centred)) @ points) / power
    if abs(turn) < 1e-3:
        raise ValueError("the landmarks lie in one point: they are no face's")
    return turn, complex(_LANDMARK_WEIGHTS @ points) - turn * mean
