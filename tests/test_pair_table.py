import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dataset_scripts.pair_table import (
    contact_sheet,
    flac_bytes,
    jpeg_bytes,
    new_pair,
    open_picture,
    pair_features,
    sharpness,
)
from dataset_scripts.records import SourceVideo


def test_columns_are_those_of_the_contract():
    from datasets import Audio, Features, Image

    features = pair_features(64)
    names = "pair_id audio face face_embedding speaker_id speaker_source video_id start_s end_s"
    names += " face_time_s face_position sync_score frontality sharpness speech_ratio face_size_px"
    names += " gender age language landmarks normalized_face normalized_landmarks traits"
    names += " voice_parameters voice_id source licence"
    assert list(features) == names.split()
    assert features["audio"] == Audio(sampling_rate=16000, decode=False)
    assert features["normalized_face"] == features["face"] == Image()
    assert features["face_embedding"].length == 64
    assert features["normalized_landmarks"] == features["landmarks"]
    assert Features.from_arrow_schema(features.arrow_schema) == features


def test_a_pair_from_video_leaves_the_truth_empty():
    import pyarrow

    face = jpeg_bytes(np.zeros((224, 224, 3), np.uint8))
    video = SourceVideo("a/b", Path("b.mp4"), "films", "CC0-1.0")
    pair = new_pair(video, 0.0, 1.5, flac_bytes(np.zeros(24000)), face)
    assert set(pair) <= set(pair_features(2))
    (row,) = pyarrow.Table.from_pylist([pair], pair_features(2).arrow_schema).to_pylist()
    assert row["face"]["bytes"] == face
    for column in ("landmarks", "normalized_face", "normalized_landmarks", "traits"):
        assert column in pair and row[column] is None


def test_the_casts_truth_comes_back_from_parquet(tmp_path):
    from datasets import Dataset, load_dataset

    features = pair_features(2)
    landmarks = np.random.default_rng(0).uniform(0, 223, (68, 2)).astype(np.float32)
    picture = {"bytes": jpeg_bytes(np.full((224, 224, 3), 90, np.uint8)), "path": "one.jpg"}
    row = dict.fromkeys(features) | {
        "normalized_face": picture,
        "normalized_landmarks": landmarks.tolist(),
    }
    Dataset.from_list([row], features).to_parquet(tmp_path / "train.parquet")
    (found,) = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert found["normalized_face"].size == (224, 224)
    np.testing.assert_array_equal(np.array(found["normalized_landmarks"], np.float32), landmarks)


def test_speech_survives_to_its_last_bit():
    clip = np.random.default_rng(0).uniform(-1, 1, 16001).astype(np.float32)
    heard, rate = soundfile.read(io.BytesIO(flac_bytes(clip)), dtype="float32")
    assert rate == 16000 and heard.shape == clip.shape
    assert np.abs(heard - clip).max() <= 1 / 32768


def test_pictures_keep_their_colours():
    face = np.full((224, 224, 3), (200, 30, 60), np.uint8)
    face[:, 1::2] = (30, 200, 60)  # columns one pixel wide: subsampled colours would mix
    seen = np.asarray(open_picture(jpeg_bytes(face))).astype(int)
    assert seen.shape == face.shape and np.abs(seen - face).mean() < 8


def test_a_blurred_face_is_less_sharp():
    from scipy.ndimage import gaussian_filter

    face = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    blurred = gaussian_filter(face.astype(float), (2, 2, 0)).astype(np.uint8)
    assert sharpness(np.full((64, 64, 3), 7, np.uint8)) == 0
    assert sharpness(blurred) < sharpness(face) / 10


def test_contact_sheet_leaves_places_empty():
    tile = (jpeg_bytes(np.zeros((224, 224, 3), np.uint8)), "words")
    sheet = np.asarray(contact_sheet([tile, None, tile], 2))
    assert sheet.shape == (2 * 240, 2 * 224, 3)
    dark = [[(sheet[240 * y + 100, 224 * x + 100] < 9).all() for x in (0, 1)] for y in (0, 1)]
    assert dark == [[True, False], [True, False]]
    assert (sheet[224:240, :224] < 99).any()  # the words


@pytest.mark.parametrize("shape", [(224, 224), (224, 224, 4)])
def test_pictures_of_another_form_are_refused(shape):
    with pytest.raises((OSError, TypeError, ValueError)):
        jpeg_bytes(np.zeros(shape, np.float64))
