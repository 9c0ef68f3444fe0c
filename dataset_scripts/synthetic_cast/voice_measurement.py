"""Two numbers that say most about who is speaking: the pitch, and the spacing of the formants."""

import numpy as np

PITCH_FLOOR = 60.0  # Hz
PITCH_CEILING = 420.0  # Hz
FRAME_PERIOD = 10.0  # ms
# A vocal tract of 17 cm has its fifth formant near 4.6 kHz, one of 14.5 cm near 5.4 kHz: below
# these limits lie four formants and the beginning of the fifth (the phoneticians' convention).
FORMANT_CEILING = {"male": 5000.0, "female": 5500.0}  # Hz
NUM_FORMANTS = 4
SPEED_OF_SOUND = 35000.0  # cm/s, warm and moist


def measure_pitch(waveform: np.ndarray, sampling_rate: int) -> float:
    """Measures the median fundamental frequency with DIO and StoneMask (Morise 2009, pyworld).

    Args:
        waveform: (samples,) float, mono speech.
        sampling_rate: Hz.

    Returns:
        The median over loud voiced frames in Hz, 60 to 420; NaN if there are none.
    """
    pitch, _ = _pitch_contour(waveform, sampling_rate)
    voiced = pitch[pitch > 0]
    return float(np.median(voiced)) if len(voiced) else float("nan")


def measure_formant_spacing(waveform: np.ndarray, sampling_rate: int, gender: str) -> float:
    """Estimates the mean distance between formants, which is c / (2 x vocal tract length).

    Linear prediction on voiced frames, the median of each of F1 to F4, then the spacing that fits
    F_i = (2 i - 1) / 2 x spacing best: a uniform tube closed at one end (Reby & McComb 2003).

    Args:
        waveform: (samples,) float, mono speech.
        sampling_rate: Hz, at least 11000.
        gender: "female" or "male"; sets the frequency below which formants are sought.

    Returns:
        The spacing in Hz, near 1000 for men and 1180 for women; NaN if nothing is voiced.
    """
    from scipy.signal import resample_poly

    ceiling = FORMANT_CEILING[gender]
    pitch, times = _pitch_contour(waveform, sampling_rate)
    rate = int(2 * ceiling)
    divisor = np.gcd(rate, sampling_rate)
    signal = resample_poly(waveform.astype(np.float64), rate // divisor, sampling_rate // divisor)
    signal = np.append(signal[0], signal[1:] - 0.97 * signal[:-1])  # lifts the high formants

    length = int(0.03 * rate)  # samples, 30 ms
    starts = (times[pitch > 0] * rate).astype(int) - length // 2
    starts = starts[(starts >= 0) & (starts + length <= len(signal))]
    if len(starts) == 0:
        return float("nan")
    frames = signal[starts[:, None] + np.arange(length)] * np.hamming(length)  # (frames, length)
    formants = _formants(frames, rate)  # (frames, NUM_FORMANTS), NaN where not found
    complete = np.isfinite(formants).all(axis=1)
    if not complete.any():
        return float("nan")
    medians = np.median(formants[complete], axis=0)
    tube = np.arange(1, NUM_FORMANTS + 1) - 0.5
    return float(tube @ medians / (tube @ tube))


def vocal_tract_length(formant_spacing: float) -> float:
    """Converts a formant spacing in Hz to the length in cm of the tube that has it."""
    return SPEED_OF_SOUND / (2 * formant_spacing)


def _pitch_contour(waveform: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The pitch in Hz (0: unvoiced, or too soft to trust) and the time in s of each frame."""
    import pyworld
    from scipy.signal import butter, sosfiltfilt

    # Mains hum is periodic too: without this, one reader in ten is "heard" at 60 Hz.
    hum_filter = butter(4, 80, "highpass", fs=sampling_rate, output="sos")
    signal = np.ascontiguousarray(sosfiltfilt(hum_filter, waveform.astype(np.float64)))
    pitch, times = pyworld.dio(
        signal,
        sampling_rate,
        f0_floor=PITCH_FLOOR,
        f0_ceil=PITCH_CEILING,
        frame_period=FRAME_PERIOD,
        speed=2,
    )
    pitch = pyworld.stonemask(signal, pitch, times, sampling_rate)

    reach = int(1.5e-3 * FRAME_PERIOD * sampling_rate)  # samples to either side, 30 ms in all
    centres = np.minimum((times * sampling_rate).astype(int), len(signal) - 1)
    energy = np.cumsum(np.pad(signal**2, (reach + 1, reach)))
    level = np.sqrt(np.maximum(energy[centres + 2 * reach] - energy[centres], 0))
    return np.where(level > 0.15 * np.percentile(level, 95), pitch, 0.0), times


def _formants(frames: np.ndarray, rate: int) -> np.ndarray:
    """Finds the first formants of windowed frames (N, length) as (N, NUM_FORMANTS), Hz or NaN."""
    order = 2 * (NUM_FORMANTS + 1)
    spectrum = np.fft.rfft(frames, 2 * frames.shape[1], axis=1)
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, : order + 1]
    autocorrelation[:, 0] = autocorrelation[:, 0] * (1 + 1e-6) + 1e-12
    polynomial = _levinson(autocorrelation)  # (N, order + 1)

    companion = np.zeros((len(frames), order, order))
    companion[:, 0] = -polynomial[:, 1:]
    companion[:, np.arange(1, order), np.arange(order - 1)] = 1
    roots = np.linalg.eigvals(companion)
    frequency = np.angle(roots) * rate / (2 * np.pi)
    bandwidth = -np.log(np.maximum(np.abs(roots), 1e-9)) * rate / np.pi
    resonance = (frequency > 150) & (frequency < rate / 2 - 50) & (bandwidth < 600)
    return np.sort(np.where(resonance, frequency, np.nan), axis=1)[:, :NUM_FORMANTS]  # NaN last


def _levinson(autocorrelation: np.ndarray) -> np.ndarray:
    """Solves the normal equations of linear prediction for every row at once (Levinson-Durbin)."""
    polynomial = np.zeros_like(autocorrelation)
    polynomial[:, 0] = 1
    error = autocorrelation[:, 0].copy()
    for order in range(1, autocorrelation.shape[1]):
        lagged = autocorrelation[:, order:0:-1]  # (N, order)
        reflection = -(polynomial[:, :order] * lagged).sum(axis=1) / error
        previous = polynomial[:, : order + 1].copy()
        polynomial[:, : order + 1] += reflection[:, None] * previous[:, ::-1]
        error *= 1 - reflection**2
    return polynomial
