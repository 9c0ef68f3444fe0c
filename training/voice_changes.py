"""Voices made into others: faster, of a longer or a shorter vocal tract, with more breath.

A data set has few voices and says of each one thing. Of a voice that is changed by a known amount,
what it says changes by a known amount too (`training.stated_voices`): a network hears every voice
with many formants and many levels of breath, and cannot learn by heart which voice has which.

The spectral envelope (the vocal tract) is moved along frequency in the short-time spectrum, which
keeps every phase; breath is noise of that envelope, absent at low frequencies. Sources: true
envelope, Röbel and Rodet, DAFx 2005; moved for training, Jaitly and Hinton, "Vocal tract length
perturbation", ICML workshop 2013.

Letters: B batch, C of it changed, T samples, F frames, K frequencies, Q quefrencies.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from training.configuration import Augmentation
from training.data import SAMPLING_RATE

FFT_SIZE = 1024  # samples, 64 ms: resolves the harmonics of a deep voice
HOP = 256  # samples
SMOOTHEST = 0.0025  # s of quefrency that an envelope keeps: below a high voice's period
ENVELOPE_ITERATIONS = 5
GAIN_LIMIT = 2.3  # of the logarithm, 20 dB: silence is not blown up
BREATH_LEVEL = 0.4  # noise over a harmonic's peak at a breath of 1
BREATH_BAND = (600.0, 2500.0)  # Hz; aspiration is absent below the first, full above the second


@dataclass(frozen=True)
class VoiceChanges:
    """How the clips of a batch differ from their recordings.

    Attributes:
        speed: (B,) of playing over recording; pitch, formants and rate follow it.
        formants: (B,) frequencies over those of the recording, beside what speed does.
        breath: (B,) added aspiration noise; 1 is clearly heard.
    """

    speed: np.ndarray
    formants: np.ndarray
    breath: np.ndarray

    @classmethod
    def none(cls, batch: int) -> "VoiceChanges":
        """Those of clips as they were recorded."""
        return cls(np.ones(batch), np.ones(batch), np.zeros(batch))

    @property
    def are_of_timbre(self) -> np.ndarray:
        """(B,) whether more than the speed is changed."""
        return (self.formants != 1) | (self.breath != 0)


def draw_changes(config: Augmentation | None, batch: int, rng: np.random.Generator) -> VoiceChanges:
    """Draws changes for a batch; none are drawn of what the configuration leaves as it is."""
    none = VoiceChanges.none(batch)
    if config is None:
        return none
    speed = 1 + rng.uniform(-config.speed, config.speed, batch)
    if not (config.formants or config.breath):
        return replace(none, speed=speed)
    changed = rng.random(batch) < config.changed
    formants = 1 + rng.uniform(-config.formants, config.formants, batch)
    breath = rng.uniform(0, config.breath, batch)
    return VoiceChanges(speed, np.where(changed, formants, 1), np.where(changed, breath, 0))


def change_timbres(speech: Tensor, changes: VoiceChanges, generator: torch.Generator) -> Tensor:
    """Moves the formants of clips, and adds breath.

    Args:
        speech: (B, T) float32 at 16 kHz, at the changed speed already.
        changes: what to change; clips without a change of timbre stay as they are.
        generator: source of the noise.

    Returns:
        (B, T) float32; each clip at the level that it had.
    """
    rows = torch.from_numpy(np.flatnonzero(changes.are_of_timbre))
    if not len(rows):
        return speech
    formants = torch.from_numpy(changes.formants)[rows].float()  # (C,)
    breath = torch.from_numpy(changes.breath)[rows].float()
    before = speech[rows]  # (C, T)
    window = torch.hann_window(FFT_SIZE)

    def frames_of(signal: Tensor) -> Tensor:  # (C, T) to (C, F, K) complex
        frames = torch.stft(signal, FFT_SIZE, HOP, window=window, return_complex=True)
        return frames.transpose(1, 2)

    spectrum = frames_of(before)
    envelope = _true_envelope(spectrum)  # (C, F, K)
    moved = _moved(envelope, formants)
    shaped = spectrum * (moved - envelope).clamp(-GAIN_LIMIT, GAIN_LIMIT).exp()
    noise = frames_of(torch.randn(before.shape, generator=generator)) / window.norm()
    frequency = torch.linspace(0, SAMPLING_RATE / 2, spectrum.shape[-1])
    low, high = BREATH_BAND
    rise = ((frequency - low) / (high - low)).clamp(0, 1)  # (K,)
    shaped = shaped + noise * moved.exp() * rise * (BREATH_LEVEL * breath)[:, None, None]
    after = torch.istft(
        shaped.transpose(1, 2), FFT_SIZE, HOP, window=window, length=speech.shape[1]
    )
    level = before.norm(dim=1, keepdim=True) / after.norm(dim=1, keepdim=True).clamp_min(1e-5)
    return speech.index_copy(0, rows, after * level)


def _true_envelope(spectrum: Tensor) -> Tensor:
    """Smooth logarithms through the tops of the harmonics, (C, F, K), by repeated liftering."""
    analyse, synthesise = _lifter(spectrum.shape[-1])
    logarithm = (spectrum.abs() + 1e-5).log()
    envelope = logarithm
    for _ in range(ENVELOPE_ITERATIONS):
        envelope = torch.maximum(logarithm, envelope) @ analyse @ synthesise
    return envelope


@cache
def _lifter(bins: int) -> tuple[Tensor, Tensor]:
    """(K, Q) and (Q, K): a spectrum's real cepstrum up to `SMOOTHEST`, and back from there."""
    quefrencies = torch.arange(int(SMOOTHEST * SAMPLING_RATE) + 1)
    cosines = torch.cos(math.pi * torch.outer(torch.arange(bins), quefrencies) / (bins - 1))
    ends = torch.ones(bins).index_fill(0, torch.tensor([0, bins - 1]), 0.5)
    analyse = ends[:, None] * cosines / (bins - 1)
    both_sides = torch.where(quefrencies == 0, 1.0, 2.0)
    return analyse, (cosines * both_sides).T


def _moved(envelope: Tensor, formants: Tensor) -> Tensor:
    """Envelopes (C, F, K) whose frequencies are multiplied by `formants`, (C,)."""
    last = envelope.shape[-1] - 1
    source = (torch.arange(last + 1) / formants[:, None]).clamp(max=last)  # (C, K)
    below = source.long().clamp(max=last - 1)
    share = (source - below)[:, None]
    below = below[:, None].expand_as(envelope)
    left, right = envelope.gather(2, below), envelope.gather(2, below + 1)
    return left + share * (right - left)
