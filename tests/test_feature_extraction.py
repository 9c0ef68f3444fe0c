"""Speech2FaceFeatureExtractor: looping, normalisation, padding, and what it refuses."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from modeling_speech2face import Speech2FaceFeatureExtractor

RATE = 16000


@pytest.fixture
def extractor() -> Speech2FaceFeatureExtractor:
    return Speech2FaceFeatureExtractor(clip_seconds=0.5, do_normalize=False)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def test_short_speech_is_looped_to_the_clip(extractor):
    speech = noise(3000)
    row = extractor(speech, RATE)["input_values"][0]
    np.testing.assert_array_equal(row, np.concatenate([speech, speech, speech[:2000]]))


def test_a_clip_is_counted_in_samples(extractor):
    assert extractor.clip_samples == 8000


def test_long_speech_is_left_whole_and_the_batch_is_padded_with_a_mask(extractor):
    long, short = noise(12000, 1), noise(8000, 2)
    batch = extractor([long, short], RATE, return_tensors="pt")
    assert batch["input_values"].shape == batch["attention_mask"].shape == (2, 12000)
    assert batch["attention_mask"].sum(dim=1).tolist() == [12000, 8000]
    np.testing.assert_array_equal(batch["input_values"][1, :8000], short)
    assert (batch["input_values"][1, 8000:] == 0).all()


def test_each_waveform_is_normalised_by_itself():
    extractor = Speech2FaceFeatureExtractor(clip_seconds=0.5)
    batch = extractor([0.01 * noise(9000) + 0.3, 5 * noise(20000)], RATE)
    for row, mask in zip(batch["input_values"], batch["attention_mask"], strict=True):
        speech = row[mask == 1]
        assert abs(speech.mean()) < 1e-4
        assert abs(speech.std() - 1) < 1e-2


@pytest.mark.parametrize("form", [list, np.asarray, torch.tensor])
def test_lists_arrays_and_tensors_mean_the_same(extractor, form):
    speech = noise(8000)
    values = extractor(form(speech), RATE, return_tensors="pt")["input_values"]
    assert isinstance(values, torch.Tensor) and values.dtype == torch.float32
    np.testing.assert_array_equal(values[0], speech)


def test_a_two_dimensional_array_is_a_batch(extractor):
    assert extractor(np.stack([noise(8000), noise(8000, 1)]), RATE)["input_values"].shape[0] == 2


@pytest.mark.parametrize("rate", [8000, 44100, None])
def test_another_sampling_rate_is_refused(extractor, rate):
    with pytest.raises(ValueError, match=f"expected sampling_rate=16000 Hz, got {rate}"):
        extractor(noise(8000), rate)


@pytest.mark.parametrize(
    ("speech", "message"),
    [
        (np.zeros(0, dtype=np.float32), "mono"),
        (np.zeros((2, 3, 8000), dtype=np.float32), "mono"),
        (np.array([0.1, np.nan, 0.2], dtype=np.float32), "NaN"),
    ],
)
def test_what_is_not_a_mono_waveform_is_refused(extractor, speech, message):
    with pytest.raises(ValueError, match=message):
        extractor(speech, RATE)


def test_save_and_load(tmp_path):
    Speech2FaceFeatureExtractor(clip_seconds=1.5, do_normalize=False).save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(loaded, Speech2FaceFeatureExtractor)
    assert (loaded.clip_seconds, loaded.do_normalize, loaded.sampling_rate) == (1.5, False, RATE)
