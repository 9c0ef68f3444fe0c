"""The mouth follows the sound's spectral shape: vowels, closures, hisses; not loudness alone."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from dataset_scripts.synthetic_cast.articulation import (
    MouthStyle,
    draw_style,
    measure_articulation,
    measure_loudness,
    move_idly,
    move_mouth,
)

RATE = 16000  # Hz
VOWELS = {"a": (750, 1250, 2600), "i": (280, 2300, 3000), "u": (310, 750, 2400)}  # formants, Hz
PLAIN = MouthStyle(
    size=1.0,
    lag_s=0.0,
    inertia_s=0.03,
    asymmetry=0.0,
    noise=0.0,
    share_of_loudness=0.2,
    lip_share=1.0,
)


def vowel(name: str, seconds: float = 0.3, level: float = 0.1) -> np.ndarray:
    """A vowel of this RMS level: pulses at 120 Hz through three resonances."""
    pulses = np.zeros(int(seconds * RATE))
    pulses[:: RATE // 120] = 1.0
    signal = lfilter([1], [1, -0.96], pulses)
    for frequency in VOWELS[name]:
        radius = np.exp(-np.pi * 80 / RATE)
        signal = lfilter(
            [1], [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], signal
        )
    signal = signal - signal.mean()
    return level * signal / signal.std()


def murmur(seconds: float) -> np.ndarray:
    """What is heard through closed lips."""
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.03 * np.sin(2 * np.pi * 120 * time) + 0.01 * np.sin(2 * np.pi * 240 * time)


def hiss(seconds: float) -> np.ndarray:
    """An [s]: noise above 4 kHz."""
    noise = np.random.default_rng(0).standard_normal(int(seconds * RATE))
    return 0.05 * np.diff(np.diff(noise, prepend=0.0), prepend=0.0)


def silence(seconds: float) -> np.ndarray:
    return 1e-5 * np.random.default_rng(1).standard_normal(int(seconds * RATE))


def middle(track: np.ndarray, start_s: float, end_s: float, rate: float = 100) -> float:
    """The mean over the middle half of a stretch."""
    quarter = (end_s - start_s) / 4
    return float(track[int((start_s + quarter) * rate) : int((end_s - quarter) * rate)].mean())


def moved(sound: np.ndarray, style: MouthStyle = PLAIN) -> dict[str, np.ndarray]:
    """The actions at 100 frames a second."""
    times_s = np.arange(len(sound) // 160) / 100
    rng = np.random.default_rng(0)
    return move_mouth(measure_articulation(sound), measure_loudness(sound), style, times_s, rng)


@pytest.fixture(scope="module")
def phrase() -> tuple[np.ndarray, dict[str, tuple[float, float]]]:
    """A soft [a], a loud [u], [i], lips closed, [a], [s]; and when each is."""
    parts = {
        "pause": silence(0.4),
        "soft a": vowel("a", level=0.07),
        "loud u": vowel("u", level=0.14),
        "i": vowel("i", level=0.1),
        "closed": murmur(0.09),
        "a": vowel("a", level=0.1),
        "s": hiss(0.2),
        "end": silence(0.4),
    }
    ends = np.cumsum([len(part) for part in parts.values()]) / RATE
    starts = np.concatenate([[0], ends[:-1]])
    when = dict(zip(parts, zip(starts.tolist(), ends.tolist(), strict=True), strict=True))
    return np.concatenate(list(parts.values())), when


def test_vowels_open_round_and_spread_the_mouth(phrase):
    sound, when = phrase
    heard = measure_articulation(sound)
    opening = {name: middle(heard.opening, *when[name]) for name in ("soft a", "loud u", "i")}
    rounding = {name: middle(heard.rounding, *when[name]) for name in ("soft a", "loud u", "i")}
    spreading = {name: middle(heard.spreading, *when[name]) for name in ("soft a", "loud u", "i")}
    assert opening["soft a"] > 0.6 > 0.45 > opening["loud u"] > opening["i"]
    assert max(rounding, key=rounding.get) == "loud u" and rounding["loud u"] > 0.4
    assert max(spreading, key=spreading.get) == "i" and spreading["i"] > 0.4


def test_a_soft_a_opens_the_jaw_more_than_a_loud_u(phrase):
    sound, when = phrase
    loudness = measure_loudness(sound)
    assert middle(loudness, *when["loud u"]) > 1.2 * middle(loudness, *when["soft a"])
    jaw = moved(sound)["jawOpen"]
    assert middle(jaw, *when["soft a"]) > 1.5 * middle(jaw, *when["loud u"])


def test_lips_meet_where_the_sound_breaks_off_over_a_murmur(phrase):
    sound, when = phrase
    actions = moved(sound)
    press, jaw = actions["mouthPressLeft"], actions["jawOpen"]
    assert middle(press, *when["closed"]) > 0.25
    assert middle(press, *when["a"]) < 0.05 and middle(press, *when["i"]) < 0.05
    assert middle(jaw, *when["closed"]) < 0.3 * middle(jaw, *when["a"])
    tongue = moved(sound, replace(PLAIN, lip_share=0.0))  # closed behind the lips
    assert tongue["mouthPressLeft"].max() == 0


def test_teeth_nearly_close_for_a_hiss(phrase):
    sound, when = phrase
    heard, actions = measure_articulation(sound), moved(sound)
    assert middle(heard.hissing, *when["s"]) > 0.7 > 0.1 > middle(heard.hissing, *when["a"])
    assert middle(actions["jawOpen"], *when["s"]) < 0.4 * middle(actions["jawOpen"], *when["a"])
    assert middle(actions["mouthStretchLeft"], *when["s"]) > 0.1


def test_nobody_speaks_in_silence(phrase):
    sound, when = phrase
    assert measure_articulation(sound).speaking[:30].max() < 0.1
    for quiet in (np.zeros(RATE), silence(1.0)):
        actions = moved(quiet)
        assert max(track.max() for track in actions.values()) < 0.02


def test_a_style_has_size_lag_and_sides(phrase):
    sound, _ = phrase
    jaw = moved(sound)["jawOpen"]
    small = moved(sound, replace(PLAIN, size=0.5))["jawOpen"]
    np.testing.assert_allclose(small, 0.5 * jaw, atol=1e-9)
    late = moved(sound, replace(PLAIN, lag_s=0.05))["jawOpen"]
    np.testing.assert_allclose(late[10:], jaw[5:-5], atol=1e-9)
    aside = moved(sound, replace(PLAIN, asymmetry=0.2))
    ratio = aside["mouthLowerDownLeft"].max() / aside["mouthLowerDownRight"].max()
    assert ratio == pytest.approx(1.5)
    noisy = moved(sound, replace(PLAIN, noise=0.25))["jawOpen"]
    assert 0.02 < np.abs(noisy - jaw).max() < 0.3


def test_actions_are_shares_whatever_is_drawn(phrase):
    sound, _ = phrase
    for seed in range(20):
        rng = np.random.default_rng(seed)
        style = draw_style(rng)
        assert 0.02 <= abs(style.lag_s) <= 0.08
        for track in moved(sound, style).values():
            assert track.min() >= 0 and track.max() <= 1
        times_s = np.arange(0, 10, 0.04)
        for track in move_idly(times_s, rng).values():
            assert track.shape == times_s.shape and track.min() >= 0 and track.max() <= 1


def test_who_listens_moves_the_mouth_now_and_then():
    times_s = np.arange(0, 20, 0.04)
    once, again, other = (move_idly(times_s, np.random.default_rng(seed)) for seed in (0, 0, 1))
    activity = np.sum(list(once.values()), 0)
    assert 0.03 < (activity > 0.1).mean() < 0.7
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not np.array_equal(once["jawOpen"], other["jawOpen"])


def test_no_sound_at_all_is_refused():
    assert measure_articulation(np.zeros(0)).opening.size == 0
    with pytest.raises(ValueError, match="at least 10 ms of sound"):
        moved(np.zeros(0))
