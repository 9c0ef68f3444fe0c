"""Clean speech, made to sound as a phone might have recorded it somewhere.

Everything that is linear (room, noise, microphone, line) happens to the whole batch in the
frequency domain, in one forward and one backward transform: a step must not wait for it.
Letters: B batch, T samples, N samples with room for the reverberation's tail, K = N // 2 + 1.
"""

import math

import numpy as np
import torch
from torch import Tensor

from training.configuration import Augmentation

TELEPHONE_HZ = (300.0, 3400.0)


def crop(speech: np.ndarray, samples: int, rng: np.random.Generator, speed: float = 0.0):
    """A random piece of a recording, slightly faster or slower, looped where it is too short.

    Args:
        speech: (any length) int16 samples.
        samples: length of the result.
        rng: source of randomness.
        speed: largest relative change of speed (resampling, so pitch and formants move with it).

    Returns:
        (samples,) float32, -1 to 1.
    """
    step = 1 + rng.uniform(-speed, speed)
    spare = len(speech) - samples * step
    start = rng.uniform(0, spare) if spare > 0 else rng.uniform(0, len(speech))
    position = start + step * np.arange(samples)
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
    batch, samples = speech.shape
    tail = sampling_rate // 2  # 0.5 s of reverberation
    size = samples + tail
    speech = speech / _rms(speech)
    frequency = torch.fft.rfftfreq(size, 1 / sampling_rate)  # (K,) Hz

    spectrum = torch.fft.rfft(speech, size)  # (B, K)
    heard = spectrum * _rooms(batch, tail, size, config, generator, sampling_rate)
    heard = heard + _noise(spectrum, heard, samples / size, frequency, config, generator)
    heard = heard * _line(batch, frequency, config, generator, sampling_rate)
    result = torch.fft.irfft(heard, size)[:, :samples]

    result = result / _rms(result)
    result = _overdrive(result, config, generator)
    gain_db = _uniform((batch, 1), -config.gain_db, config.gain_db, generator)
    result = (0.07 * result * 10 ** (gain_db / 20)).clamp(-1, 1)  # 0.07: speech at about -23 dBFS
    return _mu_law(result, config, generator)


def _rms(signal: Tensor) -> Tensor:
    return signal.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-5)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _chosen(batch: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand((batch, 1), generator=generator) < share  # (B, 1)


def _rooms(batch, tail, size, config, generator, sampling_rate) -> Tensor:
    """Transfer functions (B, K) of rooms: the direct sound and exponentially decaying noise."""
    time = torch.arange(tail) / sampling_rate
    decay = _uniform((batch, 1), *config.reverberation_s, generator)  # s for 60 dB
    echo = torch.randn((batch, tail), generator=generator) * torch.exp(-6.9 * time / decay)
    echo = echo * (time > 0.002)  # the direct sound comes first
    direct_to_echo_db = _uniform((batch, 1), -3, 12, generator)
    echo = echo / echo.norm(dim=-1, keepdim=True).clamp_min(1e-5) * 10 ** (-direct_to_echo_db / 20)
    echo = echo * _chosen(batch, config.reverberation, generator)
    echo[:, 0] = 1.0
    return torch.fft.rfft(echo, size)


def _noise(spectrum, heard, kept, frequency, config, generator) -> Tensor:
    """Spectra (B, K) of noise at the chosen level: coloured hiss, or the batch's other speakers."""
    batch = len(spectrum)
    slope = _uniform((batch, 1), 0, 2, generator)  # 0 white, 1 pink, 2 brown
    colour = frequency.clamp_min(20.0) ** (-slope / 2)  # (B, K)
    phase = torch.rand(spectrum.shape, generator=generator) * (2 * math.pi)
    noise = _of_unit_power(torch.polar(colour, phase)) / math.sqrt(kept)  # it fills the tail too
    if batch > 1:
        shifts = torch.randint(1, batch, (3,), generator=generator).tolist()
        babble = _of_unit_power(sum(spectrum.roll(shift, 0) for shift in shifts))
        noise = torch.where(_chosen(batch, config.babble, generator), babble, noise)
    snr_db = _uniform((batch, 1), *config.snr_db, generator)
    speech_level = heard.abs().square().mean(-1, keepdim=True).sqrt()
    level = speech_level * 10 ** (-snr_db / 20)
    return noise * (level * _chosen(batch, config.noise, generator))


def _of_unit_power(spectrum: Tensor) -> Tensor:
    return spectrum / spectrum.abs().square().mean(-1, keepdim=True).sqrt().clamp_min(1e-9)


def _line(batch, frequency, config, generator, sampling_rate) -> Tensor:
    """Gains (B, K) of microphone and line: a smooth response, and a low and a high cut-off."""
    points = 8  # of the random response, evenly on a logarithmic axis
    response_db = config.equaliser_db * torch.randn((batch, points), generator=generator)
    position = (frequency.clamp_min(50.0) / 50).log() / math.log(sampling_rate / 2 / 50)
    position = (position * (points - 1)).clamp(0, points - 1 - 1e-4)
    left = position.long()
    share = position - left
    curve_db = response_db[:, left] * (1 - share) + response_db[:, left + 1] * share  # (B, K)

    telephone = _chosen(batch, config.telephone, generator)
    low = torch.where(telephone, TELEPHONE_HZ[0], _uniform((batch, 1), 50, 250, generator))
    high = torch.where(telephone, TELEPHONE_HZ[1], _uniform((batch, 1), 2800, 7500, generator))
    low_cut = 1 / (1 + (low / frequency.clamp_min(1.0)) ** 4)  # 24 dB an octave
    high_cut = 1 / (1 + (frequency / high) ** 12)
    limited = torch.where(_chosen(batch, config.band_limit, generator), low_cut * high_cut, 1.0)
    return 10 ** (curve_db / 20) * limited


def _overdrive(signal: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Clips the chosen rows at 1 to 4 times their effective value."""
    limit = _uniform((len(signal), 1), 1, 4, generator)
    limit = torch.where(_chosen(len(signal), config.clipping, generator), limit, float("inf"))
    return signal.clamp(-limit, limit)


def _mu_law(signal: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Quantises the chosen rows to 256 logarithmic steps (ITU-T G.711)."""
    mu = 255.0
    compressed = signal.sign() * (mu * signal.abs()).log1p() / math.log1p(mu)
    coarse = ((compressed + 1) / 2 * mu).round() / mu * 2 - 1
    expanded = coarse.sign() * ((coarse.abs() * math.log1p(mu)).expm1()) / mu
    return torch.where(_chosen(len(signal), config.mu_law, generator), expanded, signal)
