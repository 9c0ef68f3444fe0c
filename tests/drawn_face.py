"""A face of ellipses: dlib finds it and its eyes and nose, and no renderer is needed."""

import functools

import numpy as np

FINER = 4  # drawn so many times larger, then averaged down


def empty_scene(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8, a background of soft spots."""
    import cv2

    spots = np.random.default_rng(seed).integers(50, 140, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC)


def draw_face(
    scene: np.ndarray,
    centre: tuple[float, float] = (160, 120),
    size: float = 110,
    opening: float = 0.2,
    turn: float = 0.0,
    tone: float = 170,
    hair: float = 40,
) -> np.ndarray:
    """Draws a face into a picture.

    Args:
        scene: (H, W, 3) uint8, left as it is.
        centre: of the face, pixels.
        size: about the width that the detector draws around it, pixels.
        opening: of the mouth, 0 to 1.
        turn: of the head to the side, 1 is some 25 degrees.
        tone: of the skin, 0 to 255.
        hair: its tone.
    """
    import cv2

    height, width = scene.shape[:2]
    face, cover = _face(size, round(32 * opening) / 32, turn, tone, hair)
    shift = np.float32([[1, 0, centre[0] - len(face) / 2], [0, 1, centre[1] - len(face) / 2]])
    face, cover = (
        cv2.warpAffine(part, shift, (width, height))[..., None] for part in (face, cover)
    )
    drawn = scene * (1 - cover) + face * np.float32([1.05, 1.0, 0.9])
    return np.clip(drawn, 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=256)
def _face(size: float, opening: float, turn: float, tone: float, hair: float):
    """(side, side) float32: the face in grey, and how much of each pixel it covers."""
    import cv2

    side = round(1.8 * size)
    scale = FINER * size / 100
    layer = np.zeros((side * FINER, side * FINER), np.float32)
    cover = np.zeros_like(layer)

    def place(x: float, y: float) -> tuple[int, int]:
        return round(side * FINER / 2 + scale * x), round(side * FINER / 2 + scale * y)

    def ellipse(x: float, y: float, a: float, b: float, grey: float) -> None:
        axes = (max(1, round(a * scale)), max(1, round(b * scale)))
        for target, value in ((layer, grey), (cover, 1.0)):
            cv2.ellipse(target, place(x, y), axes, 0, 0, 360, value, -1)

    aside = 12 * turn
    ellipse(0, -8, 50, 66, hair)
    ellipse(0, 0, 42, 60, tone)
    ellipse(0, 52, 30, 14, 0.85 * tone)
    for side_of_face in (-1, 1):
        x = 19 * side_of_face + 0.8 * aside
        ellipse(x, -12, 12, 8, 0.75 * tone)
        ellipse(x, -12, 9, 4, 235)
        ellipse(x, -12, 4, 4, 30)
        brow = (round(13 * scale), round(5 * scale))
        cv2.ellipse(layer, place(x, -24), brow, 0, 180, 360, 30.0, max(1, round(3 * scale)))
    ellipse(1.6 * aside, 5, 5, 18, min(240, 1.1 * tone))
    for side_of_nose in (-1, 1):
        ellipse(6 * side_of_nose + 1.4 * aside, 20, 4, 2.5, 0.45 * tone)
    ellipse(1.2 * aside, 38 + 4 * opening, 17, 4 + 10 * opening, 0.6 * tone)
    ellipse(1.2 * aside, 38 + 4 * opening, 13, 1 + 8 * opening, 25)
    both = [cv2.GaussianBlur(part, (0, 0), 1.2 * scale) for part in (layer, cover)]
    return [cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in both]


def mouth_of(speech: np.ndarray, pictures: int) -> np.ndarray:
    """(pictures,) how far a mouth is open, 25 times a second, that speaks a sound at 16 kHz."""
    from scipy.ndimage import gaussian_filter1d

    padded = np.pad(speech, (0, max(0, pictures * 640 - len(speech))))[: pictures * 640]
    loudness = np.sqrt((padded.reshape(pictures, 640) ** 2).mean(1))
    opening = gaussian_filter1d(loudness, 0.8)
    return np.clip(opening / (np.percentile(opening, 95) + 1e-6), 0, 1)
