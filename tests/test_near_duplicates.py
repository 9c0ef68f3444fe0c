"""The same recording is found in any coding and length; the same room and person are not enough."""

import io
from pathlib import Path

import numpy as np
import pytest

from dataset_scripts.near_duplicates import STEPS_PER_SECOND, find_duplicates, fingerprint
from modeling_speech2face import load_audio

ROOT = Path(__file__).resolve().parent.parent


def recode(speech: np.ndarray, codec: str, rate: int, bit_rate: int, container: str) -> np.ndarray:
    """Speech after a lossy codec at another sampling rate."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono", bit_rate=bit_rate)
        frame = av.AudioFrame.from_ndarray(speech[None], format="flt", layout="mono")
        frame.sample_rate = 16000
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return load_audio(file.getvalue())


def pictures(seconds: int, seed: int = 0) -> np.ndarray:
    """(seconds,) uint64: a room, and a head in it that moves a little."""
    rng = np.random.default_rng(seed)
    room = rng.integers(0, 2**63, dtype=np.uint64)
    return flip(np.full(seconds, room), 3, seed)


def flip(hashes: np.ndarray, bits: int, seed: int) -> np.ndarray:
    """The hashes with so many bits changed in each."""
    rng = np.random.default_rng(seed)
    masks = [
        np.bitwise_or.reduce(np.uint64(1) << rng.choice(64, bits, False).astype(np.uint64))
        for _ in hashes
    ]
    return hashes ^ np.array(masks, np.uint64)


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    return [load_audio(path) for path in sorted((ROOT / "samples").glob("*.flac"))]


def seconds_of(speech: np.ndarray) -> int:
    return len(speech) // 16000 + 1


@pytest.mark.parametrize(
    "coding",
    [
        ("aac", 44100, 48000, "adts"),
        ("libopus", 48000, 24000, "ogg"),
        ("libmp3lame", 22050, 32000, "mp3"),
    ],
    ids=lambda coding: coding[0],
)
@pytest.mark.parametrize("trim_s", [0.0, 0.337, 1.51])
def test_another_coding_and_length_is_the_same_recording(recordings, coding, trim_s):
    for speech in recordings:
        room = pictures(seconds_of(speech))
        part = speech[round(trim_s * 16000) : len(speech) - round(trim_s * 4000)]
        recoded = recode(part * 0.4, *coding)  # softer, too
        seen = flip(room[round(trim_s) :], 6, seed=1)
        found = find_duplicates({"a": fingerprint(room, speech), "b": fingerprint(seen, recoded)})
        assert found == {"b": "a"} or (trim_s < 1 and found == {"a": "b"})  # codecs pad the ends


def test_the_same_room_and_person_is_another_recording(recordings):
    room = pictures(40)
    prints = {f"{k}": fingerprint(room, speech) for k, speech in enumerate(recordings)}
    halves = {
        f"{k}/{half}": fingerprint(room, part)
        for k, speech in enumerate(recordings)
        for half, part in enumerate(np.array_split(speech, 2))
    }
    assert find_duplicates(prints) == {} and find_duplicates(halves) == {}


def test_the_same_sound_over_other_pictures_is_another_film(recordings):
    speech = recordings[0]
    seconds = seconds_of(speech)
    here, there = (fingerprint(pictures(seconds, seed), speech) for seed in (0, 1))
    assert find_duplicates({"a": here, "b": there}) == {}
    assert find_duplicates({"a": here, "b": fingerprint([], speech)}) == {"b": "a"}


def test_a_short_part_in_common_is_not_enough(recordings):
    one, two = (speech[:80000] for speech in recordings)
    shared = one[:40000]
    prints = {
        "a": fingerprint([], np.concatenate([shared, one[40000:]])),
        "b": fingerprint([], np.concatenate([shared, two[40000:]])),
    }
    assert find_duplicates(prints) == {}


@pytest.mark.parametrize("kind", ["silence", "hum", "noise"])
def test_silence_hum_and_noise_are_no_recordings(kind):
    time = np.arange(160000) / 16000

    def sound(seed):
        rng = np.random.default_rng(seed)
        return {
            "silence": np.zeros(160000),
            "hum": 0.1 * np.sin(2 * np.pi * 50 * time) + 1e-4 * rng.normal(size=160000),
            "noise": 0.1 * rng.normal(size=160000),
        }[kind].astype(np.float32)

    black = np.zeros(10, np.uint64)
    prints = {f"{seed}": fingerprint(black, sound(seed)) for seed in range(4)}
    assert find_duplicates(prints) == {}


def test_the_first_of_many_is_kept(recordings):
    speech = recordings[0]
    prints = {name: fingerprint([], speech[offset:]) for offset, name in enumerate("dbca")}
    assert find_duplicates(prints) == {"b": "a", "c": "a", "d": "a"}


def test_the_whole_is_kept_and_not_its_excerpts(recordings):
    whole = np.concatenate(recordings)
    prints = {
        "a": fingerprint([], recordings[0][: len(recordings[0]) // 2]),
        "b": fingerprint([], recordings[0]),
        "c": fingerprint([], whole),
        "d": fingerprint([], recordings[1]),
    }
    assert find_duplicates(prints) == {"a": "c", "b": "c", "d": "c"}


def test_of_two_excerpts_that_hardly_overlap_both_are_kept(recordings):
    whole = np.concatenate(recordings)
    third = len(whole) // 3
    prints = {
        "a": fingerprint([], whole[: 2 * third - 8000]),
        "b": fingerprint([], whole[third + 8000 :]),
    }
    assert find_duplicates(prints) == {}


def test_what_is_too_short_or_missing_is_no_duplicate(recordings):
    speech = recordings[0]
    for sound in (speech[:0], speech[:100], speech[:16000]):
        numbers = fingerprint([1], sound)
        assert find_duplicates({"a": numbers, "b": numbers}) == {}
    assert find_duplicates({"a": [], "b": []}) == {} and find_duplicates({}) == {}


def test_a_fingerprint_is_small_and_made_of_64_bit_numbers(recordings):
    numbers = fingerprint(pictures(5), recordings[0][:80000])
    assert len(numbers) == 1 + 5 + 5 * STEPS_PER_SECOND // 4 + 1
    assert all(isinstance(number, int) and 0 <= number < 2**64 for number in numbers)
    assert numbers == fingerprint(pictures(5).tolist(), recordings[0][:80000])


def test_many_videos_are_compared_in_little_time(recordings):
    import time

    rng = np.random.default_rng(0)
    prints = {f"v{k:05}": [0, *rng.integers(0, 2**63, 60).tolist()] for k in range(2000)}
    prints |= {f"copy{k}": prints[f"v{k:05}"] for k in range(5)}
    started = time.process_time()
    found = find_duplicates(prints)
    assert time.process_time() - started < 10  # of 2 million pairs of videos, hardly any is tried
    assert found == {f"v{k:05}": f"copy{k}" for k in range(5)}
