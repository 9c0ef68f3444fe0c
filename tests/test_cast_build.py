import re
from collections import Counter

import numpy as np
import pytest

from dataset_scripts.faces import detect_faces, predict_landmarks_68
from dataset_scripts.synthetic_cast import build
from dataset_scripts.synthetic_cast.__main__ import _config, _parser, main
from dataset_scripts.synthetic_cast.build import CastConfig, build_cast
from dataset_scripts.synthetic_cast.laws import draw_member
from tests.fake_speech import write_base_voices

CONFIG = CastConfig(speakers=3, seed=3, images_per_speaker=2, clips_per_speaker=1)


@pytest.fixture(scope="module")
def base_voices(tmp_path_factory):
    return write_base_voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="module", autouse=True)
def one_speaker_a_shard():
    """So that a cast of three has something to resume."""
    patch = pytest.MonkeyPatch()
    patch.setattr(build, "SHARD_SPEAKERS", 1)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def cast(tmp_path_factory, base_voices):
    try:
        build._renderer()
    except RuntimeError as error:
        pytest.skip(f"no OpenGL here: {error}")
    return build_cast(tmp_path_factory.mktemp("whole") / "cast", CONFIG, base_voices)


@pytest.fixture(scope="module")
def dataset(cast, tmp_path_factory):
    from datasets import load_dataset

    return load_dataset(str(cast), cache_dir=str(tmp_path_factory.mktemp("cache")))


def rows_of(dataset):
    return [row for split in dataset.values() for row in split]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_dataset_opens_with_the_columns_of_the_contract(dataset):
    from datasets import Audio, Image, List

    features = next(iter(dataset.values())).features
    assert features["audio"] == Audio(sampling_rate=16000, decode=False)
    assert features["face"] == features["normalized_face"] == Image()
    assert features["face_embedding"] == List(features["age"], length=128)
    expected = "pair_id audio face face_embedding speaker_id speaker_source video_id start_s end_s"
    expected += " face_time_s face_position sync_score frontality sharpness speech_ratio"
    expected += " face_size_px gender age language landmarks normalized_face"
    expected += " normalized_landmarks traits voice_parameters voice_id source licence"
    assert list(features) == expected.split()
    rows = rows_of(dataset)
    assert len(rows) == len({row["pair_id"] for row in rows}) == 6
    assert Counter(row["speaker_id"] for row in rows) == {f"cast-3-{k:06d}": 2 for k in range(3)}


def test_speech_can_be_heard_and_is_in_the_contracts_form(dataset):
    import io

    import soundfile

    for row in rows_of(dataset):
        waveform, sampling_rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        assert sampling_rate == 16000 and waveform.ndim == 1
        assert len(waveform) / 16000 == row["end_s"] - row["start_s"]
        assert 1 <= row["end_s"] <= 10
        assert np.abs(waveform).max() > 0.05
        assert 0 <= row["speech_ratio"] <= 1


def test_embedding_is_the_teachers_of_the_stored_face(dataset):
    rows = rows_of(dataset)
    faces = np.stack([np.asarray(row["face"]) for row in rows])
    assert faces.shape == (6, 224, 224, 3)
    embeddings = build._recogniser("dlib").embed(faces)
    stored = np.array([row["face_embedding"] for row in rows])
    np.testing.assert_allclose(stored, embeddings, atol=1e-5)
    same = [np.linalg.norm(stored[k] - stored[k + 1]) for k in (0, 2, 4)]
    assert max(same) < 0.6  # dlib's threshold for one person


def test_truth_stands_beside_each_pair(dataset, base_voices):
    for row in rows_of(dataset):
        member = draw_member(CONFIG.seed, int(row["speaker_id"].split("-")[-1]), base_voices)
        assert row["traits"]["hair_cut"] == member.traits.hair_cut
        assert row["traits"]["shape"] == pytest.approx(member.traits.shape, rel=1e-5)
        assert row["voice_parameters"]["pitch_hz"] == pytest.approx(member.voice.pitch_hz, rel=1e-5)
        assert (row["gender"], row["licence"]) == (member.traits.gender, "CC0-1.0")


def test_landmarks_lie_in_the_face_and_where_dlib_sees_them(dataset):
    away = []
    for row in rows_of(dataset):
        face, landmarks = np.asarray(row["face"]), np.array(row["landmarks"])
        assert landmarks.shape == (68, 2)
        within = landmarks[17:]  # brows, nose, eyes and mouth; a chin may lie below the picture
        assert within.min() > 0 and within.max() < 223
        assert landmarks.min() > -20 and landmarks.max() < 243
        (found,) = detect_faces(face)
        away.append(predict_landmarks_68(face[..., 1], found.box) - landmarks)
    away = np.linalg.norm(away, axis=2)[:, 27:].mean(1)  # pixels, a row each
    assert away.max() < 8  # dlib is misled by beards and glasses
    assert np.sort(away)[: len(away) // 2].mean() < 3


def test_rows_of_one_person_share_the_normalized_face(dataset):
    people = {}
    for row in rows_of(dataset):
        face, landmarks = np.asarray(row["normalized_face"]), row["normalized_landmarks"]
        assert face.shape == (224, 224, 3) and len(detect_faces(face)) == 1
        assert np.shape(landmarks) == (68, 2)
        assert np.min(landmarks[17:]) > 0 and np.max(landmarks[17:]) < 223
        assert face.tobytes() != np.asarray(row["face"]).tobytes()
        assert landmarks != row["landmarks"]
        people.setdefault(row["speaker_id"], set()).add((face.tobytes(), str(landmarks)))
    assert len(people) == len(set.union(*people.values())) == 3


def test_the_normalized_face_is_that_of_the_traits(dataset, base_voices):
    row = next(iter(rows_of(dataset)))
    member = draw_member(CONFIG.seed, int(row["speaker_id"].split("-")[-1]), base_voices)
    face, landmarks = build.normalized_face(member.traits)
    stored = np.asarray(row["normalized_face"]).astype(float)
    assert np.abs(stored - face).mean() < 2  # JPEG
    np.testing.assert_allclose(row["normalized_landmarks"], landmarks, atol=1e-3)


def test_splits_share_neither_people_nor_voices(dataset, base_voices):
    split_of_voice = {voice.voice_id: voice.split for voice in base_voices}
    for split, rows in dataset.items():
        assert all(split_of_voice[row["voice_id"]] == split for row in rows)
    members = [draw_member(0, index, base_voices) for index in range(300)]
    assert all(split_of_voice[m.voice.voice_id] == m.split for m in members)
    assert {m.split for m in members} == {"train", "validation", "test"}


def test_card_names_the_teacher_and_what_it_was_made_from(cast):
    from huggingface_hub import DatasetCard
    from PIL import Image

    card = DatasetCard.load(cast / "README.md")
    about = card.data.to_dict()["speech2face"]
    assert (about["face_recogniser"], about["face_embedding_size"]) == ("dlib", 128)
    assert about["builder_version"] == build.BUILDER_VERSION
    assert about["configuration"]["seed"] == 3
    assert "faces are of nobody" in card.text and "CC BY 4.0" in card.text
    assert "formant spacing" in card.text  # the laws, in words
    assert "from the geometry" in card.text and "iBUG 300-W" in card.text
    assert set(re.findall(r"`(\w*(?:landmarks|normalized_face))`", card.text)) == {
        "landmarks",
        "normalized_face",
        "normalized_landmarks",
    }
    sheet = np.asarray(Image.open(cast / "contact_sheet.png"))
    assert sheet.shape == (240, 6 * 224, 3)
    tiles = sheet[:224].reshape(224, 6, 224, 3)
    assert [bool((tiles[:, k] < 255).any()) for k in range(6)] == 3 * [True] + 3 * [False]


def test_killed_run_continues_to_the_same_bytes(cast, base_voices, tmp_path, monkeypatch):
    make_shard, made = build.make_shard, []

    def die_in_the_second(path, *rest):
        if made:
            path.with_suffix(".unfinished").write_bytes(b"half a shard")
            raise KeyboardInterrupt
        made.append(path)
        return make_shard(path, *rest)

    monkeypatch.setattr(build, "make_shard", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        build_cast(tmp_path, CONFIG, base_voices)
    assert not (tmp_path / "README.md").exists() and made[0].exists()

    def must_be_missing(path, *rest):
        assert path != made[0]
        return make_shard(path, *rest)

    monkeypatch.setattr(build, "make_shard", must_be_missing)
    build_cast(tmp_path, CONFIG, base_voices)
    assert files_of(tmp_path) == files_of(cast)


@pytest.mark.slow
def test_processes_write_the_same_bytes(cast, base_voices, tmp_path):
    build_cast(tmp_path, CONFIG, base_voices, workers=2)
    assert files_of(tmp_path) == files_of(cast)


def test_finished_cast_is_kept_and_another_refused(cast, base_voices):
    before = files_of(cast)
    assert build_cast(cast, CONFIG, base_voices) == cast
    assert files_of(cast) == before
    other = CastConfig(speakers=4, seed=3, images_per_speaker=2, clips_per_speaker=1)
    with pytest.raises(FileExistsError, match="holds another data set: choose another folder"):
        build_cast(cast, other, base_voices)


def test_unfinished_cast_is_not_mixed_with_another(base_voices, tmp_path):
    (tmp_path / "unfinished-0123456789ab").mkdir()
    with pytest.raises(FileExistsError, match="holds another data set"):
        build_cast(tmp_path, CONFIG, base_voices)
    (tmp_path / "unfinished-0123456789ab").rmdir()
    (tmp_path / "train-00007.parquet").touch()
    with pytest.raises(FileExistsError, match="holds another data set"):
        build_cast(tmp_path, CONFIG, base_voices)


def test_more_speakers_move_nobody(base_voices):
    ten = [draw_member(1, index, base_voices) for index in range(10)]
    assert ten[:4] == [draw_member(1, index, base_voices) for index in range(4)]


def test_frames_without_a_face_are_drawn_again_and_counted(base_voices, monkeypatch):
    frames = []

    class Blank:
        def render(self, traits, frame):
            frames.append(frame)
            return np.zeros((256, 256, 3), np.uint8)

    monkeypatch.setattr(build, "_renderer", Blank)
    redrawn = Counter()
    member = draw_member(0, 0, base_voices)
    assert build._photograph(member, [0, 0, 10, 0], redrawn) is None
    assert redrawn == {"frames without a face": 5, "pictures given up": 1}
    assert len({frame.seed for frame in frames}) == 5


def test_the_command_names_the_teacher():
    def teacher(*options: str) -> str:
        return _config(_parser().parse_args(["out", "--speakers", "1", *options])).face_recogniser

    assert teacher() == "dlib"
    assert teacher("--recogniser", "arcface-arc2face") == "arcface-arc2face"


def test_wrong_requests_are_refused_in_one_sentence(tmp_path, capsys):
    with pytest.raises(ValueError, match="2 clips need at least as many images"):
        CastConfig(speakers=1, images_per_speaker=1)
    assert main([str(tmp_path / "out"), "--speakers", "0"]) == 1
    assert capsys.readouterr().err == "synthetic_cast: speakers must be at least 1, got 0\n"
    for options, sentence in (
        (["--seed", "-1"], "seed must be at least 0, got -1"),
        (["--blends", "-1"], "--blends must be at least 0, got -1"),
        (["--sentences-per-voice", "0"], "--sentences-per-voice must be at least 1, got 0"),
        (["--workers", "0"], "--workers must be at least 1, got 0"),
        (
            ["--films", "1", "--recogniser", "arcface-arc2face"],
            "--recogniser is for stills: the faces of films are embedded as pairs are",
        ),
    ):
        assert main([str(tmp_path / "out"), "--speakers", "1", *options]) == 1
        assert capsys.readouterr().err == f"synthetic_cast: {sentence}\n"
    assert main([__file__, "--speakers", "1"]) == 1
    assert "is a file: name a folder" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main([str(tmp_path / "out"), "--speakers", "1", "--librispeech", str(empty)]) == 1
    error = capsys.readouterr().err
    assert "lacks 351 LibriSpeech utterances" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
