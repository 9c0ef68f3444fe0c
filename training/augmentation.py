"""Clean speech, made to sound as a phone might have recorded it somewhere.

Everything that is linear (room, noise, microphone, line) happens to the whole batch in the
frequency domain, in one forward and one backward transform: a step must not wait for it.
Letters: B batch, T samples, N samples with room for the reverberation's tail, K = N // 2 + 1
frequencies, C coarse ones.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.configuration import Augmentation

TELEPHONE_HZ = (300.0, 3400.0)
COARSE_BINS = 801  # 10 Hz apart at 16 kHz


def crop(speech: np.ndarray, samples: int, rng: np.random.Generator, speed: float = 1.0):
    """A random piece of a recording, faster or slower, looped where it is too short.

    Args:
        speech: (any length) int16 samples.
        samples: length of the result.
        rng: source of randomness.
        speed: over the recording's own (resampling, so pitch and formants move with it).

    Returns:
        (samples,) float32, -1 to 1.
    """
    spare = len(speech) - samples * speed
    start = rng.uniform(0, spare) if spare > 0 else rng.uniform(0, len(speech))
    position = start + speed * np.arange(samples)
    whole = position.astype(np.int64)
    share = (position - whole).astype(np.float32)
    left = speech[whole % len(speech)].astype(np.float32)
    right = speech[(whole + 1) % len(speech)].astype(np.float32)
    return (left + share * (right - left)) / 32768


def augment(
    speech: Tensor, config: Augmentation, generator: torch.Generator, sampling_rate: int = 16000
) -> Tensor:
    """Room, noise, microphone, line and level, each row its own.

    Args:
        speech: (B, T) float32, clean.
        config: what may happen, and how often.
        generator: source of randomness; the same state gives the same result.
        sampling_rate: Hz.

    Returns:
        (B, T) float32, -1 to 1, finite.
    """
    samples = speech.shape[1]
    tail = sampling_rate // 2  # 0.5 s of reverberation
    size = samples + tail
    speech = speech / _rms(speech)

    spectrum = torch.fft.rfft(speech, size)  # (B, K)
    heard = _reverberate(spectrum, tail, size, config, generator, sampling_rate)
    heard = _add_noise(heard, spectrum, samples / size, config, generator, sampling_rate)
    heard = heard * _line(*heard.shape, config, generator, sampling_rate)
    result = torch.fft.irfft(heard, size)[:, :samples]

    result = result / _rms(result)
    result = _overdrive(result, config, generator)
    gain_db = _uniform((len(result), 1), -config.gain_db, config.gain_db, generator)
    result = (0.07 * result * 10 ** (gain_db / 20)).clamp(-1, 1)  # 0.07: speech at about -23 dBFS
    return _mu_law(result, config, generator)


def _rms(signal: Tensor) -> Tensor:
    return signal.norm(dim=-1, keepdim=True).div(signal.shape[-1] ** 0.5).clamp_min(1e-5)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _chosen(batch: int, share: float, generator: torch.Generator) -> Tensor:
    """Indices of the rows to which something happens; the others cost nothing."""
    return (torch.rand(batch, generator=generator) < share).nonzero()[:, 0]


def _reverberate(spectrum, tail, size, config, generator, sampling_rate) -> Tensor:
    """Puts rows (B, K) into rooms: the direct sound and exponentially decaying noise."""
    rows = _chosen(len(spectrum), config.reverberation, generator)
    time = torch.arange(tail) / sampling_rate
    decay = _uniform((len(rows), 1), *config.reverberation_s, generator)  # s for 60 dB
    echo = torch.randn((len(rows), tail), generator=generator) * torch.exp(-6.9 * time / decay)
    echo = echo * (time > 0.002)  # the direct sound comes first
    direct_to_echo_db = _uniform((len(rows), 1), -3, 12, generator)
    echo = echo / echo.norm(dim=-1, keepdim=True).clamp_min(1e-5) * 10 ** (-direct_to_echo_db / 20)
    echo[:, 0] = 1.0
    if not len(rows):
        return spectrum  # the transform does not take an empty batch
    return spectrum.index_copy(0, rows, spectrum[rows] * torch.fft.rfft(echo, size))


def _add_noise(heard, spectrum, kept, config, generator, sampling_rate) -> Tensor:
    """Adds noise to rows (B, K): coloured hiss, or the clean speech of the batch's other rows.

    `kept` is the share of the samples that are speech: hiss fills the tail too, which is cut off.
    """
    batch, bins = heard.shape
    noisy = _chosen(batch, config.noise, generator)
    babbles = torch.rand(len(noisy), generator=generator) < (config.babble if batch > 1 else 0)
    snr_db = _uniform((batch, 1), *config.snr_db, generator)
    level = heard.norm(dim=-1, keepdim=True) * 10 ** (-snr_db / 20)  # (B, 1)

    rows = noisy[~babbles]
    slope = _uniform((len(rows), 1), 0, 2, generator)  # 0 white, 1 pink, 2 brown
    frequency = _coarse_frequencies(sampling_rate)
    colour = _to_bins(frequency.clamp_min(20.0) ** (-slope / 2), bins)
    hiss = torch.view_as_complex(torch.randn((len(rows), bins, 2), generator=generator)) * colour
    hiss = hiss / (hiss.norm(dim=-1, keepdim=True) * math.sqrt(kept))
    heard = heard.index_add(0, rows, hiss * level[rows])

    rows = noisy[babbles]
    shifts = torch.randint(1, max(batch, 2), (3,), generator=generator)
    babble = spectrum[(rows[:, None] + shifts) % batch].sum(1)
    babble = babble / babble.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    return heard.index_add(0, rows, babble * level[rows])


def _line(batch, bins, config, generator, sampling_rate) -> Tensor:
    """Gains (B, K) of microphone and line: a smooth response, and a low and a high cut-off."""
    frequency = _coarse_frequencies(sampling_rate)
    points = 8  # of the random response, evenly on a logarithmic axis
    response_db = config.equaliser_db * torch.randn((batch, points), generator=generator)
    position = (frequency.clamp_min(50.0) / 50).log() / math.log(sampling_rate / 2 / 50)
    position = (position * (points - 1)).clamp(0, points - 1 - 1e-4)
    left = position.long()
    share = position - left
    curve_db = response_db[:, left] * (1 - share) + response_db[:, left + 1] * share
    gains = 10 ** (curve_db / 20)

    rows = _chosen(batch, config.band_limit, generator)
    low = _uniform((len(rows), 1), 50, 250, generator)
    high = _uniform((len(rows), 1), 2800, 7500, generator)
    on_telephone = _chosen(len(rows), config.telephone, generator)
    low[on_telephone], high[on_telephone] = TELEPHONE_HZ
    low_cut = 1 / (1 + (low / frequency.clamp_min(1.0)) ** 4)  # 24 dB an octave
    high_cut = 1 / (1 + (frequency / high) ** 12)
    gains[rows] *= low_cut * high_cut
    return _to_bins(gains, bins)


def _coarse_frequencies(sampling_rate: int) -> Tensor:
    """(C,) Hz from 0 to half the sampling rate: smooth curves are computed here, then stretched."""
    return torch.linspace(0, sampling_rate / 2, COARSE_BINS)


def _to_bins(curves: Tensor, bins: int) -> Tensor:
    """Stretches curves (B, C) to (B, K)."""
    return F.interpolate(curves[:, None], bins, mode="linear", align_corners=True)[:, 0]


def _overdrive(signal: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Clips the chosen rows at 1 to 4 times their effective value, which is 1."""
    rows = _chosen(len(signal), config.clipping, generator)
    limit = _uniform((len(rows), 1), 1, 4, generator)
    return signal.index_copy(0, rows, signal[rows].clamp(-limit, limit))


def _mu_law(signal: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Quantises the chosen rows to 256 logarithmic steps (ITU-T G.711)."""
    rows = _chosen(len(signal), config.mu_law, generator)
    mu, loud = 255.0, signal[rows]
    compressed = loud.sign() * (mu * loud.abs()).log1p() / math.log1p(mu)
    coarse = ((compressed + 1) / 2 * mu).round() / mu * 2 - 1
    expanded = coarse.sign() * (coarse.abs() * math.log1p(mu)).expm1() / mu
    return signal.index_copy(0, rows, expanded)
