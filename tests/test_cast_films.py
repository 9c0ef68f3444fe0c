"""Films of the cast: what is written can be read, follows from its seed, and the truth is true."""

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from dataset_scripts.faces import align_face, detect_faces, get_recogniser
from dataset_scripts.synthetic_cast import films
from dataset_scripts.synthetic_cast.__main__ import main
from dataset_scripts.synthetic_cast.film_motion import move_person
from dataset_scripts.synthetic_cast.film_script import (
    CONTROLS,
    KINDS,
    draw_encoding,
    draw_script,
    kind_of,
)
from dataset_scripts.synthetic_cast.film_sound import compose_music, make_noise
from dataset_scripts.synthetic_cast.film_writing import Encoding, write_film
from dataset_scripts.synthetic_cast.films import FilmsConfig, build_films, make_film
from modeling_speech2face import speech_probabilities
from tests.fake_speech import write_base_voices

SIZE = (160, 128)
H264 = Encoding(".mp4", "libx264", 23, "aac", 16000, 1, 64000)


@pytest.fixture(scope="module")
def base_voices(tmp_path_factory):
    return write_base_voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="module")
def renderer():
    try:
        return films._renderer()
    except RuntimeError as error:
        pytest.skip(f"no OpenGL here: {error}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


@pytest.fixture
def play(renderer, base_voices, folder):
    """Make a film of this kind, small and short; return its path and its truth."""

    def make(kind, index=0, seed=0, size=SIZE, duration_s=2.4, encoding=H264, **changes):
        script = draw_script(
            seed, index, 4, base_voices, kind=kind, size=size, duration_s=duration_s
        )
        plain = dict(encoding=encoding, rate=Fraction(25), is_variable=False)
        path = make_film(replace(script, **{**plain, **changes}), base_voices, folder)
        return path, json.loads(path.with_suffix(".json").read_text())

    return make


def pictures_of(path) -> tuple[list[np.ndarray], list[float]]:
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in frames], [f.time for f in frames]


def sound_of(path) -> tuple[np.ndarray, int]:
    """The first channel from time 0 on, and its sampling rate."""
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    rate = frames[0].sample_rate
    wave = np.concatenate([frame.to_ndarray().astype(np.float64)[0] for frame in frames])
    start = round(frames[0].time * rate)
    return (wave[-start:] if start < 0 else np.pad(wave, (start, 0))), rate


def level_between(path, start_s, end_s) -> float:
    wave, rate = sound_of(path)
    return float(np.sqrt((wave[int(start_s * rate) : int(end_s * rate)] ** 2).mean()))


def test_every_cycle_holds_every_kind_and_a_fifth_are_controls():
    for seed in (0, 1):
        kinds = [kind_of(seed, index) for index in range(2 * len(KINDS))]
        assert Counter(kinds[: len(KINDS)]) == Counter(kinds[len(KINDS) :]) == Counter(KINDS)
    assert kinds[: len(KINDS)] != kinds[len(KINDS) :]
    assert sum(kind in CONTROLS for kind in KINDS) / len(KINDS) > 0.2


def test_a_script_follows_from_seed_and_index_alone(base_voices):
    scripts = [draw_script(3, index, 4, base_voices) for index in range(6)]
    assert scripts[5] == draw_script(3, 5, 4, base_voices)
    assert len({script.shots for script in scripts}) == 6
    assert scripts[1].people[0] == scripts[5].people[0] != scripts[2].people[0]
    assert scripts[1].clothes != scripts[5].clothes
    assert (scripts[1].take, scripts[5].take) == (0, 1)


def test_who_is_held_out_is_in_films_of_the_held_out_alone(base_voices):
    scripts = [draw_script(0, k, 30, base_voices, kind="turns") for k in range(30)]
    couples = [[person.split for person in script.people] for script in scripts]
    alike = [one == other for one, other in couples]
    splits = [one for one, _ in couples]
    # But where a split has one person alone.
    assert all(same or splits.count(one) == 1 for same, one in zip(alike, splits, strict=True))
    assert len(set(splits)) > 1
    assert all(script.people[0] != script.people[1] for script in scripts)


def test_shots_follow_each_other_and_fill_the_film(base_voices):
    for index in range(50):
        script = draw_script(0, index, 4, base_voices)
        ends = [0.0, *(shot.end_s for shot in script.shots)]
        assert ends[-1] == script.duration_s
        assert [shot.start_s for shot in script.shots] == ends[:-1]
        people = {p.person for shot in script.shots for p in shot.placements}
        assert people <= set(range(len(script.people)))
        assert all(abs(p.x - 0.5) < 0.35 for shot in script.shots for p in shot.placements)


@pytest.mark.parametrize("seed", range(4))
def test_encodings_can_be_written_and_read(tmp_path, seed):
    encoding = draw_encoding(np.random.default_rng(seed))
    pictures = [np.full((64, 96, 3), 40 * k, np.uint8) for k in range(5)]
    times_s, sound = np.arange(5) / 25, np.zeros(3200, np.float32)
    path = tmp_path / f"film{encoding.suffix}"
    write_film(path, encoding, pictures, times_s, Fraction(25), sound)
    read, read_times_s = pictures_of(path)
    assert [round(float(p.mean()) / 40) for p in read] == list(range(5))
    np.testing.assert_allclose(read_times_s, times_s, atol=0.002)


@pytest.mark.parametrize(
    ("suffix", "video", "audio", "rate"),
    [
        (".mp4", "libx264", "aac", 44100),
        (".mp4", "mpeg4", "libmp3lame", 22050),
        (".mkv", "libx264", "libopus", 48000),
        (".webm", "libvpx-vp9", "libopus", 48000),
        (".avi", "mpeg4", "libmp3lame", 22050),
        (".avi", "mpeg4", "libmp3lame", 48000),
    ],
)
def test_a_flash_and_a_click_stay_together(tmp_path, suffix, video, audio, rate):
    pictures = [np.full((64, 96, 3), 230 if k in (12, 37) else 20, np.uint8) for k in range(50)]
    sound = np.random.default_rng(0).normal(0, 1e-4, 32000).astype(np.float32)
    sound[[round(12 / 25 * 16000), round(37 / 25 * 16000)]] = 0.9
    path = tmp_path / f"film{suffix}"
    encoding = Encoding(suffix, video, 5 if video == "mpeg4" else 30, audio, rate, 2, 96000)
    write_film(path, encoding, pictures, np.arange(50) / 25, Fraction(25), sound)
    read, times_s = pictures_of(path)
    flashes = [t for p, t in zip(read, times_s, strict=True) if p.mean() > 120]
    wave, rate = sound_of(path)
    clicks = [np.abs(wave[: int(1.2 * rate)]).argmax(), 0]
    clicks[1] = int(1.2 * rate) + np.abs(wave[int(1.2 * rate) :]).argmax()
    assert len(flashes) == 2
    np.testing.assert_allclose(np.array(clicks) / rate, flashes, atol=0.002)


def test_variable_frame_rate_keeps_its_times(tmp_path):
    times_s = np.array([0.0, 0.05, 0.081, 0.2, 0.241])
    pictures = [np.full((64, 96, 3), 40 * k, np.uint8) for k in range(5)]
    path = tmp_path / "film.mp4"
    write_film(path, H264, pictures, times_s, Fraction(25), np.zeros(4000, np.float32))
    np.testing.assert_allclose(pictures_of(path)[1], times_s, atol=0.0011)


def test_a_film_is_what_its_truth_says(play, base_voices):
    path, truth = play("plain")
    pictures, times_s = pictures_of(path)
    assert pictures[0].shape == (truth["height"], truth["width"], 3) == (128, 160, 3)
    assert times_s[1] - times_s[0] == pytest.approx(1 / truth["fps"], abs=1e-3)
    assert len(pictures) == int(2.4 * truth["fps"])
    expected = "film_id kind is_control fps width height people segments appearances offset_s"
    assert set(expected.split()) <= set(truth)
    (person,) = truth["people"]
    assert {"speaker_id", "split", "voice_id", "licence", "gender", "age"} <= set(person)
    assert {"traits", "voice_parameters"} <= set(person)
    assert person["licence"] == "CC0-1.0" and person["speaker_id"] == "cast-0-000000"
    assert any(segment["buildable"] for segment in truth["segments"])
    for segment in truth["segments"]:
        assert segment["speaker_id"] == person["speaker_id"] and segment["visible"]
        assert level_between(path, segment["start_s"] + 0.05, segment["end_s"] - 0.05) > 0.02
    before = truth["segments"][0]["start_s"]
    assert level_between(path, 0, before - 0.02) < 0.003


def test_the_face_is_where_the_truth_says(play):
    path, truth = play("plain", index=1, size=(256, 224))
    pictures, times_s = pictures_of(path)
    (appearance,) = truth["appearances"]
    found = 0
    for time_s, x, y, size_px, _ in appearance["path"]:
        faces = detect_faces(pictures[int(np.argmin(np.abs(np.array(times_s) - time_s)))])
        if faces:
            left, top, right, bottom = faces[0].box
            assert abs((left + right) / 2 - x * 256) < 0.25 * size_px
            assert abs((top + bottom) / 2 - y * 224) < 0.5 * size_px
            assert 0.75 < (right - left) / size_px < 1.4
            found += 1
    assert found >= 0.8 * len(appearance["path"])


def test_late_sound_is_late_by_what_the_truth_says(play):
    on_time, _ = play("sound_offset", index=8, offset_s=0.0)
    reference, rate = sound_of(on_time)
    path, truth = play("sound_offset", index=8, offset_s=0.1)
    wave, _ = sound_of(path)
    lag = int(0.1 * rate)
    n = min(len(wave), len(reference)) - lag
    assert np.corrcoef(wave[lag : lag + n], reference[:n])[0, 1] > 0.95
    assert truth["offset_s"] == 0.1


@pytest.mark.parametrize("kind", CONTROLS)
def test_nothing_can_be_built_of_a_control(play, kind):
    path, truth = play(kind, duration_s=2.1)
    assert truth["is_control"] and len(pictures_of(path)[0]) > 30
    assert not any(segment["buildable"] or segment["visible"] for segment in truth["segments"])
    speakers = {segment["speaker_id"] for segment in truth["segments"]}
    main_person = truth["people"][0]["speaker_id"]
    if kind == "static_jaw":
        assert speakers == {main_person}
    elif kind in ("dubbed", "off_screen"):
        assert len(speakers) == 1 and main_person not in speakers
        assert {a["speaker_id"] for a in truth["appearances"]} == {main_person}
    else:
        assert not speakers


def test_mouths_move_with_what_they_say_and_with_nothing_else(base_voices):
    voices = {voice.voice_id: voice for voice in base_voices}
    times_s = np.arange(0, 4, 0.04)

    def jaw_and_sound(kind):
        script = draw_script(0, 2, 4, base_voices, kind=kind, duration_s=4.0)
        heard, said, _ = films._speak(script, voices)
        return move_person(script, 0, said[0], times_s).actions, heard, said

    actions, heard, said = jaw_and_sound("plain")
    assert np.array_equal(heard[0], said[0]) and actions["jawOpen"].max() > 0.1
    actions, heard, said = jaw_and_sound("dubbed")
    assert not heard[0].any() and heard[1].any() and said[0].any()
    assert abs(np.corrcoef(heard[1], said[0])[0, 1]) < 0.2 and actions["jawOpen"].max() > 0.1
    actions, heard, said = jaw_and_sound("static_jaw")
    assert heard[0].any() and not any("jaw" in name or "mouth" in name for name in actions)
    actions, heard, said = jaw_and_sound("off_screen")
    assert not heard[0].any() and not said[0].any() and actions["jawOpen"].max() < 0.2
    actions, heard, said = jaw_and_sound("music")
    assert not np.any(heard) and said[0].any() and actions["jawOpen"].max() > 0.1


def test_a_picture_without_the_speaker_is_no_segment_to_build(play):
    path, truth = play("cuts", index=3, duration_s=5.0)
    main_person = truth["people"][0]["speaker_id"]
    seen = [a for a in truth["appearances"] if a["speaker_id"] == main_person]
    covered = sum(a["end_s"] - a["start_s"] for a in seen)
    assert covered < 0.8 * truth["duration_s"]
    for segment in truth["segments"]:
        middle = (segment["start_s"] + segment["end_s"]) / 2
        is_seen = any(a["start_s"] <= middle < a["end_s"] for a in seen)
        assert segment["visible"] == is_seen
    assert {segment["visible"] for segment in truth["segments"]} == {True, False}


def test_a_head_turned_away_for_the_whole_film_is_no_segment_to_build(play):
    _, truth = play("turned_away", index=4)
    assert truth["segments"] and all(segment["visible"] for segment in truth["segments"])
    assert not any(segment["buildable"] for segment in truth["segments"])
    assert all(abs(point[4]) > 25 for a in truth["appearances"] for point in a["path"])


def test_two_people_are_seen_beside_each_other_and_speak_in_turn(play):
    path, truth = play("silent_second", index=5, size=(398, 224), duration_s=2.2)
    pictures, _ = pictures_of(path)
    assert len(detect_faces(pictures[len(pictures) // 2])) == 2
    assert len({segment["speaker_id"] for segment in truth["segments"]}) == 1
    _, truth = play("turns", index=5, duration_s=4.2)
    speakers = [segment["speaker_id"] for segment in truth["segments"]]
    assert len(set(speakers)) == 2 and speakers[0] == truth["people"][0]["speaker_id"]


def test_a_film_shows_the_person_of_the_portraits(renderer, base_voices):
    from dataset_scripts.synthetic_cast.film_renderer import View
    from dataset_scripts.synthetic_cast.laws import draw_member
    from dataset_scripts.synthetic_cast.renderer import FaceRenderer, draw_frame

    portraits, recogniser = FaceRenderer(), get_recogniser("dlib")
    frame = draw_frame(np.random.default_rng(0))
    background = np.full((240, 320, 3), 128, np.uint8)
    chips = []
    for index in range(3):
        traits = draw_member(0, index, base_voices).traits
        view = View(
            traits,
            yaw=0.0,
            pitch=0.0,
            roll=0.0,
            azimuth=0.0,
            place=(0.5, 0.48),
            head_share=0.6,
            distance=1.2,
            expression={"jawOpen": 0.15},
            light=frame.light,
            clothes=frame.clothes,
        )
        for picture in (
            portraits.render(traits, frame),
            np.ascontiguousarray(renderer.draw((320, 240), background, [view])),
        ):
            (face,) = detect_faces(picture)
            chips.append(align_face(picture, face.landmarks))
    embedding = recogniser.embed(np.stack(chips)).reshape(3, 2, 128)
    distance = np.linalg.norm(embedding[:, None, 0] - embedding[None, :, 1], axis=-1)
    assert distance.diagonal().max() < 0.3 < distance[~np.eye(3, dtype=bool)].min()


def test_the_same_film_again_is_the_same_bytes(play, renderer):
    encodings = [
        H264,
        Encoding(".webm", "libvpx-vp9", 40, "libopus", 48000, 1, 48000),
        Encoding(".mkv", "libx264", 30, "libmp3lame", 44100, 2, 64000),
    ]
    for encoding in encodings:
        path, _ = play("plain", duration_s=0.7, encoding=encoding)
        first = path.read_bytes(), path.with_suffix(".json").read_bytes()
        renderer._actors.clear()  # what was kept of the person
        play("static_jaw", index=6, duration_s=0.3)  # and somebody else between
        path, _ = play("plain", duration_s=0.7, encoding=encoding)
        assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == first


def test_music_and_noise_are_not_taken_for_speech():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for sound in (compose_music(6.0, rng), make_noise(6.0, rng)):
            assert sound.shape == (96000,) and 0.1 < np.abs(sound).max() <= 0.5
            assert (speech_probabilities(torch.from_numpy(sound)) > 0.5).float().mean() < 0.1


def test_a_frame_too_large_is_refused(renderer):
    with pytest.raises(ValueError, match="at most"):
        renderer.draw((1280, 720), np.zeros((720, 1280, 3), np.uint8), [])


def quick_scripts(monkeypatch):
    """Makes every film of a build short and small."""

    def short(seed, index, speakers, base_voices):
        return draw_script(
            seed, index, speakers, base_voices, kind="plain", size=(96, 96), duration_s=0.6
        )

    monkeypatch.setattr(films, "draw_script", short)


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_killed_run_continues_to_the_same_bytes(renderer, base_voices, tmp_path, monkeypatch):
    quick_scripts(monkeypatch)
    config = FilmsConfig(films=3, speakers=2, seed=1)
    whole = build_films(tmp_path / "whole", config, base_voices)
    assert len(files_of(whole)) == 7
    make, made = films.make_film, []

    def die_in_the_second(script, voices, folder):
        if made:
            (folder / f"{script.film_id}.film.unfinished").write_bytes(b"half a film")
            raise KeyboardInterrupt
        made.append(script.film_id)
        return make(script, voices, folder)

    monkeypatch.setattr(films, "make_film", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        build_films(tmp_path / "killed", config, base_voices)

    def must_be_missing(script, voices, folder):
        assert script.film_id not in made
        return make(script, voices, folder)

    monkeypatch.setattr(films, "make_film", must_be_missing)
    killed = build_films(tmp_path / "killed", config, base_voices)
    assert files_of(killed) == files_of(whole)
    monkeypatch.setattr(films, "make_film", lambda *_: pytest.fail("nothing is missing"))
    build_films(killed, config, base_voices)
    with pytest.raises(FileExistsError, match="holds other films"):
        build_films(killed, FilmsConfig(films=4, speakers=2, seed=1), base_voices)


@pytest.mark.slow
def test_processes_write_the_same_bytes(renderer, base_voices, tmp_path):
    config = FilmsConfig(films=2, speakers=2, seed=4)
    one = build_films(tmp_path / "one", config, base_voices)
    two = build_films(tmp_path / "two", config, base_voices, workers=2)
    assert files_of(one) == files_of(two)


def test_wrong_requests_are_refused_in_one_sentence(tmp_path, capsys, base_voices):
    assert main([str(tmp_path / "out"), "--speakers", "1", "--films", "2"]) == 1
    assert capsys.readouterr().err == "synthetic_cast: speakers must be at least 2, got 1\n"
    assert main([str(tmp_path / "out"), "--speakers", "2", "--films", "0"]) == 1
    assert capsys.readouterr().err == "synthetic_cast: films must be at least 1, got 0\n"
    with pytest.raises(ValueError, match="unknown kind 'opera': choose one of plain, turned"):
        draw_script(0, 0, 2, base_voices, kind="opera")
    (tmp_path / "README.md").touch()
    (tmp_path / "train-00000.parquet").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        build_films(tmp_path, FilmsConfig(films=1, speakers=2), base_voices)
