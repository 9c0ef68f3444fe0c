"""A voice without a speaker: pulses through a tube, loud and soft in turn as syllables are."""

from pathlib import Path

import numpy as np

from dataset_scripts.synthetic_cast.voices import BaseVoice

SAMPLING_RATE = 16000  # Hz


def speak(
    pitch_hz: float,
    formant_spacing_hz: float = 1000.0,
    seconds: float = 2.0,
    seed: int = 0,
    vibrato: float = 0.03,
) -> np.ndarray:
    """Makes (samples,) float32 at 16 kHz with this median pitch and this spacing of formants."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    pitch = pitch_hz * (1 + vibrato * np.sin(2 * np.pi * 0.7 * time))
    phase = np.cumsum(pitch) / SAMPLING_RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    signal = lfilter([1], [1, -0.97], pulses) + 0.001 * rng.standard_normal(len(time))
    for k in range(1, 8):
        frequency = (k - 0.5) * formant_spacing_hz
        if frequency < 0.48 * SAMPLING_RATE:
            radius = np.exp(-np.pi * (60 + 15 * k) / SAMPLING_RATE)
            angle = 2 * np.pi * frequency / SAMPLING_RATE
            signal = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], signal)
    signal = signal - signal.mean()
    signal = signal * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * time))
    return (0.3 * signal / np.abs(signal).max()).astype(np.float32)


def write_base_voices(folder: Path) -> list[BaseVoice]:
    """Writes two utterances of a woman and of a man for each split, and says whose they are."""
    import soundfile

    voices = []
    for split in ("train", "validation", "test"):
        for gender, pitch, spacing in (("female", 205.0, 1180.0), ("male", 115.0, 1010.0)):
            files = []
            for k in range(2):
                files.append(folder / f"{split}-{gender}-{k}.flac")
                soundfile.write(files[k], speak(pitch, spacing, 4.0, seed=k), SAMPLING_RATE)
            name = f"pulses/{split}-{gender}"
            voice = BaseVoice(name, split, gender, True, pitch, spacing, tuple(files), "CC0-1.0")
            voices.append(voice)
    return voices
