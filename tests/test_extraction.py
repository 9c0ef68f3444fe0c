import io
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from dataset_scripts import extraction
from dataset_scripts.extraction import ExtractionConfig, extract_pairs, perceptual_hash
from dataset_scripts.face_tracks import TrackingConfig
from dataset_scripts.faces import get_recogniser
from dataset_scripts.pair_table import open_picture, pair_features
from dataset_scripts.records import REASONS, SourceVideo, VideoRefused
from dataset_scripts.step_clock import StepClock
from dataset_scripts.units import Unit, read_unit, write_unit
from dataset_scripts.video import Limits
from modeling_speech2face import load_audio
from tests.drawn_face import draw_face, empty_scene, mouth_of
from tests.film_files import tone, write_video

SCENE = empty_scene()
SECONDS = 5.0


@pytest.fixture(scope="module")
def speech(sample_recording) -> np.ndarray:
    return load_audio(sample_recording)[: round(SECONDS * 16000)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("films")


def head(k: int, x: float = 160) -> tuple[float, float]:
    return x + 6 * np.sin(k / 17), 120 + 3 * np.sin(k / 11)


def speaking(mouth: np.ndarray, **drawn) -> list[np.ndarray]:
    """A face whose mouth opens so far in each picture."""
    return [draw_face(SCENE, head(k), opening=o, **drawn) for k, o in enumerate(mouth)]


@pytest.fixture(scope="module")
def pictures(speech) -> list[np.ndarray]:
    return speaking(mouth_of(speech, round(SECONDS * 25)))


@pytest.fixture(scope="module")
def film(folder, pictures, speech) -> Path:
    """A face that speaks what is heard."""
    return write_video(folder / "film.mkv", pictures, sounds=[speech])


def extract(path: Path, config: ExtractionConfig | None = None, **source):
    video = SourceVideo("films/one", path, "folder", "CC0-1.0", **source)
    result = extract_pairs(video, config)
    for refusal in result.refusals:
        assert refusal.reason in REASONS and refusal.video_id == "films/one"
        assert refusal.detail and "\n" not in refusal.detail
        assert refusal.reason != "failed", refusal.detail
    return result


def reasons(result) -> set[str]:
    assert result.pairs == []
    return {refusal.reason for refusal in result.refusals}


def test_who_is_seen_speaking_becomes_pairs(film, speech):
    result = extract(film, speaker_id="anna", gender="female", age=30.0, language="en")
    assert result.pairs
    assert result.duration_s == pytest.approx(SECONDS, abs=0.05)
    assert len(result.fingerprint) >= 4 and all(0 <= h < 1 << 64 for h in result.fingerprint)
    columns = set(pair_features(128)) - {"speaker_id", "speaker_source"}
    recogniser = get_recogniser("dlib")
    for pair in result.pairs:
        assert set(pair) == columns | {"track", "track_embedding"}
        assert pair["track"] == 0  # one face throughout
        start, end = pair["start_s"], pair["end_s"]
        assert 0 <= start < end <= SECONDS and 1 <= end - start <= 10
        assert start - 0.5 <= pair["face_time_s"] <= end + 0.5
        assert pair["face_position"] == pytest.approx((0.5, 0.5), abs=0.1)
        assert pair["gender"] == "female" and pair["source"] == "folder"
        assert pair["sync_score"] > 2
        assert 0.8 < pair["frontality"] <= 1 and pair["sharpness"] > 2
        assert pair["face_size_px"] == pytest.approx(110, abs=30)
        picture = np.array(open_picture(pair["face"]["bytes"]))
        assert picture.shape == (224, 224, 3)
        again = recogniser.embed(picture[None])[0]
        assert np.linalg.norm(again - pair["face_embedding"]) < 0.1
        assert np.shape(pair["track_embedding"]) == (128,)
        clip = load_audio(pair["audio"]["bytes"])
        expected = speech[round(start * 16000) : round(end * 16000)]
        assert len(clip) == round((end - start) * 16000)
        np.testing.assert_allclose(clip[: len(expected)], expected, atol=2e-3)
    assert len({pair["pair_id"] for pair in result.pairs}) == len(result.pairs)


def test_the_same_video_gives_the_same_bytes(film):
    first, second = extract(film), extract(film)
    assert repr(asdict(first)) == repr(asdict(second))


def test_the_number_of_threads_changes_nothing(film):
    import cv2
    import torch

    found, before = [], (torch.get_num_threads(), cv2.getNumThreads())
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            found.append(repr(asdict(extract(film))))
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (threads, threads)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    assert found[0] == found[1]


def test_pairs_fit_the_columns_of_the_data_set(film, tmp_path):
    result = extract(film, speaker_id="anna")
    unit = Unit(SourceVideo("films/one", film, "folder", "CC0-1.0"), tmp_path / "unit.parquet")
    write_unit(unit, result, 128)
    again = read_unit(unit.file, ["pair_id"])
    assert [p["pair_id"] for p in again.pairs] == [p["pair_id"] for p in result.pairs]
    assert again.fingerprint == result.fingerprint


def test_a_stretch_gives_times_of_the_whole_file(film):
    whole = extract(film)
    part = extract(film, start_s=0.6, end_s=4.8)
    assert part.pairs and part.duration_s == pytest.approx(4.2, abs=0.05)
    for pair in part.pairs:
        assert 0.6 <= pair["start_s"] < pair["end_s"] <= 4.8
        assert 0.5 <= pair["face_time_s"] <= 4.8
    assert {p["pair_id"] for p in part.pairs} != {p["pair_id"] for p in whole.pairs}


@pytest.mark.parametrize(
    ("container", "options"),
    [
        (".mp4", {"audio_codec": "aac"}),
        (".avi", {"rate": 16000}),
        (".mov", {"rotation": 180}),
    ],
)
def test_other_containers_give_the_same_pairs(folder, pictures, speech, film, container, options):
    if options.get("rotation"):
        pictures = [picture[::-1, ::-1] for picture in pictures]
    other = write_video(folder / f"other{container}", pictures, sounds=[speech], **options)
    expected = [(p["start_s"], p["end_s"]) for p in extract(film).pairs]
    found = [(p["start_s"], p["end_s"]) for p in extract(other).pairs]
    assert found == pytest.approx(np.array(expected), abs=0.2)


def test_a_closed_mouth_speaks_for_nobody(folder, pictures, speech):
    still = write_video(folder / "still.mkv", speaking(np.full(125, 0.2)), sounds=[speech])
    assert reasons(extract(still)) == {"not_in_sync"}


def test_another_voice_over_the_mouth(folder, pictures, speech):
    other = speech[::-1].copy()
    dubbed = write_video(folder / "dubbed.mkv", pictures, sounds=[other])
    assert reasons(extract(dubbed)) <= {"not_in_sync", "no_speech"}


def test_of_two_faces_the_one_that_speaks(folder, speech):
    mouth = mouth_of(speech, round(SECONDS * 25))
    silent = np.full(len(mouth), 0.1)
    pictures = [
        draw_face(
            draw_face(SCENE, head(k, 90), 95, opening=silent[k], tone=110, hair=120),
            head(k + 40, 235),
            95,
            opening=mouth[k],
        )
        for k in range(len(mouth))
    ]
    film = write_video(folder / "two.mkv", pictures, sounds=[speech])
    pairs = extract(film).pairs
    assert pairs
    assert all(p["face_position"][0] == pytest.approx(235 / 320, abs=0.05) for p in pairs)
    # Where the source says that the other one speaks, there is nobody who does.
    assert reasons(extract(film, face_position=(90 / 320, 0.5))) == {"not_in_sync"}
    assert extract(film, face_position=(235 / 320, 0.5)).pairs
    assert reasons(extract(film, face_position=(0.5, 0.05))) == {"no_face"}


def test_a_cut_to_somebody_else_ends_a_pair(folder, speech):
    """The first half shows who speaks, the second an empty room."""
    mouth = mouth_of(speech, round(SECONDS * 25))
    room = np.roll(SCENE, 80, axis=1)[::-1]
    pictures = speaking(mouth[:80]) + [room] * (len(mouth) - 80)
    result = extract(write_video(folder / "cut.mkv", pictures, sounds=[speech]))
    assert result.pairs
    assert max(pair["end_s"] for pair in result.pairs) <= 80 / 25
    assert "no_face" in {refusal.reason for refusal in result.refusals}


@pytest.mark.parametrize(
    ("drawn", "config", "reason"),
    [
        ({"turn": 1.3}, ExtractionConfig(min_frontality=0.95), "not_frontal"),
        ({}, ExtractionConfig(min_sharpness=1e5), "blurred"),
        ({}, ExtractionConfig(min_contrast=0.99), "badly_lit"),
        ({}, ExtractionConfig(min_face_px=200), "face_too_small"),
        ({}, ExtractionConfig(min_pictures_per_second=26), "not_in_sync"),
        ({}, ExtractionConfig(tracking=TrackingConfig(min_score=9)), "no_face"),
        ({}, ExtractionConfig(limits=Limits(max_duration_s=3)), "too_long"),
        ({}, ExtractionConfig(limits=Limits(max_pixels=50_000)), "too_large"),
        ({}, ExtractionConfig(limits=Limits(max_seconds_of_work=0)), "too_slow"),
        ({}, ExtractionConfig(audio_stream=3), "no_audio"),
    ],
)
def test_what_is_not_good_enough_is_refused(folder, speech, film, drawn, config, reason):
    if drawn:
        mouth = mouth_of(speech, round(SECONDS * 25))
        film = write_video(folder / "drawn.mkv", speaking(mouth, **drawn), sounds=[speech])
    assert reasons(extract(film, config)) == {reason}


def test_slow_pictures_show_no_mouth(folder, pictures, speech):
    film = write_video(folder / "slow.mkv", pictures[::25], fps=1, sounds=[speech])
    result = extract(film)
    assert reasons(result) <= {"not_in_sync", "no_face"}
    assert any("pictures a second" in refusal.detail for refusal in result.refusals)


def test_fast_pictures_are_as_good(folder, pictures, speech):
    fast = [picture for picture in pictures for _ in range(4)]
    assert extract(write_video(folder / "fast.mkv", fast, fps=100, sounds=[speech])).pairs


def test_sound_that_is_no_speech(folder, pictures):
    silent = write_video(folder / "silent.mkv", pictures[:50], sounds=[np.zeros(32000)])
    assert reasons(extract(silent)) == {"silent"}
    humming = write_video(folder / "hum.mkv", pictures[:50], sounds=[tone(2)])
    assert reasons(extract(humming)) == {"no_speech"}


def test_a_silent_stream_of_sound_is_passed_over(folder, pictures, speech):
    sounds = [np.zeros_like(speech), speech]
    film = write_video(folder / "streams.mkv", pictures, sounds=sounds)
    assert extract(film).pairs
    assert reasons(extract(film, ExtractionConfig(audio_stream=0))) == {"silent"}
    assert extract(film, ExtractionConfig(audio_stream=1)).pairs


def test_late_sound_is_still_in_step(folder, pictures, speech):
    film = write_video(folder / "late.mkv", pictures, sounds=[speech[8000:]], sound_start_s=0.5)
    pairs = extract(film).pairs
    assert pairs
    for pair in pairs:
        clip = load_audio(pair["audio"]["bytes"])
        start = round(pair["start_s"] * 16000)
        kept = slice(max(0, 8800 - start), None)
        np.testing.assert_allclose(clip[kept], speech[start : start + len(clip)][kept], atol=2e-3)


def test_pictures_that_end_early(folder, pictures, speech):
    film = write_video(folder / "early.mkv", pictures[:60], sounds=[speech])
    result = extract(film)
    assert all(pair["end_s"] <= 60 / 25 + 0.05 for pair in result.pairs)
    assert "no_face" in {refusal.reason for refusal in result.refusals}


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "cut.mp4", "folder", "missing", "pipe"])
def test_what_is_no_video_is_refused_whole(tmp_path, film, name):
    path = tmp_path / name
    if name == "empty.mp4":
        path.touch()
    elif name == "text.mp4":
        path.write_text("no video")
    elif name == "cut.mp4":
        path.write_bytes(film.read_bytes()[:200])
    elif name == "folder":
        path.mkdir()
    elif name == "pipe":
        os.mkfifo(path)
    result = extract(path)
    assert reasons(result) == {"unreadable"}
    (refusal,) = result.refusals
    assert refusal.start_s is None and refusal.end_s is None
    assert result.fingerprint == [] and result.duration_s == 0


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_never_stop_the_work(tmp_path, folder, film, seed):
    generator = np.random.default_rng(seed)
    content = bytearray(film.read_bytes())
    for place in generator.integers(0, len(content), 60):
        content[place] = generator.integers(256)
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(content)
    result = extract(damaged)
    assert result.pairs or result.refusals


def test_an_unforeseen_error_refuses_the_video_with_its_name(film, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("of course")

    monkeypatch.setattr(extraction, "find_speech", broken)
    result = extract_pairs(SourceVideo("v", film, "folder", "CC0-1.0"))
    (refusal,) = result.refusals
    assert refusal.reason == "failed" and refusal.detail == "ZeroDivisionError: of course"


def test_more_pairs_of_a_segment_show_other_pictures(film):
    one = extract(film).pairs
    several = extract(film, ExtractionConfig(max_pairs_per_segment=3)).pairs
    assert len(several) > len(one)
    assert {p["pair_id"] for p in one} <= {p["pair_id"] for p in several}
    assert len({p["pair_id"] for p in several}) == len(several)
    by_segment = {}
    for pair in several:
        by_segment.setdefault(pair["start_s"], []).append(pair["face_time_s"])
    assert all(len(set(times)) == len(times) for times in by_segment.values())


def test_a_person_who_turns_away_is_known_from_another_segment(folder, speech):
    """While the second sentence is spoken, the face is not frontal: an earlier picture serves."""
    twice = np.concatenate([speech[:48000], np.zeros(16000, np.float32), speech[:48000]])
    mouth = mouth_of(twice, 175)
    pictures = [
        draw_face(SCENE, head(k), opening=o, turn=0.0 if k < 90 else 1.3)
        for k, o in enumerate(mouth)
    ]
    film = write_video(folder / "turns.mkv", pictures, sounds=[twice])
    config = ExtractionConfig(min_frontality=0.93, max_same_face_distance=0.6)
    pairs = extract(film, config).pairs
    late = [pair for pair in pairs if pair["start_s"] > 3.9]
    assert late and all(pair["face_time_s"] < 3.9 for pair in late)
    assert all(pair["frontality"] >= 0.93 for pair in pairs)
    near = replace(config, max_face_time_apart_s=0.0)
    assert not [pair for pair in extract(film, near).pairs if pair["start_s"] > 3.9]


def test_the_steps_are_counted(film):
    clock = StepClock()
    extract_pairs(SourceVideo("v", film, "folder", "CC0-1.0"), clock=clock)
    expected = {"decode", "detect", "shots", "landmarks", "mouths", "speech", "sound"}
    expected |= {"embed", "best frames", "synchrony", "pairs", "probe"}
    assert expected <= set(clock.seconds)
    assert all(seconds >= 0 for seconds in clock.seconds.values())
    assert clock.counts["detect"] >= clock.counts["decode"] // 10


def test_steps_within_steps_count_once():
    import time

    def burn(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    clock = StepClock()

    def things():
        for _ in range(3):
            burn(0.01)
            yield 0

    with clock.step("outer"):
        burn(0.02)
        for _ in clock.each("things", things()):
            burn(0.01)
    assert clock.seconds["things"] == pytest.approx(0.03, abs=0.015)
    assert clock.seconds["outer"] == pytest.approx(0.05, abs=0.015)
    assert clock.counts == {"outer": 1, "things": 4}


def test_the_hash_survives_compression_and_tells_scenes_apart():
    from PIL import Image

    def hash_of(picture: np.ndarray) -> int:
        return perceptual_hash(np.array(Image.fromarray(picture).resize((9, 8), Image.BOX)))

    def differing(one: int, other: int) -> int:
        return (one ^ other).bit_count()

    picture = draw_face(SCENE)
    file = io.BytesIO()
    Image.fromarray(picture).resize((160, 120)).save(file, "JPEG", quality=30)
    changed = np.array(Image.open(file))
    assert differing(hash_of(picture), hash_of(changed)) <= 6
    assert differing(hash_of(picture), hash_of((picture * 0.8).astype(np.uint8))) <= 6
    assert differing(hash_of(picture), hash_of(empty_scene(seed=9))) > 16


def test_refusals_of_videos_name_a_reason_that_exists():
    with pytest.raises(KeyError):
        VideoRefused("no such reason")
