"""How people in a film move: mouth, head, eyes, brows, at every frame."""

from dataclasses import dataclass

import numpy as np

from .articulation import (
    RATE,
    draw_style,
    measure_articulation,
    measure_loudness,
    move_idly,
    move_mouth,
)
from .film_script import FilmScript

IDLE_WITHIN_S = 0.3  # of speech, the mouth does nothing else
TURNING_S = 0.5  # that a head takes to turn aside
STYLE_STREAM, MOUTH_STREAM, HEAD_STREAM = 50, 51, 52  # of random numbers


@dataclass(frozen=True)
class Motion:
    """One person's movements in a film, each (frames,).

    Attributes:
        yaw, pitch, roll: degrees, added to the placement's.
        x, y: of the head's middle, shares of width and height, added to the placement's.
        actions: facial action -> 0 to 1.
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    x: np.ndarray
    y: np.ndarray
    actions: dict[str, np.ndarray]


def move_person(script: FilmScript, person: int, said: np.ndarray, times_s: np.ndarray) -> Motion:
    """Moves one of a film's people.

    Args:
        script: of the film.
        person: index into its people.
        said: (samples,) float32 at 16 kHz, what the mouth says; silent if it does not move.
        times_s: (frames,) seconds from the film's beginning.

    Returns:
        The person's movements.
    """
    rng = np.random.default_rng([*script.seed, HEAD_STREAM, person])
    count = len(said) // (16000 // RATE)
    grid_s = (np.arange(count) + 0.5) / RATE
    loudness = measure_loudness(said) if said.any() else np.zeros(count)
    effort = _smooth(loudness, 0.25)
    # Who speaks nods, and moves more.
    nods = 1.2 * _smooth(loudness, 0.12) + _drift(rng, count, 0.18, 1.3) * (0.3 + 1.5 * effort)
    tracks = {
        "yaw": _drift(rng, count, 0.7, rng.uniform(1, 4)) + effort * _drift(rng, count, 0.2, 0.6),
        "pitch": _drift(rng, count, 0.8, rng.uniform(0.6, 2)) + nods,
        "roll": _drift(rng, count, 0.9, rng.uniform(0.5, 1.8)),
        "x": _drift(rng, count, 0.8, 0.006),
        "y": _drift(rng, count, 0.7, 0.004),
    }
    for turn in script.turns:
        if turn.person == person:
            into = np.clip((grid_s - turn.start_s) / TURNING_S, 0, 1)
            out_of = np.clip((turn.end_s - grid_s) / TURNING_S, 0, 1)
            tracks["yaw"] += turn.yaw * _eased(into * out_of)
    brows = np.clip(_drift(rng, count, 0.4, 0.12) + 0.15 * effort, 0, 0.6)
    sampled = {name: np.interp(times_s, grid_s, track) for name, track in tracks.items()}
    actions = _mouth(script, person, said, times_s)
    actions |= _eyes(rng, times_s) | {"browInnerUp": np.interp(times_s, grid_s, brows)}
    return Motion(**sampled, actions=actions)


def _mouth(
    script: FilmScript, person: int, said: np.ndarray, times_s: np.ndarray
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([*script.seed, MOUTH_STREAM, person])
    idle = move_idly(times_s, rng)
    if script.kind == "static_jaw":
        return {}
    if not said.any():
        return idle
    # A person's manner stays from film to film.
    style = draw_style(np.random.default_rng([script.people[person].traits.seed, STYLE_STREAM]))
    heard = measure_articulation(said)
    spoken = move_mouth(heard, measure_loudness(said), style, times_s, rng)
    busy = _busy(heard.speaking, times_s)
    nothing = np.zeros(len(times_s))
    return {
        name: np.clip(spoken.get(name, nothing) + (1 - busy) * idle.get(name, nothing), 0, 1)
        for name in {**spoken, **idle}
    }


def _busy(speaking: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    from scipy.ndimage import maximum_filter1d

    near = maximum_filter1d(speaking, 2 * round(IDLE_WITHIN_S * RATE) + 1, mode="nearest")
    return np.interp(times_s, (np.arange(len(near)) + 0.5) / RATE, _smooth(near, 0.1))


def _eyes(rng: np.random.Generator, times_s: np.ndarray) -> dict[str, np.ndarray]:
    """Blink every few seconds; look here and there."""
    lids, time_s = np.zeros(len(times_s)), rng.uniform(0.2, 2.5)
    while time_s < times_s[-1]:
        lids = np.maximum(lids, np.clip(1.3 - np.abs(times_s - time_s) / 0.11, 0, 1))
        time_s += rng.uniform(1.2, 5.5)
    knots_s = np.arange(0.0, times_s[-1] + 2, 0.8)
    look = np.interp(times_s, knots_s, rng.normal(0, 0.12, len(knots_s)))
    left, right = np.clip(look, 0, 1), np.clip(-look, 0, 1)
    return {
        "eyeBlinkLeft": lids,
        "eyeBlinkRight": lids,
        "eyeLookOutLeft": left,
        "eyeLookInRight": left,
        "eyeLookInLeft": right,
        "eyeLookOutRight": right,
    }


def _drift(rng: np.random.Generator, count: int, sigma_s: float, size: float) -> np.ndarray:
    """Return a smooth random course (count,) with this standard deviation."""
    noise = _smooth(rng.standard_normal(count), sigma_s)
    return size * noise / max(noise.std(), 1e-9)


def _smooth(track: np.ndarray, sigma_s: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(np.asarray(track, np.float64), sigma_s * RATE, mode="nearest")


def _eased(share: np.ndarray) -> np.ndarray:
    return share * share * (3 - 2 * share)
