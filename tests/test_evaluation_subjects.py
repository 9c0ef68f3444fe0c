"""Whom an evaluation measures: data sets, folders of voices and faces, LibriSpeech's speakers."""

import csv
import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from dataset_scripts.faces import align_face, detect_faces, get_recogniser
from tests.drawn_face import draw_face, empty_scene
from tests.evaluated import state_true_landmarks
from tests.training_cast import write_cast
from training.data import load_pairs
from training.evaluation import instruments, subjects


@pytest.fixture(scope="module")
def cast(tmp_path_factory) -> Path:
    return write_cast(tmp_path_factory.mktemp("data") / "cast", speakers=6, pairs=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pairs(cast, cache) -> subjects.Subjects:
    return subjects.load_subjects(str(cast), "test", cache)


def test_a_data_set_is_read_as_it_was_written(pairs, cast, cache):
    assert (pairs.name, pairs.split, pairs.teacher, len(pairs)) == ("cast", "test", "dlib", 12)
    assert pairs.pair_ids[:3] == ["test-0-0", "test-0-1", "test-1-0"]
    assert pairs.speakers[:3].tolist() == ["test-0", "test-0", "test-1"]
    assert pairs.genders[:4].tolist() == ["female", "female", "male", "male"]
    assert pairs.ages[:4].tolist() == [30, 30, 31, 31] and pairs.face_found.all()
    assert pairs.traits[0] == {"hair_cut": "short", "beard": "none"}
    assert pairs.voice_parameters[2] == {"pitch_hz": 123} and pairs.is_cast
    source = load_pairs(str(cast), "test", str(cache))
    assert pairs.speech(1).dtype == np.float32 and len(pairs.speech(1)) == 20000
    np.testing.assert_allclose(pairs.speech(1) * 32768, source.speech(1))
    np.testing.assert_array_equal(pairs.embeddings, source.embeddings)
    assert pairs.faces.shape == (12, 224, 224, 3) and pairs.faces.dtype == np.uint8
    colour = pairs.faces[0, 0, 0]
    assert (pairs.faces[0, 100, 100] == 255 - colour).all()  # the bar, not turned on its side
    assert (pairs.faces[0, 100, 20] == colour).all() and (pairs.faces[0, 20, 100] == colour).all()


def test_faces_are_centred_by_the_training_split(pairs, cast, cache, tmp_path):
    train = load_pairs(str(cast), "train", str(cache))
    np.testing.assert_array_equal(pairs.centre, train.embeddings.mean(0))
    assert pairs.centred_by == "the training split's mean"
    np.testing.assert_array_equal(pairs.training.embeddings, train.embeddings)
    assert pairs.training.genders[:3].tolist() == ["female", "female", "male"]
    assert pairs.training.ages[2] == 31 and pairs.training.speakers[2] == "train-1"
    large = load_pairs(str(cast), "train", str(cache), pixels=224).faces.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(pairs.training.faces(np.asarray([5, 2])), large[[5, 2]])

    alone = tmp_path / "alone"
    shutil.copytree(cast, alone)
    for file in alone.glob("train-*"):
        file.unlink()
    without = subjects.load_subjects(str(alone), "test", tmp_path / "cache")
    assert without.training is None and without.centred_by == "the mean of these pairs"
    np.testing.assert_array_equal(without.centre, pairs.embeddings.mean(0))


def test_a_limit_takes_one_of_every_speaker_before_a_second(pairs, cast, cache):
    few = subjects.load_subjects(str(cast), "test", cache, limit=8)
    assert few.speakers.tolist() == [f"test-{s}" for s in (0, 0, 1, 1, 2, 3, 4, 5)]
    row = pairs.pair_ids.index(few.pair_ids[5])
    np.testing.assert_array_equal(few.faces[5], pairs.faces[row])
    np.testing.assert_array_equal(few.speech(5), pairs.speech(row))
    np.testing.assert_array_equal(few.centre, pairs.centre)
    assert few.fingerprint != pairs.fingerprint
    assert subjects.load_subjects(str(cast), "test", cache).fingerprint == pairs.fingerprint
    with pytest.raises(ValueError, match="at least 1"):
        subjects.load_subjects(str(cast), "test", cache, limit=0)
    with pytest.raises(ValueError, match="pairs of one speaker.* evaluate two speakers or more"):
        subjects.load_subjects(str(cast), "test", cache, limit=1)


def with_true_landmarks(cast: Path, folder: Path, **of_split: list) -> Path:
    """A copy of a data set that states landmarks of true faces."""
    shutil.copytree(cast, folder)
    state_true_landmarks(folder, **of_split)
    return folder


def test_landmarks_of_the_true_faces_are_read_where_every_pair_has_them(pairs, cast, tmp_path):
    assert pairs.true_landmarks is None
    truth = np.random.default_rng(0).uniform(0, 224, (12, 68, 2)).astype(np.float32)
    stated = with_true_landmarks(cast, tmp_path / "stated", test=truth.tolist())
    found = subjects.load_subjects(str(stated), "test", tmp_path / "cache")
    assert found.true_landmarks.dtype == np.float32
    np.testing.assert_array_equal(found.true_landmarks, truth)
    few = subjects.load_subjects(str(stated), "test", tmp_path / "cache", limit=7)
    rows = [pairs.pair_ids.index(name) for name in few.pair_ids]
    np.testing.assert_array_equal(few.true_landmarks, truth[rows])
    gap = with_true_landmarks(cast, tmp_path / "gap", test=[None, *truth[1:].tolist()])
    without = subjects.load_subjects(str(gap), "test", tmp_path / "cache")
    assert without.true_landmarks is None and without.people() is None


def test_people_are_those_of_both_splits_whose_true_face_is_known(pairs, cast, tmp_path):
    rng = np.random.default_rng(0)
    test, train = np.repeat(rng.uniform(0, 224, (2, 6, 68, 2)).astype(np.float32), 2, axis=1)
    alone = with_true_landmarks(cast, tmp_path / "alone", test=test.tolist())
    alone = subjects.load_subjects(str(alone), "test", tmp_path / "cache")
    assert alone.training.people is None
    assert alone.people().speakers.tolist() == [f"test-{s}" for s in range(6)]
    both = {"test": test.tolist(), "train": train.tolist()}
    both = with_true_landmarks(cast, tmp_path / "both", **both)
    people = subjects.load_subjects(str(both), "test", tmp_path / "cache", limit=3).people()
    assert people.speakers.tolist() == [
        *(f"test-{s}" for s in range(3)),
        *(f"train-{s}" for s in range(6)),
    ]
    np.testing.assert_array_equal(people.landmarks, [*test[:6:2], *train[::2]])
    assert people.genders[[1, 4]].tolist() == ["male"] * 2 and people.ages[4] == 31
    assert [voice["pitch_hz"] for voice in people.voice_parameters[:2]] == [210, 123]
    same = subjects.load_subjects(str(both), "train", tmp_path / "cache").people()
    assert same.speakers.tolist() == [f"train-{s}" for s in range(6)]  # nobody twice


def test_numbers_are_grouped_in_thirds_of_the_speakers():
    speakers = np.asarray(list("aaaaabcdef"))
    values = [9.0] * 5 + [1, 2, 3, 4, None]
    groups = subjects.trait_groups(values, speakers)
    # Five speakers with a value: 1, 2, 3, 4, 9; a third of them lies below 2.33, two below 3.67.
    assert groups[:5].tolist() == ["high third"] * 5
    assert groups[5:].tolist() == ["low third", "low third", "middle third", "high third", ""]


def test_equal_numbers_stay_together():
    groups = subjects.trait_groups([0, 0, 0, 0, 1, 2], np.arange(6))
    assert groups.tolist() == ["low third"] * 4 + ["high third"] * 2


def test_classes_and_shares_are_grouped_by_name():
    speakers = np.arange(3)
    names = ["full", "tied_back", None]
    assert subjects.trait_groups(names, speakers).tolist() == ["full", "tied back", ""]
    shares = [[0.2, 0.5, 0.3], (0.1, 0.2, 0.7), None]
    assert subjects.trait_groups(shares, speakers).tolist() == ["asian", "caucasian", ""]
    named = [{"one": 0.4, "other": 0.6}, {"one": 0.9, "other": 0.1}, None]
    assert subjects.trait_groups(named, speakers).tolist() == ["other", "one", ""]
    assert subjects.trait_groups([True, False, None], speakers).tolist() == ["yes", "no", ""]


def test_groups_are_gender_age_and_every_trait_that_is_there(pairs):
    traits = [
        {
            "gender": "female",
            "age": 30.0,
            "seed": 7,
            "shape": [0.1] * 24,
            "skin_tone": 0.1 * row,
            "ancestry": [0.0, 0.1, 0.9],
            "hair_cut": "long" if row < 2 else "short",
            "anything_else": None,
        }
        for row in range(12)
    ]
    ages = np.asarray([20.0, 30, 44.9, 45, 60, np.nan] * 2)
    groups = dataclasses.replace(pairs, traits=traits, ages=ages).groups()
    assert set(groups) == {"gender", "age group", "skin tone", "ancestry", "hair cut"}
    expected = ["under 30", "30 to 44", "30 to 44", "45 to 59", "60 and over", ""]
    assert groups["age group"].tolist() == expected * 2
    assert groups["hair cut"].tolist() == ["long"] * 2 + ["short"] * 10
    assert groups["gender"].tolist() == pairs.genders.tolist()
    nobody = dataclasses.replace(
        pairs, traits=[{}] * 12, ages=np.full(12, np.nan), genders=np.full(12, "")
    )
    assert nobody.groups() == {}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three voices and faces of two persons; the third picture shows nobody."""
    root = tmp_path / "people"
    (root / "voice").mkdir(parents=True)
    (root / "face").mkdir()
    rng = np.random.default_rng(0)
    for number, name in enumerate(("one", "three", "two")):
        ending = ("wav", "ogg", "flac")[number]
        noise = 0.1 * rng.standard_normal(8000 * (number + 1))
        soundfile.write(root / "voice" / f"{name}.{ending}", noise, 16000)
        picture = empty_scene(seed=number)
        if name != "three":
            picture = draw_face(picture, (120 + 40 * number, 110), 110, tone=150 + 15 * number)
        Image.fromarray(picture).save(root / "face" / f"{name}.png")
    (root / "voice" / ".hidden").touch()
    (root / "PAIRS.tsv").write_text(
        "name\tidentity\tgender\tnotes\none\tanna\tfemale\tx\ntwo\tanna\tFemale\t\nthree\t\t\t\n"
    )
    return root


def test_a_folder_of_voices_and_faces_is_aligned_and_embedded(folder, tmp_path):
    found = subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    assert found.pair_ids == ["one", "three", "two"] and found.name == "people"
    assert found.speakers.tolist() == ["anna", "three", "anna"] and not found.is_cast
    assert found.genders.tolist() == ["female", "", "female"] and np.isnan(found.ages).all()
    assert found.face_found.tolist() == [True, False, True] and found.training is None
    assert [len(found.speech(row)) for row in range(3)] == [8000, 16000, 24000]
    pictures = [np.asarray(Image.open(folder / "face" / f"{n}.png")) for n in found.pair_ids]
    landmarks = [detect_faces(pictures[row])[0].landmarks for row in (0, 2)]
    expected = align_face(pictures[0], landmarks[0])
    np.testing.assert_array_equal(found.faces[0], expected)
    np.testing.assert_array_equal(
        found.faces[1], align_face(pictures[1], np.median(landmarks, axis=0))
    )
    embedded = get_recogniser("dlib").embed(np.array(found.faces))
    np.testing.assert_allclose(found.embeddings, embedded, atol=1e-5)
    np.testing.assert_allclose(found.centre, embedded.mean(0), atol=1e-5)
    assert found.groups()["gender"].tolist() == ["female", "", "female"]


def test_a_folder_is_aligned_once_and_anew_when_a_picture_changes(folder, tmp_path, monkeypatch):
    first = subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(instruments, "detect_faces", lambda *_: pytest.fail("sought again"))
        again = subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    np.testing.assert_array_equal(first.faces, again.faces)
    assert first.fingerprint == again.fingerprint
    Image.fromarray(draw_face(empty_scene(seed=9), (160, 110), 110)).save(
        folder / "face" / "three.png"
    )
    changed = subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    assert changed.face_found.all() and changed.fingerprint != first.fingerprint


def test_a_folder_that_does_not_match_is_refused(folder, tmp_path):
    (folder / "voice" / "four.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="1 recordings of .* have no picture.* the first is four"):
        subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    (folder / "voice" / "four.wav").unlink()
    (folder / "voice" / "three.ogg").unlink()
    with pytest.raises(ValueError, match="1 pictures of .* have no recording.* the first is three"):
        subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    (folder / "voice" / "one.mp3").touch()
    with pytest.raises(ValueError, match="share a name"):
        subjects.load_subjects(str(folder), "test", tmp_path / "cache")


def test_ages_of_a_folder_are_years(folder, tmp_path):
    (folder / "PAIRS.tsv").write_text("name\tage\none\t41.5\ntwo\t\n")
    found = subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    np.testing.assert_array_equal(found.ages, [41.5, np.nan, np.nan])
    assert found.groups()["age group"].tolist() == ["30 to 44", "", ""]
    (folder / "PAIRS.tsv").write_text("name\tage\ntwo\told\n")
    with pytest.raises(ValueError, match="gives two the age 'old'"):
        subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    (folder / "PAIRS.tsv").write_text("stem\tage\n")
    with pytest.raises(ValueError, match="has no column name"):
        subjects.load_subjects(str(folder), "test", tmp_path / "cache")


def test_voices_without_faces_are_refused(tmp_path):
    (tmp_path / "voice").mkdir()
    with pytest.raises(FileNotFoundError, match="has voice/ and no face/"):
        subjects.load_subjects(str(tmp_path), "test", tmp_path / "cache")


def test_what_is_no_picture_is_refused(folder, tmp_path):
    (folder / "face" / "one.png").write_text("not a picture")
    with pytest.raises(ValueError, match="one.png is not a picture"):
        subjects.load_subjects(str(folder), "test", tmp_path / "cache")


def test_faces_of_another_system_are_matched_by_name(folder, tmp_path):
    people = subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name, centre in {"two": (130, 110), "one": (190, 110), "extra": (160, 110)}.items():
        Image.fromarray(draw_face(empty_scene(), centre, 110)).save(theirs / f"{name}.jpg")
    with pytest.raises(ValueError, match="lacks a picture for 1 of 3 pairs, the first is three"):
        subjects.load_faces_folder(theirs, people, tmp_path / "cache")
    Image.fromarray(draw_face(empty_scene(), (160, 120), 110)).save(theirs / "three.webp")
    images, found = subjects.load_faces_folder(theirs, people, tmp_path / "cache")
    assert images.shape == (3, 224, 224, 3) and found.all()
    pictures = [np.asarray(Image.open(theirs / n)) for n in ("one.jpg", "three.webp", "two.jpg")]
    np.testing.assert_array_equal(images, instruments.align_pictures(pictures)[0])
    with pytest.raises(FileNotFoundError, match="is no folder"):
        subjects.load_faces_folder(tmp_path / "nothing", people, tmp_path / "cache")


def test_voices_are_all_recordings_of_the_committed_test_speakers(tmp_path, monkeypatch):
    rows = [
        {"speaker_id": "1", "gender": "female", "split": "train", "utterances": "1-1-1"},
        {"speaker_id": "2", "gender": "female", "split": "test", "utterances": "2-1-1"},
        {"speaker_id": "3", "gender": "male", "split": "test", "utterances": "3-1-1 3-1-2 3-1-3"},
    ]
    with (tmp_path / "speakers.tsv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(subjects, "SPEAKERS_FILE", tmp_path / "speakers.tsv")
    with pytest.raises(FileNotFoundError, match="no recording of a test speaker"):
        subjects.load_voices(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(("1-1-1", "2-1-1", "3-1-3", "3-1-2", "3-9-9")):
        sound = np.full(1600 * (number + 1), 0.1)
        soundfile.write(tmp_path / "deep" / "er" / f"{name}.flac", sound, 16000)
    voices = subjects.load_voices(tmp_path)
    assert voices.names == ["2-1-1", "3-1-2", "3-1-3"] and len(voices) == 3
    assert voices.speakers.tolist() == ["2", "3", "3"]
    assert voices.genders.tolist() == ["female", "male", "male"]
    assert [len(voices.speech(row)) for row in range(3)] == [3200, 6400, 4800]


def test_pictures_are_turned_as_their_camera_says():
    upright = np.zeros((40, 20, 3), np.uint8)
    upright[:20] = 200
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    Image.fromarray(np.rot90(upright)).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(subjects._picture(file), upright)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("one\tanna\tbanana\t", "gives one the gender 'banana': write female, male"),
        ("one\tanna\tf\t-5", "gives one the age '-5': write years"),
        ("nobody\tanna\tf\t", "names nobody, which has no recording: take its row out"),
    ],
)
def test_what_pairs_tsv_says_wrong_is_refused_before_any_face_is_read(
    folder, tmp_path, row, sentence
):
    (folder / "PAIRS.tsv").write_text(f"name\tidentity\tgender\tage\n{row}\n")
    with pytest.raises(ValueError, match=sentence):
        subjects.load_subjects(str(folder), "test", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
