"""Speech is found where it is, in pieces of 1 to 10 s; music and noise are none."""

from pathlib import Path

import numpy as np
import pytest

from dataset_scripts.records import SAMPLING_RATE
from dataset_scripts.speech_segments import find_speech

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    import soundfile

    paths = sorted((ROOT / "samples").glob("*.flac"))
    return [soundfile.read(path, dtype="float32")[0] for path in paths]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLING_RATE), np.float32)


def music(seconds: float) -> np.ndarray:
    """Chords of plucked strings over a beat."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    sound = np.zeros_like(time)
    for beat in np.arange(0, seconds, 0.5):
        since = np.maximum(time - beat, 0)
        struck = (time >= beat) * np.exp(-4 * since)
        for pitch in rng.choice((196, 220, 262, 294, 330, 392), 3, replace=False):
            for overtone in range(1, 6):
                sound += struck * np.sin(2 * np.pi * pitch * overtone * since) / overtone
        sound += (time >= beat) * np.exp(-60 * since) * rng.standard_normal(len(time))
    return (0.2 * sound / np.abs(sound).max()).astype(np.float32)


def test_speech_between_silences_is_found_where_it_is(recordings):
    speech = recordings[0][: 6 * SAMPLING_RATE]
    found = find_speech(np.concatenate([silence(2), speech, silence(3)]))
    alone = find_speech(speech)
    assert found and len(found) == len(alone)
    for segment, same in zip(found, alone, strict=True):
        assert segment.start_s == pytest.approx(2 + same.start_s, abs=0.2)
        assert segment.end_s == pytest.approx(2 + same.end_s, abs=0.2)
    assert found[0].start_s > 1.9 and found[-1].end_s < 8.2


def test_segments_are_of_one_to_ten_seconds_and_do_not_overlap(recordings):
    waveform = np.concatenate([*recordings, *recordings])
    for max_pause_s in (0.1, 0.3, 5.0):
        segments = find_speech(waveform, max_pause_s)
        lengths = [segment.end_s - segment.start_s for segment in segments]
        assert min(lengths) >= 1 and max(lengths) <= 10
        assert all(0 < segment.speech_ratio <= 1 for segment in segments)
        edges = [edge for segment in segments for edge in (segment.start_s, segment.end_s)]
        assert edges == sorted(edges)
        assert 0 <= edges[0] and edges[-1] <= len(waveform) / SAMPLING_RATE


def test_long_speech_is_cut_where_it_is_weakest(recordings):
    spoken = recordings[0][round(3.5 * SAMPLING_RATE) : round(6.3 * SAMPLING_RATE)]
    twice = np.concatenate([spoken, spoken])
    segments = find_speech(np.concatenate([twice, silence(0.16), twice]), max_pause_s=5.0)
    assert len(segments) == 2
    assert segments[0].end_s == pytest.approx(5.68, abs=0.15)
    assert segments[1].start_s == pytest.approx(5.68, abs=0.15)


def test_a_pause_parts_two_sentences(recordings):
    sentence = recordings[0][round(3.5 * SAMPLING_RATE) : round(6.3 * SAMPLING_RATE)]
    parted = np.concatenate([sentence, silence(1), sentence])
    segments = find_speech(parted)
    assert len(segments) == 2
    assert segments[0].end_s < 3.2 and segments[1].start_s > 3.4
    pauses = find_speech(parted, max_pause_s=2.0)
    assert len(pauses) == 1 and pauses[0].speech_ratio < segments[0].speech_ratio


def test_music_noise_and_silence_are_no_speech():
    rng = np.random.default_rng(0)
    time = np.arange(6 * SAMPLING_RATE) / SAMPLING_RATE
    hiss = rng.normal(0, 0.1, len(time))
    beating = hiss * (1 + np.sin(2 * np.pi * 4 * time))  # as fast as syllables
    rumble = np.cumsum(hiss) / 50
    for sound in (hiss, beating, rumble, music(6), silence(6)):
        assert find_speech(np.asarray(sound, np.float32)) == []


def test_speech_that_nobody_could_hear_is_none(recordings):
    assert find_speech(1e-6 * recordings[0]) == []


def test_what_is_too_short_is_no_segment(recordings):
    assert find_speech(recordings[0][: SAMPLING_RATE // 2]) == []
    assert find_speech(silence(0)) == []


def test_what_is_no_waveform_is_refused():
    with pytest.raises(ValueError, match="waveform"):
        find_speech(np.zeros((2, 16000), np.float32))
    with pytest.raises(ValueError, match="finite"):
        find_speech(np.full(16000, np.nan, np.float32))
