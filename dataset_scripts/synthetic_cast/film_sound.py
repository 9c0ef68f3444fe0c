"""Sounds that are no speech, for films: music with chords, drums and a melody; noises."""

import numpy as np

SAMPLING_RATE = 16000  # Hz
SCALE = (0, 2, 4, 5, 7, 9, 11)  # semitones of the major scale
CHORDS = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (9, 12, 16), (2, 5, 9))


def compose_music(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Makes music without a voice: chords, bass, drums and a plucked melody.

    Args:
        seconds: its length.
        rng: composes.

    Returns:
        (samples,) float32 at 16 kHz, peak about 0.5.
    """
    count = round(seconds * SAMPLING_RATE)
    out = np.zeros(count + SAMPLING_RATE * 2)
    beat_s = 60 / rng.uniform(70, 140)
    root = rng.uniform(110, 220)  # Hz
    partials = rng.uniform(0.1, 0.8, 5) ** np.arange(1, 6)
    has_drums = rng.random() < 0.8
    melody_step = int(rng.integers(7))
    for bar in range(int(seconds / (4 * beat_s)) + 1):
        start_s = bar * 4 * beat_s
        chord = CHORDS[rng.integers(len(CHORDS))]
        for semitone in chord:
            pitch = root * 2 ** (semitone / 12)
            _add(out, start_s, 0.10 * _tone(pitch, 4 * beat_s, partials, 0.05, 4 * beat_s))
        _add(
            out,
            start_s,
            0.22 * _tone(root / 2 * 2 ** (chord[0] / 12), 2 * beat_s, partials, 0.01, beat_s),
        )
        for step in range(8):
            at_s = start_s + step * beat_s / 2
            if rng.random() < 0.7:
                melody_step = int(np.clip(melody_step + rng.integers(-2, 3), 0, 13))
                semitone = SCALE[melody_step % 7] + 12 * (melody_step // 7)
                pitch = 2 * root * 2 ** (semitone / 12)
                _add(out, at_s, 0.16 * _tone(pitch, beat_s, partials, 0.005, 0.35 * beat_s))
            if has_drums:
                _add(out, at_s, _hit(rng, 6000, 0.04, 0.05))
                if step % 4 == 0:
                    _add(out, at_s, 0.4 * _kick())
                elif step % 4 == 2:
                    _add(out, at_s, _hit(rng, 1800, 0.12, 0.22))
    out = out[:count]
    return (0.5 * out / max(np.abs(out).max(), 1e-6)).astype(np.float32)


def make_noise(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Makes a room's noise: coloured, swelling, with knocks.

    Args:
        seconds: its length.
        rng: of the noise.

    Returns:
        (samples,) float32 at 16 kHz, peak about 0.5.
    """
    count = round(seconds * SAMPLING_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / SAMPLING_RATE)
    spectrum *= 1 / np.maximum(frequency, 40) ** rng.uniform(0.2, 1.0)
    noise = np.fft.irfft(spectrum, count)
    noise /= noise.std()
    time = np.arange(count) / SAMPLING_RATE
    swell = 1 + 0.5 * np.sin(2 * np.pi * time * rng.uniform(0.1, 0.6) + rng.uniform(0, 6))
    out = noise * swell
    for _ in range(rng.poisson(seconds * 0.5)):
        _add(out, rng.uniform(0, max(seconds - 0.3, 0)), 12 * _hit(rng, 700, 0.05, 0.5))
    return (0.5 * out / np.abs(out).max()).astype(np.float32)


def _add(out: np.ndarray, start_s: float, sound: np.ndarray) -> None:
    start = round(start_s * SAMPLING_RATE)
    sound = sound[: max(0, len(out) - start)]
    out[start : start + len(sound)] += sound


def _tone(pitch_hz, seconds, partials, attack_s, decay_s) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    wave = sum(
        share * np.sin(2 * np.pi * pitch_hz * (k + 1) * time)
        for k, share in enumerate(partials)
        if pitch_hz * (k + 1) < 7500
    )
    return wave * np.minimum(1, time / attack_s) * np.exp(-time / decay_s)


def _hit(rng: np.random.Generator, high_pass_hz: float, decay_s: float, level: float) -> np.ndarray:
    time = np.arange(round(6 * decay_s * SAMPLING_RATE)) / SAMPLING_RATE
    noise = rng.standard_normal(len(time))
    spectrum = np.fft.rfft(noise)
    frequency = np.fft.rfftfreq(len(noise), 1 / SAMPLING_RATE)
    spectrum[frequency < high_pass_hz] = 0
    return level * np.fft.irfft(spectrum, len(noise)) * np.exp(-time / decay_s)


def _kick() -> np.ndarray:
    time = np.arange(round(0.25 * SAMPLING_RATE)) / SAMPLING_RATE
    return np.sin(2 * np.pi * (50 * time - 20 * np.exp(-time / 0.03) * 0.03)) * np.exp(-time / 0.08)
