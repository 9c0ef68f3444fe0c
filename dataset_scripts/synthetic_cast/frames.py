"""What changes from picture to picture: pose, expression, light, background, clothes, camera."""

from dataclasses import dataclass

import numpy as np

from .backgrounds import Background, draw_background

OUTFITS = ("plain", "stripes", "checks", "jacket")


@dataclass(frozen=True)
class Light:
    """Key and fill light (direction towards the light, linear RGB) and the hemisphere."""

    key_direction: tuple[float, float, float]
    key_colour: tuple[float, float, float]
    fill_direction: tuple[float, float, float]
    fill_colour: tuple[float, float, float]
    sky: tuple[float, float, float]
    ground: tuple[float, float, float]


@dataclass(frozen=True)
class Clothes:
    """Colour (sRGB in 0 to 1) and cut of what covers the shoulders, depths in metres.

    Attributes:
        colour: of the cloth.
        front_y, back_y, half_width, collar: of the neckline and its hem.
        outfit: one of OUTFITS; a jacket is worn open over a shirt.
        second: the colour of stripes, checks, or the shirt under a jacket.
        tie: whether one is worn with the jacket.
    """

    colour: tuple[float, float, float]
    front_y: float
    back_y: float
    half_width: float
    collar: float
    outfit: str = "plain"
    second: tuple[float, float, float] = (0.9, 0.9, 0.9)
    tie: bool = False


@dataclass(frozen=True)
class Camera:
    """Where it stands, and what its lens, its sensor and its file do to the picture.

    Attributes:
        distance: metres.
        head_share: share of the height that the head fills.
        shift_x, shift_y: of the head's middle, shares of the picture.
        blur: standard deviation, pixels.
        noise: of the sensor, grey levels.
        contrast: about the middle grey.
        warmth: of the white balance; 0 is right, 0.1 is 10 % more red and less blue.
        saturation: 1 is right.
        quality: of the JPEG that the picture once was, 1 to 95, or None.
    """

    distance: float
    head_share: float
    shift_x: float
    shift_y: float
    blur: float
    noise: float
    contrast: float
    warmth: float = 0.0
    saturation: float = 1.0
    quality: int | None = None


@dataclass(frozen=True)
class Frame:
    """One picture of a person, apart from who it is.

    Attributes:
        yaw, pitch, roll: degrees; positive: to the model's left, down, clockwise for the viewer.
        expression: facial action (anny's ARKit names) -> 0 to 1.
        seed: for the sensor's noise.
    """

    yaw: float
    pitch: float
    roll: float
    expression: dict[str, float]
    light: Light
    background: Background
    clothes: Clothes
    camera: Camera
    seed: int


def draw_frame(rng: np.random.Generator) -> Frame:
    """Draw a near-frontal portrait: pose, expression, light, background, clothes, camera."""
    return Frame(
        yaw=float(np.clip(rng.normal(0, 6.5), -15, 15)),
        pitch=float(np.clip(rng.normal(0, 3.5), -8, 8)),
        roll=float(np.clip(rng.normal(0, 2.2), -5, 5)),
        expression=draw_expression(rng),
        light=draw_light(rng),
        background=draw_background(rng),
        clothes=draw_clothes(rng),
        camera=Camera(
            distance=float(rng.uniform(0.75, 1.8)),
            head_share=float(rng.uniform(0.54, 0.60)),
            shift_x=float(rng.normal(0, 0.012)),
            shift_y=float(rng.normal(0, 0.010)),
            blur=float(np.exp(rng.uniform(np.log(0.2), np.log(0.55)))),
            noise=float(rng.uniform(0.3, 1.7)),
            contrast=float(rng.uniform(0.94, 1.12)),
            warmth=float(rng.normal(0, 0.02)),
            saturation=float(np.clip(rng.normal(0.97, 0.09), 0.7, 1.2)),
            quality=int(rng.integers(70, 96)),
        ),
        seed=int(rng.integers(2**31)),
    )


def draw_expression(rng: np.random.Generator) -> dict[str, float]:
    """Draw a neutral face, a smile, a mouth that speaks, or moved brows."""
    actions: dict[str, float] = {}
    kind = rng.choice(("neutral", "smile", "speaks", "brows"), p=(0.28, 0.34, 0.28, 0.10))
    if kind == "smile":
        smile = rng.uniform(0.12, 0.7)
        actions.update(mouthSmileLeft=smile, mouthSmileRight=smile * rng.uniform(0.85, 1.15))
        actions.update(cheekSquintLeft=smile * 0.6, cheekSquintRight=smile * 0.6)
        if smile > 0.4 and rng.random() < 0.6:  # teeth
            actions["jawOpen"] = rng.uniform(0.02, 0.12)
            actions.update(mouthUpperUpLeft=smile * 0.5, mouthUpperUpRight=smile * 0.5)
    elif kind == "speaks":
        actions["jawOpen"] = rng.uniform(0.04, 0.24)
        shape = rng.choice(("round", "wide", "plain"))
        if shape == "round":
            actions["mouthFunnel"] = rng.uniform(0.1, 0.4)
        elif shape == "wide":
            wide, lift = rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.4)
            actions.update(mouthStretchLeft=wide, mouthStretchRight=wide)
            actions.update(mouthUpperUpLeft=lift, mouthUpperUpRight=lift)
            actions.update(mouthLowerDownLeft=lift, mouthLowerDownRight=lift)
    elif kind == "brows":
        if rng.random() < 0.5:
            actions["browInnerUp"] = rng.uniform(0.1, 0.5)
        else:
            down = rng.uniform(0.1, 0.4)
            actions.update(browDownLeft=down, browDownRight=down)
    blink = rng.uniform(0.0, 0.14)  # few people open their eyes wide
    actions.update(eyeBlinkLeft=blink, eyeBlinkRight=blink)
    look = rng.normal(0, 0.10)
    side = (
        ("eyeLookOutLeft", "eyeLookInRight") if look > 0 else ("eyeLookInLeft", "eyeLookOutRight")
    )
    actions.update({name: abs(look) for name in side})
    return {name: float(np.clip(value, 0, 1)) for name, value in actions.items()}


def draw_light(rng: np.random.Generator) -> Light:
    """Draw a key light from the upper front, a weaker fill from the other side, and a sky."""
    side = rng.choice((-1.0, 1.0))
    azimuth = side * np.radians(rng.uniform(5, 62))
    height = np.radians(rng.uniform(12, 55))
    key = _direction(azimuth, height)
    fill = _direction(-side * np.radians(rng.uniform(25, 80)), np.radians(rng.uniform(-5, 30)))
    warmth = rng.normal(0, 0.6)
    key_tint = np.array([1 + 0.09 * warmth, 1.0, 1 - 0.12 * warmth])
    sky_tint = np.array([1 - 0.04 * warmth, 1.0, 1 + 0.06 * warmth])
    key_power = rng.uniform(0.45, 1.05)
    ambient = rng.uniform(0.20, 0.55)
    fill_power = rng.uniform(0.05, 0.35)
    ground_tint = np.array([1.0, 0.94, 0.88])
    scale = rng.uniform(0.92, 1.12) / (0.55 * key_power + ambient + 0.25 * fill_power) * 0.88
    return Light(
        _triple(key),
        _triple(key_power * key_tint * scale),
        _triple(fill),
        _triple(fill_power * scale * np.ones(3)),
        _triple(ambient * sky_tint * scale),
        _triple(ambient * 0.62 * ground_tint * scale),
    )


def draw_clothes(rng: np.random.Generator) -> Clothes:
    """Draw a crew neck, a shirt, a V neck or a jacket in any colour, dull ones more often."""
    outfit = str(rng.choice(OUTFITS, p=(0.54, 0.08, 0.10, 0.28)))
    front, half_width = {
        "crew": (rng.uniform(0.705, 0.728), 0.085),
        "high": (rng.uniform(0.742, 0.758), 0.08),
        "v": (rng.uniform(0.645, 0.685), 0.075),
    }[str(rng.choice(("crew", "high", "v"), p=(0.45, 0.3, 0.25)))]
    back = float(rng.uniform(0.748, 0.758))
    hem = float(rng.uniform(0.006, 0.018))
    colour, second, tie = _cloth_colour(rng), _cloth_colour(rng), False
    if outfit == "jacket":
        colour = tuple(0.45 * value for value in colour)
        front, half_width, hem = rng.uniform(0.735, 0.752), 0.08, 0.022
        light = rng.uniform(0.7, 0.95)
        second = _triple(light - rng.uniform(0, 0.12, 3))
        tie = bool(rng.random() < 0.4)
    return Clothes(colour, float(front), back, half_width, hem, outfit, second, tie)


def _cloth_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    value, dull = rng.uniform(0.06, 0.92), rng.uniform(0.0, 0.75) ** 1.5
    hue = rng.random(3)
    return _triple(np.clip(value * (1 - dull + dull * (hue / hue.max())), 0.02, 0.95))


def _direction(azimuth: float, height: float) -> np.ndarray:
    c = np.cos(height)
    return np.array([np.sin(azimuth) * c, np.sin(height), np.cos(azimuth) * c])


def _triple(values) -> tuple[float, float, float]:
    return tuple(float(v) for v in values)
