"""What changes from picture to picture: pose, expression, light, background, clothes, camera."""

from dataclasses import dataclass

import numpy as np


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
class Background:
    """Blurred colour blobs over a gradient, sRGB in 0 to 1, drawn from a seed."""

    top: tuple[float, float, float]
    bottom: tuple[float, float, float]
    blobs: int
    seed: int


@dataclass(frozen=True)
class Clothes:
    """Colour (sRGB in 0 to 1) and cut of what covers the shoulders, depths in metres."""

    colour: tuple[float, float, float]
    front_y: float
    back_y: float
    half_width: float
    collar: float


@dataclass(frozen=True)
class Camera:
    """Distance (metres), share of the height that the head fills, shift of its middle; sensor."""

    distance: float
    head_share: float
    shift_x: float
    shift_y: float
    blur: float
    noise: float
    contrast: float


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
            blur=float(rng.uniform(0.2, 0.6)),
            noise=float(rng.uniform(0.3, 2.0)),
            contrast=float(rng.uniform(0.94, 1.08)),
        ),
        seed=int(rng.integers(2**31)),
    )


def draw_expression(rng: np.random.Generator) -> dict[str, float]:
    """Draw a neutral face, a slight smile, an open mouth or moved brows."""
    actions: dict[str, float] = {}
    kind = rng.choice(("neutral", "smile", "open", "brows"), p=(0.40, 0.35, 0.15, 0.10))
    if kind == "smile":
        smile = rng.uniform(0.12, 0.55)
        actions.update(mouthSmileLeft=smile, mouthSmileRight=smile * rng.uniform(0.85, 1.15))
        actions.update(cheekSquintLeft=smile * 0.5, cheekSquintRight=smile * 0.5)
        if smile > 0.4:
            actions["jawOpen"] = rng.uniform(0, 0.08)
    elif kind == "open":
        actions["jawOpen"] = rng.uniform(0.05, 0.22)
        actions["mouthFunnel"] = rng.uniform(0, 0.2)
    elif kind == "brows":
        if rng.random() < 0.5:
            actions["browInnerUp"] = rng.uniform(0.1, 0.5)
        else:
            down = rng.uniform(0.1, 0.4)
            actions.update(browDownLeft=down, browDownRight=down)
    blink = rng.uniform(0, 0.08)
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
    ambient = rng.uniform(0.30, 0.55)
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


def draw_background(rng: np.random.Generator) -> Background:
    """Draw a dull gradient, sometimes with blurred blobs."""
    base = rng.uniform(0.12, 0.85)
    tint = rng.normal(0, 0.06, 3)
    top = np.clip(base + tint, 0.02, 0.98)
    bottom = np.clip(base * rng.uniform(0.6, 1.2) + tint + rng.normal(0, 0.04, 3), 0.02, 0.98)
    blobs = int(rng.choice((0, 5, 9, 14), p=(0.35, 0.3, 0.2, 0.15)))
    return Background(_triple(top), _triple(bottom), blobs, int(rng.integers(2**31)))


def draw_clothes(rng: np.random.Generator) -> Clothes:
    """Draw a crew neck, a shirt or a V neck in any colour, dull ones more often."""
    value, dull = rng.uniform(0.06, 0.92), rng.uniform(0.0, 0.75) ** 1.5
    hue = rng.random(3)
    colour = np.clip(value * (1 - dull + dull * (hue / hue.max())), 0.02, 0.95)
    front, half_width = {
        "crew": (rng.uniform(0.695, 0.715), 0.085),
        "high": (rng.uniform(0.735, 0.75), 0.08),
        "v": (rng.uniform(0.635, 0.675), 0.075),
    }[str(rng.choice(("crew", "high", "v"), p=(0.5, 0.25, 0.25)))]
    back = float(rng.uniform(0.742, 0.752))
    hem = float(rng.uniform(0.006, 0.018))
    return Clothes(_triple(colour), float(front), back, half_width, hem)


def _direction(azimuth: float, height: float) -> np.ndarray:
    c = np.cos(height)
    return np.array([np.sin(azimuth) * c, np.sin(height), np.cos(azimuth) * c])


def _triple(values) -> tuple[float, float, float]:
    return tuple(float(v) for v in values)
