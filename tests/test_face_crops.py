"""Sound and face crops give pairs where there is no moving picture, or a true reason."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_scripts.extraction import ExtractionConfig
from dataset_scripts.face_crops import extract_unit, pairs_from_crops
from dataset_scripts.faces import get_recogniser
from dataset_scripts.near_duplicates import find_duplicates, fingerprint
from dataset_scripts.records import Refusal, SourceVideo
from dataset_scripts.sources import SpeechAndCrops
from dataset_scripts.synthetic_cast.frames import draw_frame
from dataset_scripts.synthetic_cast.renderer import FaceRenderer
from modeling_speech2face import load_audio
from tests.test_cast_faces import MAN, WOMAN


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> dict[str, Path]:
    """Pictures as VoxCeleb's crops are: JPEG, a face and little more; and some that are not."""
    folder = tmp_path_factory.mktemp("crops")
    try:
        renderer = FaceRenderer()
    except RuntimeError as error:
        pytest.skip(str(error))
    pictures = {}
    for name, traits, seed, yaw in [
        ("man0", MAN, 0, 0.0),
        ("man1", MAN, 1, 0.0),
        ("man2", MAN, 2, 0.0),
        ("woman", WOMAN, 3, 0.0),
        ("turned", MAN, 0, 38.0),
    ]:
        frame = draw_frame(np.random.default_rng(seed))
        camera = replace(frame.camera, noise=0.0, distance=1.2, shift_x=0.0, shift_y=0.0)
        # Before shelves full of books dlib loses the landmarks of a turned face.
        wall = replace(frame.background, kind="plain")
        plain = dict(pitch=0.0, roll=0.0, expression={}, background=wall)
        frame = replace(frame, yaw=yaw, camera=camera, **plain)
        pictures[name] = Image.fromarray(renderer.render(traits, frame))
    pictures["tiny"] = pictures["man0"].resize((64, 64))
    pictures["wall"] = Image.new("RGB", (224, 224), (120, 120, 120))
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.jpg", quality=90)
    (folder / "text.jpg").write_text("no picture")
    return {path.stem: path for path in folder.iterdir()}


def unit(speech: Path, *pictures: Path) -> SpeechAndCrops:
    common = ("id10270/abc/00001", speech, "voxceleb1", "CC-BY-4.0", "id10270", "test")
    return SpeechAndCrops(*common, gender="female", crops=pictures)


def reason(extraction) -> str:
    assert extraction.pairs == []
    (refusal,) = extraction.refusals
    assert refusal.start_s is None and "\n" not in refusal.detail
    return refusal.reason


def test_a_recording_and_crops_give_pairs(crops, sample_recording):
    extraction = extract_unit(
        unit(sample_recording, crops["man0"], crops["man1"], crops["wall"], crops["text"])
    )
    assert extraction.refusals == [] and len(extraction.pairs) >= 1
    speech = load_audio(sample_recording)
    assert extraction.duration_s == pytest.approx(len(speech) / 16000)
    for pair in extraction.pairs:
        assert pair["sync_score"] is None and pair["track"] == 0
        assert (pair["video_id"], pair["gender"]) == ("id10270/abc/00001", "female")
        clip = load_audio(pair["audio"]["bytes"])
        start = round(pair["start_s"] * 16000)
        np.testing.assert_allclose(clip, speech[start : start + len(clip)], atol=1e-4)
        assert len(clip) == pytest.approx(16000 * (pair["end_s"] - pair["start_s"]), abs=2)
        face = np.asarray(Image.open(io.BytesIO(pair["face"]["bytes"])))
        assert face.shape == (224, 224, 3)
        again = get_recogniser().embed(face[None])[0]
        assert np.linalg.norm(again - pair["face_embedding"]) < 0.1  # but for the JPEG
    assert len({pair["pair_id"] for pair in extraction.pairs}) == len(extraction.pairs)


def test_a_crop_of_another_person_is_left_out(crops, sample_recording):
    men = [crops[name] for name in ("man0", "man1", "man2")]
    alone = pairs_from_crops(unit(sample_recording, *men))
    beside = pairs_from_crops(unit(sample_recording, *men, crops["woman"]))
    np.testing.assert_allclose(
        alone.pairs[0]["track_embedding"], beside.pairs[0]["track_embedding"], atol=1e-6
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["wall", "text"], "no_face"),
        ([], "no_face"),
        (["turned"], ("not_frontal", "no_face")),  # the detector may not see it at all
        (["tiny"], ("face_too_small", "no_face")),
    ],
)
def test_without_a_good_face_there_is_a_reason(crops, sample_recording, names, expected):
    extraction = pairs_from_crops(unit(sample_recording, *(crops[name] for name in names)))
    assert reason(extraction) in expected


def test_thresholds_are_those_of_the_configuration(crops, sample_recording):
    config = ExtractionConfig(min_sharpness=1e9)
    assert reason(pairs_from_crops(unit(sample_recording, crops["man0"]), config)) == "blurred"


def test_bad_recordings_are_refused(crops, sample_recording, tmp_path):
    import soundfile

    face = crops["man0"]
    noise = np.random.default_rng(0).normal(size=48000) * 0.1
    soundfile.write(tmp_path / "noise.wav", noise, 16000)
    soundfile.write(tmp_path / "silence.wav", np.zeros(48000), 16000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound")
    expected = {
        "noise": "no_speech",
        "silence": "silent",
        "empty": "unreadable",
        "text": "unreadable",
        "missing": "unreadable",
    }
    for name, why in expected.items():
        assert reason(pairs_from_crops(unit(tmp_path / f"{name}.wav", face))) == why, name
    config = ExtractionConfig()
    short = replace(config, limits=replace(config.limits, max_duration_s=1.0))
    assert reason(pairs_from_crops(unit(sample_recording, face), short)) == "too_long"


def test_the_same_recording_twice_is_found(crops, sample_recording):
    import soundfile

    first = pairs_from_crops(unit(sample_recording, crops["man0"])).fingerprint
    speech, rate = soundfile.read(sample_recording)
    second = fingerprint([], np.float32(speech[3333:]))
    assert rate == 16000 and find_duplicates({"a": first, "b": second}) == {"b": "a"}


def test_a_film_goes_the_way_of_films(tmp_path):
    (tmp_path / "film.mp4").write_text("no film")
    extraction = extract_unit(SourceVideo("film.mp4", tmp_path / "film.mp4", "folder", "CC0"))
    assert isinstance(extraction.refusals[0], Refusal)
    assert extraction.refusals[0].reason == "unreadable"
