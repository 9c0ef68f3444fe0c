"""Glasses, bent from the same ribbons as hair: rims, a bridge, and the arms to the ears."""

import numpy as np

from .hair import POINTS, Strands
from .traits import Traits

COLOURS = {  # sRGB
    "plastic": ((22, 20, 20), (62, 36, 22), (30, 34, 52), (92, 60, 36)),
    "metal": ((96, 92, 88), (140, 132, 120), (150, 118, 66), (40, 40, 42)),
}
WIDTHS = {"plastic": (0.0020, 0.0032), "metal": (0.0010, 0.0014)}  # metres
ARCS = 6  # strands a rim


def glasses(traits: Traits, landmarks: np.ndarray) -> Strands | None:
    """Return a person's glasses, or None for who wears none.

    Args:
        traits: who it is.
        landmarks: (68, 3) metres, on that person's head at rest.
    """
    if traits.glasses == "none":
        return None
    rng = np.random.default_rng([traits.seed, 23])
    half_width = rng.uniform(0.0225, 0.027)
    half_height = half_width * rng.uniform(0.62, 0.92)
    squareness = rng.uniform(2.0, 4.2)  # of a superellipse: 2 is round
    low, high = WIDTHS[traits.glasses]
    width = rng.uniform(low, high)
    colour = np.array(COLOURS[traits.glasses][rng.integers(4)]) / 255
    eyes = np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0)])  # the viewer's left first
    apart = np.abs(eyes[:, 0]).mean()
    apart = max(apart + 0.001, half_width + 0.009)
    height = eyes[:, 1].mean() - 0.0035
    front = max(landmarks[[19, 24], 2].max(), landmarks[28, 2] - 0.006) + 0.006
    front = max(front, eyes[:, 2].max() + 0.014)

    def at(x, y):
        """Points of the lenses' plane, which bends back towards the temples."""
        return np.stack([x, y, front - 3.2 * np.asarray(x) ** 2 + 0.10 * (y - height)], -1)

    lines = []
    for side in (-1, 1):
        turn = np.linspace(0, 2 * np.pi, ARCS * (POINTS - 1) + 1)
        c, s = np.cos(turn), np.sin(turn)
        x = side * apart + half_width * np.sign(c) * np.abs(c) ** (2 / squareness)
        y = height + half_height * np.sign(s) * np.abs(s) ** (2 / squareness)
        y = y - 0.12 * half_height * (s < 0) * np.abs(s) * np.abs(c)
        rim = at(x, y)
        lines += [rim[k * (POINTS - 1) : (k + 1) * (POINTS - 1) + 1] for k in range(ARCS)]
        hinge = at(np.array(side * (apart + half_width)), np.array(height + 0.35 * half_height))
        ear = landmarks[0 if side < 0 else 16] + np.array([side * 0.002, 0.008, -0.012])
        t = np.linspace(0, 1, POINTS)[:, None]
        lines.append(hinge + t * (ear - hinge) + np.array([side * 0.004, 0, 0]) * np.sin(np.pi * t))
    x = np.linspace(-1, 1, POINTS) * (apart - half_width)
    lines.append(
        at(x, height + 0.3 * half_height + 0.0025 * np.cos(np.linspace(-1.5, 1.5, POINTS)))
    )
    points = np.stack(lines).astype(np.float32)
    return Strands(
        points,
        np.full(points.shape[:2], width, np.float32),
        np.broadcast_to(colour, points.shape).astype(np.float32),
        np.full(len(points), -1, np.int32),
        np.zeros(len(points), bool),
    )
