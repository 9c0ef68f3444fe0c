"""How a mouth moves that says what a recording says: from the sound's spectral shape to actions.

Only the waveform is looked at, 100 times a second: where its energy lies between the first and
the second formant (opening, spreading, rounding), where it breaks off over a murmur (lips closed),
where it hisses (teeth nearly closed). Loudness moves a mouth too, but a loud [u] hardly opens and
a soft [a] does. Every speaker does it with a size, a lag and a noise of their own.
"""

from dataclasses import dataclass

import numpy as np

RATE = 100  # features a second
SAMPLING_RATE = 16000  # Hz
WINDOW = 400  # samples, 25 ms
SILENT_DB = -40.0  # of a window's energy: an amplitude of about 0.00005
BANDS_HZ = {
    "murmur": (90, 320),
    "low": (320, 560),
    "open": (560, 1150),
    "middle": (1150, 1750),
    "front": (1750, 2900),
    "hiss": (3600, 7600),
}


@dataclass(frozen=True)
class Articulation:
    """What the mouth is asked to do, RATE times a second, each (n,) in 0 to 1.

    Attributes:
        speaking: there is speech.
        opening: of jaw and lips.
        rounding: of the lips.
        spreading: of the lips, as in [i].
        closing: the lips meet, as in [m, b, p].
        hissing: teeth nearly closed, as in [s].
    """

    speaking: np.ndarray
    opening: np.ndarray
    rounding: np.ndarray
    spreading: np.ndarray
    closing: np.ndarray
    hissing: np.ndarray


@dataclass(frozen=True)
class MouthStyle:
    """How one speaker moves the mouth.

    Attributes:
        size: of all movements, about 0.35 (a mumbler) to 1 (articulate).
        lag_s: of the mouth behind the sound, seconds; below 0: it moves ahead.
        inertia_s: of the muscles: standard deviation of the smoothing, seconds.
        asymmetry: of left and right, -0.25 to 0.25.
        noise: of every movement, 0 to about 0.3.
        share_of_loudness: of the opening that goes with loudness, 0 to about 0.5.
        lip_share: of closures that the lips make and not the tongue, 0 to 1.
    """

    size: float
    lag_s: float
    inertia_s: float
    asymmetry: float
    noise: float
    share_of_loudness: float
    lip_share: float


def draw_style(rng: np.random.Generator) -> MouthStyle:
    """Draws how a speaker moves the mouth."""
    return MouthStyle(
        size=float(rng.uniform(0.45, 1.0)),
        lag_s=float(rng.choice((-1, 1)) * rng.uniform(0.02, 0.08)),
        inertia_s=float(rng.uniform(0.025, 0.042)),
        asymmetry=float(np.clip(rng.normal(0, 0.1), -0.25, 0.25)),
        noise=float(rng.uniform(0.08, 0.25)),
        share_of_loudness=float(rng.uniform(0.15, 0.5)),
        lip_share=float(rng.uniform(0.45, 0.75)),
    )


def measure_articulation(waveform: np.ndarray) -> Articulation:
    """Derives from a recording what a mouth must have done.

    Args:
        waveform: (samples,) float, mono, 16 kHz.

    Returns:
        Features of (samples // 160,) each.
    """
    bands = _band_levels(np.asarray(waveform, np.float64))  # dB

    def together(*names: str) -> np.ndarray:
        return _decibel(sum(10 ** (bands[name] / 10) for name in names))

    if not len(bands["murmur"]):
        return Articulation(*(np.zeros(0) for _ in range(6)))
    voice = together("murmur", "low", "open", "middle", "front")
    hiss_level = bands["hiss"]
    loud = max(np.percentile(voice, 95), SILENT_DB)
    floor = np.clip(np.percentile(voice, 5), loud - 45, loud - 28)
    level = np.clip((np.maximum(voice, hiss_level + 3) - floor) / (loud - floor), 0, 1)
    speaking = _smooth(_logistic((level - 0.32) / 0.06), 0.03)
    if loud <= SILENT_DB:
        speaking = np.zeros_like(speaking)
    voiced = speaking > 0.5
    openness = _ranked(bands["open"] - together("murmur", "low"), voiced)
    front = _ranked(bands["front"] - together("open", "middle"), voiced)
    dark = _ranked(together("low", "open") - together("middle", "front"), voiced)
    hissing = speaking * _logistic((hiss_level - voice + 2) / 2.5)
    above = together("open", "middle", "front")
    around = _largest_near(above, 0.12)
    dip = _logistic((around - above - 16) / 2.0) * _smooth(np.float64(voiced), 0.10)
    closing = np.clip(1.6 * dip * (1 - hissing), 0, 1)
    vowel = speaking * (1 - 0.85 * hissing)
    return Articulation(
        speaking=speaking,
        opening=vowel * openness * (0.45 + 0.55 * level),
        rounding=vowel * np.clip(1.6 * dark - 0.6, 0, 1) * (1 - 0.5 * openness),
        spreading=vowel * np.clip(1.5 * front - 0.5, 0, 1) * (1 - 0.7 * openness),
        closing=closing,
        hissing=hissing,
    )


def move_mouth(
    heard: Articulation,
    loudness: np.ndarray,
    style: MouthStyle,
    times_s: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Moves a speaker's mouth to what is heard.

    Args:
        heard: see `measure_articulation`.
        loudness: (n,) in 0 to 1, see `measure_loudness`.
        style: of the speaker.
        times_s: (frames,) when frames are taken, seconds from the recording's beginning.
        rng: of this performance's noise.

    Returns:
        Facial action -> (frames,) in 0 to 1.

    Raises:
        ValueError: if nothing is heard, not even silence.
    """
    count = len(heard.speaking)
    if not count:
        raise ValueError("expected at least 10 ms of sound to move a mouth to")
    at_s = (np.arange(count) + 0.5) / RATE + style.lag_s

    def noisy(track: np.ndarray) -> np.ndarray:
        wobble = 1 + style.noise * 1.6 * _slow_noise(rng, count, 0.09)
        return np.clip(track * wobble, 0, 1.2)

    # Not every break in the sound is the lips': the tongue closes off [d, n, g] behind them.
    ours = _per_event(heard.closing > 0.4, rng, style.lip_share)
    closing = _smooth(heard.closing * ours, style.inertia_s * 0.55)
    closing = np.clip(1.7 * closing, 0, 1)
    inertia = style.inertia_s
    share = style.share_of_loudness
    effort = loudness * heard.speaking * (1 - 0.85 * heard.hissing)
    opening = _smooth(noisy((1 - share) * heard.opening + share * effort), inertia)
    opening = opening + 0.05 * style.noise * _slow_noise(rng, count, 0.06) * heard.speaking
    rounding = _smooth(noisy(heard.rounding), inertia * 1.3)
    spreading = _smooth(noisy(heard.spreading), inertia * 1.2)
    hissing = _smooth(noisy(heard.hissing), inertia)
    size = style.size
    free = 1 - closing
    jaw = size * free * (0.62 * opening + 0.06 * hissing + 0.05 * _smooth(heard.speaking, 0.08))
    tracks = {
        "jawOpen": jaw,
        "mouthFunnel": size * free * 0.55 * rounding * np.clip(0.3 + opening, 0, 1),
        "mouthPucker": size * 0.75 * rounding * np.clip(1.1 - opening, 0, 1),
        "mouthStretch": size * (0.55 * spreading + 0.35 * hissing) * (1 - 0.6 * closing),
        "mouthLowerDown": size * free * np.clip(0.35 * opening + 0.5 * hissing, 0, 1),
        "mouthUpperUp": size * free * np.clip(0.25 * opening + 0.30 * hissing, 0, 1),
        "mouthPress": 0.5 * size * closing,
        "mouthRollLower": 0.30 * size * closing,
        "mouthRollUpper": 0.20 * size * closing,
    }
    moved = {}
    for name, track in tracks.items():
        taken = np.interp(times_s, at_s, np.clip(track, 0, 1))
        if name in ("mouthStretch", "mouthLowerDown", "mouthUpperUp", "mouthPress"):
            moved[name + "Left"] = np.clip(taken * (1 + style.asymmetry), 0, 1)
            moved[name + "Right"] = np.clip(taken * (1 - style.asymmetry), 0, 1)
        else:
            moved[name] = taken
    sway = 0.5 * style.asymmetry + 0.15 * style.noise * _slow_noise(rng, count, 0.4)
    side = np.interp(times_s, at_s, sway) * moved["jawOpen"]
    moved["jawLeft"], moved["jawRight"] = np.clip(side, 0, 1), np.clip(-side, 0, 1)
    return moved


def measure_loudness(waveform: np.ndarray) -> np.ndarray:
    """Measures loudness RATE times a second, in 0 (silent) to 1 (the recording's loudest).

    Args:
        waveform: (samples,) float, mono, 16 kHz.

    Returns:
        (samples // 160,) float64.
    """
    hop = SAMPLING_RATE // RATE
    count = len(waveform) // hop
    blocks = np.asarray(waveform[: count * hop], np.float64).reshape(count, hop)
    energy = _smooth(np.sqrt((blocks**2).mean(1)), 0.02)
    top = np.percentile(energy, 97) if count else 0.0
    return np.clip(energy / max(top, 1e-5), 0, 1) ** 0.6


def move_idly(times_s: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Moves the mouth of somebody who does not speak: breath, swallows, smiles, licked lips.

    Args:
        times_s: (frames,) seconds.
        rng: of what happens when.

    Returns:
        Facial action -> (frames,) in 0 to 1.
    """
    zero = np.zeros(len(times_s))
    tracks = {
        name: zero.copy()
        for name in (
            *("jawOpen", "mouthPucker", "mouthRollLower", "mouthRollUpper"),
            *("mouthPressLeft", "mouthPressRight", "mouthSmileLeft", "mouthSmileRight"),
        )
    }
    tracks["jawOpen"] += 0.012 * (1 + np.sin(2 * np.pi * times_s / rng.uniform(3, 5)))
    time = times_s[0] + rng.uniform(0.3, 3.0) if len(times_s) else 0.0
    while len(times_s) and time < times_s[-1]:
        event = str(rng.choice(("smile", "press", "lick", "swallow", "part")))
        span = rng.uniform(0.35, 0.7) if event != "smile" else rng.uniform(1.0, 2.5)
        shape = np.exp(-(((times_s - time - span) / (0.5 * span)) ** 2))
        size = rng.uniform(0.4, 1.0)
        if event == "smile":
            tracks["mouthSmileLeft"] += 0.5 * size * shape
            tracks["mouthSmileRight"] += 0.5 * size * shape * rng.uniform(0.8, 1.2)
        elif event == "press":
            tracks["mouthPressLeft"] += 0.6 * size * shape
            tracks["mouthPressRight"] += 0.6 * size * shape
        elif event == "lick":
            tracks["jawOpen"] += 0.16 * size * shape
            tracks["mouthRollLower"] += 0.5 * size * shape
        elif event == "swallow":
            tracks["mouthPressLeft"] += 0.3 * size * shape
            tracks["mouthPressRight"] += 0.3 * size * shape
            tracks["mouthPucker"] += 0.25 * size * shape
        else:
            tracks["jawOpen"] += 0.12 * size * shape
        time += span + rng.uniform(1.2, 5.0)
    return {name: np.clip(track, 0, 1) for name, track in tracks.items()}


def _band_levels(waveform: np.ndarray) -> dict[str, np.ndarray]:
    """Return the level of each band in dB, RATE times a second."""
    hop = SAMPLING_RATE // RATE
    count = len(waveform) // hop
    padded = np.pad(waveform, (WINDOW // 2, WINDOW))
    starts = np.arange(count) * hop + hop // 2
    frames = padded[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    frequency = np.fft.rfftfreq(512, 1 / SAMPLING_RATE)
    return {
        name: _decibel(power[:, (frequency >= low) & (frequency < high)].sum(1))
        for name, (low, high) in BANDS_HZ.items()
    }


def _decibel(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(power + 1e-9)


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def _smooth(track: np.ndarray, sigma_s: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(np.asarray(track, np.float64), sigma_s * RATE, mode="nearest")


def _ranked(difference: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Return a difference of levels on the speaker's own scale: 0 (lowest tenth) to 1 (highest)."""
    if voiced.sum() < 10:
        return np.zeros_like(difference)
    low, high = np.percentile(difference[voiced], (10, 90))
    return np.clip((difference - low) / max(high - low, 3.0), 0, 1)


def _largest_near(track: np.ndarray, reach_s: float) -> np.ndarray:
    from scipy.ndimage import maximum_filter1d

    return maximum_filter1d(track, 2 * round(reach_s * RATE) + 1, mode="nearest")


def _slow_noise(rng: np.random.Generator, count: int, sigma_s: float) -> np.ndarray:
    """Return noise of unit variance without anything quicker than sigma."""
    noise = _smooth(rng.standard_normal(count + 2), sigma_s)[:count]
    # A Gaussian filter of sigma samples leaves 1 / (2 sigma sqrt(pi)) of the variance.
    return noise * np.sqrt(2 * sigma_s * RATE * np.sqrt(np.pi))


def _per_event(active: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Return 1 around those events (runs of `active`) that chance keeps, 0 around the others."""
    edges = np.diff(np.concatenate([[0], active.astype(int), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    kept = np.zeros(len(active))
    for start, end in zip(starts, ends, strict=True):
        if rng.random() < share:
            kept[max(0, start - 3) : end + 3] = 1
    return kept
