"""What stands behind a cast member: walls, shelves, windows, leaves, out of focus."""

from dataclasses import dataclass

import numpy as np

SIDE = 64  # pixels; enlarged without steps when drawn
KINDS = ("plain", "wall", "blobs", "shelves", "window", "leaves", "panels")
SHARES = (0.08, 0.20, 0.22, 0.14, 0.12, 0.12, 0.12)


@dataclass(frozen=True)
class Background:
    """A gradient (sRGB in 0 to 1) with one of KINDS before it, drawn from a seed.

    Attributes:
        top, bottom: colours.
        kind: one of KINDS.
        blur: how far out of focus, standard deviation in 64ths of the picture's side.
        seed: for what is drawn.
    """

    top: tuple[float, float, float]
    bottom: tuple[float, float, float]
    kind: str
    blur: float
    seed: int


def draw_background(rng: np.random.Generator) -> Background:
    """Draw a kind, colours that are dull more often than not, and a focus."""
    base = rng.uniform(0.08, 0.92)
    tint = rng.normal(0, 0.05, 3)
    top = np.clip(base + tint, 0.02, 0.98)
    bottom = np.clip(base * rng.uniform(0.6, 1.2) + tint + rng.normal(0, 0.03, 3), 0.02, 0.98)
    kind = str(rng.choice(KINDS, p=SHARES))
    blur = float(np.exp(rng.uniform(np.log(0.4), np.log(3.0))))
    return Background(
        tuple(map(float, top)), tuple(map(float, bottom)), kind, blur, int(rng.integers(2**31))
    )


def paint_background(background: Background) -> np.ndarray:
    """Return the backdrop (64, 64, 3) uint8, bottom row first."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(background.seed)
    ramp = np.linspace(0, 1, SIDE)[:, None, None]
    picture = np.array(background.top) * (1 - ramp) + np.array(background.bottom) * ramp
    picture = np.broadcast_to(picture, (SIDE, SIDE, 3)).copy()
    _PAINTERS[background.kind](picture, rng)
    picture = gaussian_filter(picture, (background.blur, background.blur, 0))
    return (np.clip(picture[::-1], 0, 1) * 255).astype(np.uint8)


def _wall(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Nothing, or a picture on the wall, or the corner of a room."""
    if rng.random() < 0.4:
        x, y = rng.uniform(0, 50), rng.uniform(0, 30)
        width, height = rng.uniform(8, 24, 2)
        frame = _near(picture, rng, 0.3)
        _fill(picture, x, y, width, height, frame)
        _fill(picture, x + 1, y + 1, width - 2, height - 2, _near(picture, rng, 0.25))
    if rng.random() < 0.4:
        corner = int(rng.uniform(4, 60))
        picture[:, corner:] *= rng.uniform(0.75, 0.95)


def _blobs(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Things so far out of focus that nobody can tell what they are."""
    yy, xx = np.mgrid[0:SIDE, 0:SIDE]
    for _ in range(rng.integers(4, 16)):
        x, y = rng.uniform(0, SIDE, 2)
        size = rng.uniform(4, 18, 2)
        weight = np.exp(-(((xx - x) / size[0]) ** 4) - ((yy - y) / size[1]) ** 4)[..., None]
        picture += 0.7 * weight * (_near(picture, rng, 0.14) - picture)


def _shelves(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Rows of books."""
    height = rng.uniform(10, 18)
    wood = np.array([0.36, 0.25, 0.17]) * rng.uniform(0.5, 1.7)
    y = rng.uniform(-height, 0)
    while y < SIDE:
        x = rng.uniform(-4, 0)
        while x < SIDE:
            width = rng.uniform(1.2, 4.0)
            if rng.random() < 0.88:
                tall = height * rng.uniform(0.62, 0.92)
                tone = rng.uniform(0.1, 0.85)
                spine = np.clip(tone + rng.normal(0, 0.13, 3), 0.03, 0.95)
                _fill(picture, x, y + height - tall, width, tall, spine)
                _fill(picture, x, y + height - 0.6 * tall, width, 1.5, spine * 0.7)
            x += width + 0.3
        _fill(picture, 0, y + height, SIDE, 1.6, wood)
        y += height + 1.6


def _window(picture: np.ndarray, rng: np.random.Generator) -> None:
    """A bright window with its bars, or blinds before it."""
    x, y = rng.uniform(-12, 40), rng.uniform(-12, 8)
    width, height = rng.uniform(22, 40), rng.uniform(30, 56)
    outside = np.array([0.85, 0.92, 1.0]) * rng.uniform(0.65, 1.0)
    _fill(picture, x - 2, y - 2, width + 4, height + 4, _near(picture, rng, 0.2))
    _fill(picture, x, y, width, height, outside)
    _fill(picture, x, y + 0.6 * height, width, 0.4 * height, outside * (0.6, 0.75, 0.55))
    bar = _near(picture, rng, 0.2)
    if rng.random() < 0.4:
        for line in np.arange(y, y + height, 3.0):
            _fill(picture, x, line, width, 1.3, outside * 0.75)
    else:
        _fill(picture, x + width / 2 - 0.7, y, 1.4, height, bar)
        _fill(picture, x, y + height / 2 - 0.7, width, 1.4, bar)


def _leaves(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Trees or a hedge, with the sky through their gaps."""
    from scipy.ndimage import gaussian_filter

    field = sum(
        gaussian_filter(rng.normal(size=(SIDE, SIDE)), sigma, mode="wrap") * sigma
        for sigma in (1.2, 3.0, 8.0)
    )
    field = (field - field.mean()) / field.std()
    green = np.array([0.26, 0.36, 0.16]) * rng.uniform(0.6, 1.5) + rng.normal(0, 0.03, 3)
    shade = np.clip(0.55 + 0.28 * field, 0.1, 1.4)[..., None]
    sky = np.clip((field - rng.uniform(0.8, 2.2)) / 0.4, 0, 1)[..., None]
    picture[:] = green * shade * (1 - sky) + np.array([0.80, 0.88, 0.97]) * sky


def _panels(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Boards, tiles or bricks, or a screen with bars of colour."""
    height, width = rng.uniform(5, 16), rng.uniform(8, 30)
    line = rng.uniform(0.6, 0.92)
    for row, y in enumerate(np.arange(-rng.uniform(0, height), SIDE, height)):
        shift = 0.5 * width * (row % 2) * (rng.random() < 0.9)
        for x in np.arange(-width + shift, SIDE, width):
            picture[_slice(x, y, width, height)] *= rng.uniform(0.9, 1.1)
            picture[_slice(x, y, width, 0.8)] *= line
            picture[_slice(x, y, 0.8, height)] *= line


_PAINTERS = {
    "plain": lambda picture, rng: None,
    "wall": _wall,
    "blobs": _blobs,
    "shelves": _shelves,
    "window": _window,
    "leaves": _leaves,
    "panels": _panels,
}


def _near(picture: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    """Return a colour (3,) not far from the picture's mean."""
    tone = rng.normal(0, spread) + rng.normal(0, spread / 2, 3)
    return np.clip(picture.mean((0, 1)) + tone, 0.02, 0.98)


def _fill(picture: np.ndarray, x: float, y: float, width: float, height: float, colour) -> None:
    picture[_slice(x, y, width, height)] = colour


def _slice(x: float, y: float, width: float, height: float):
    left, top = max(0, round(x)), max(0, round(y))
    return np.s_[top : max(top, round(y + height)), left : max(left, round(x + width))]
