"""One voice made into another: pitch, formants, rate and breath, each by itself.

The spectral envelope (the vocal tract) is moved in the short-time spectrum, which keeps every
phase; the pitch is moved by resampling; the duration is set by WSOLA, which only ever cuts and
joins the recording itself. A step whose ratio is 1 is left out, so that little is heard of small
shifts, and nothing of none.
"""

from fractions import Fraction

import numpy as np

FFT_SIZE = 1024  # samples, 64 ms at 16 kHz: resolves the harmonics of a deep voice
HOP = 256  # samples
ENVELOPE_ITERATIONS = 6
GAIN_LIMIT = 20.0  # dB; of the envelope's correction, so that silence is not blown up
INAUDIBLE = 0.004  # of the logarithm of a ratio: closer to 1 than listeners can tell
BREATH_LEVEL = 0.4  # noise over a harmonic's peak at full breath: some ten bins hold its energy
BREATH_BAND = (600.0, 2500.0)  # Hz; aspiration is absent below the first and full above the second
WSOLA_FRAME = 0.03  # s
WSOLA_SEARCH = 0.008  # s to either side: a period of a deep voice


def shift_voice(
    waveform: np.ndarray,
    sampling_rate: int,
    pitch_ratio: float = 1.0,
    formant_ratio: float = 1.0,
    rate_ratio: float = 1.0,
    breathiness: float = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Changes pitch, formants, speaking rate and breathiness of a recording independently.

    Args:
        waveform: (samples,) float, mono speech.
        sampling_rate: Hz.
        pitch_ratio: new pitch over old, 0.5 to 2.
        formant_ratio: new formant frequencies over old, 0.7 to 1.4; above 1: shorter vocal tract.
        rate_ratio: new speed over old, 0.5 to 2; the result lasts 1 / rate_ratio as long.
        breathiness: 0 (as recorded) to 1 (aspiration noise clearly heard).
        rng: source of the noise; needed if breathiness is above 0.

    Returns:
        (round(samples / rate_ratio),) float32, at the recording's own level.

    Raises:
        ValueError: if a ratio is out of its range, or breath has no source of noise.

    Sources:
        True envelope: Röbel & Rodet, DAFx 2005. WSOLA: Verhelst & Roelands, ICASSP 1993.
    """
    for name, value, low, high in (
        ("pitch_ratio", pitch_ratio, 0.5, 2.0),
        ("formant_ratio", formant_ratio, 0.7, 1.4),
        ("rate_ratio", rate_ratio, 0.5, 2.0),
        ("breathiness", breathiness, 0.0, 1.0),
    ):
        if not low <= value <= high:
            raise ValueError(f"expected {name} between {low} and {high}, got {value}")
    if breathiness > 0 and rng is None:
        raise ValueError("breathiness is noise: pass rng, numpy.random.default_rng(seed) for one")
    original = np.asarray(waveform, dtype=np.float64)
    length = round(len(original) / rate_ratio)
    shifted = original
    pitch_ratio = float(Fraction(pitch_ratio).limit_denominator(100))  # what the resampler can do
    warp = formant_ratio / pitch_ratio  # resampling will move the formants by pitch_ratio
    if abs(np.log(warp)) > INAUDIBLE or breathiness > 0:
        shifted = _shape_spectrum(shifted, sampling_rate, warp, breathiness, rng)
    if abs(np.log(pitch_ratio)) > INAUDIBLE:
        shifted = _resample(shifted, pitch_ratio)
    if abs(length - len(shifted)) > INAUDIBLE * length:
        shifted = _stretch(shifted, sampling_rate, length)
    shifted = np.pad(shifted[:length], (0, max(0, length - len(shifted))))
    return (shifted * _level_ratio(original, shifted)).astype(np.float32)


def _shape_spectrum(
    waveform: np.ndarray,
    sampling_rate: int,
    warp: float,
    breathiness: float,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Moves the spectral envelope by the factor `warp` along frequency, and adds breath."""
    window = np.hanning(FFT_SIZE + 1)[:-1]
    padded = np.pad(waveform, (FFT_SIZE, FFT_SIZE + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP] * window
    spectrum = np.fft.rfft(frames, axis=1)  # (frames, bins)
    envelope = _true_envelope(spectrum, sampling_rate)  # (frames, bins), natural logarithm

    bins = np.arange(envelope.shape[1])
    source = np.minimum(bins / warp, bins[-1])
    below = np.minimum(source.astype(int), bins[-1] - 1)
    moved = envelope[:, below] + (source - below) * (envelope[:, below + 1] - envelope[:, below])
    limit = GAIN_LIMIT * np.log(10) / 20
    shaped = spectrum * np.exp(np.clip(moved - envelope, -limit, limit))
    if breathiness > 0:
        noise = rng.standard_normal(len(padded))
        noise = np.lib.stride_tricks.sliding_window_view(noise, FFT_SIZE)[::HOP] * window
        frequency = bins * sampling_rate / FFT_SIZE
        rise = np.interp(frequency, BREATH_BAND, (0.0, 1.0)) * breathiness * BREATH_LEVEL
        unit_noise = np.fft.rfft(noise, axis=1) / np.sqrt((window**2).sum())
        shaped = shaped + unit_noise * rise * np.exp(moved)

    pieces = np.fft.irfft(shaped, FFT_SIZE, axis=1) * window
    result = np.zeros(HOP * (len(pieces) - 1) + FFT_SIZE)
    overlap = FFT_SIZE // HOP
    for offset in range(overlap):  # every fourth piece touches the next: add them as one row
        row = pieces[offset::overlap].reshape(-1)
        result[offset * HOP : offset * HOP + len(row)] += row
    result /= (window**2).sum() / HOP
    return result[FFT_SIZE : FFT_SIZE + len(waveform)]


def _true_envelope(spectrum: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Smooths log spectra through the tops of their harmonics by repeated cepstral liftering."""
    order = int(0.0025 * sampling_rate)  # samples of quefrency, 2.5 ms: below a high voice's period
    lifter = np.zeros(FFT_SIZE)
    lifter[: order + 1] = lifter[-order:] = 1
    logarithm = np.log(np.abs(spectrum) + 1e-7)
    envelope = logarithm
    for _ in range(ENVELOPE_ITERATIONS):
        target = np.maximum(logarithm, envelope)
        cepstrum = np.fft.irfft(target, FFT_SIZE, axis=1)
        envelope = np.fft.rfft(cepstrum * lifter, axis=1).real
    return envelope


def _resample(waveform: np.ndarray, pitch_ratio: float) -> np.ndarray:
    from scipy.signal import resample_poly

    ratio = Fraction(pitch_ratio).limit_denominator(100)
    return resample_poly(waveform, ratio.denominator, ratio.numerator)


def _stretch(waveform: np.ndarray, sampling_rate: int, length: int) -> np.ndarray:
    """Changes the duration to `length` samples by overlapping similar pieces (WSOLA)."""
    half = int(WSOLA_FRAME * sampling_rate) // 2
    search = int(WSOLA_SEARCH * sampling_rate)
    fade_in = 0.5 - 0.5 * np.cos(np.pi * (np.arange(half) + 0.5) / half)
    speed = len(waveform) / length
    padded = np.pad(waveform, (search, search + 4 * half))
    energy = np.cumsum(np.pad(padded**2, (1, 0)))
    result = np.zeros(length + 2 * half)
    result[:half] = padded[search : search + half]
    position = search  # of the piece that was laid last, in `padded`
    for start in range(half, length, half):
        template = padded[position + half : position + 2 * half]  # what would follow by itself
        earliest = int(start * speed)  # = the ideal place, less the search range, plus the padding
        region = padded[earliest : earliest + 2 * search + half]
        likeness = np.correlate(region, template, "valid")  # (2 * search + 1,)
        loudness = energy[earliest + half : earliest + half + len(likeness)]
        loudness = loudness - energy[earliest : earliest + len(likeness)]
        offset = int(np.argmax(likeness / np.sqrt(np.maximum(loudness, 1e-12))))
        position = earliest + offset
        piece = padded[position : position + half]
        result[start : start + half] = template * (1 - fade_in) + piece * fade_in
    return result[:length]


def _level_ratio(before: np.ndarray, after: np.ndarray) -> float:
    """The gain that gives `after` the level of `before`, without clipping."""
    level = np.sqrt(np.mean(after**2)) if len(after) else 0.0
    if level == 0:
        return 1.0
    return float(min(np.sqrt(np.mean(before**2)) / level, 0.99 / np.abs(after).max()))
