"""Changed voices differ from their recordings by what was asked, and by nothing else."""

import numpy as np
import pytest
import torch

from dataset_scripts.synthetic_cast.voice_shift import shift_voice
from modeling_speech2face import load_audio
from training.configuration import Augmentation
from training.voice_changes import VoiceChanges, change_timbres, draw_changes

SAMPLES = 48000  # 3 s


@pytest.fixture(scope="module")
def speech(sample_recording):
    """(2, T): a reader, and the same one louder."""
    heard = torch.from_numpy(load_audio(sample_recording)[:SAMPLES])
    return torch.stack([heard, 2 * heard]).float()


def changes(formants: list[float], breath: list[float]) -> VoiceChanges:
    return VoiceChanges(np.ones(len(formants)), np.asarray(formants), np.asarray(breath))


def changed(speech: torch.Tensor, *what: list[float], seed: int = 0) -> torch.Tensor:
    return change_timbres(speech, changes(*what), torch.Generator().manual_seed(seed))


def power_above(frequency_hz: float, signal: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(signal)) ** 2
    return float(spectrum[int(frequency_hz * len(signal) / 16000) :].sum())


@pytest.mark.parametrize("ratio", [0.94, 1.06])
def test_formants_move_as_in_the_casts_voices(speech, ratio):
    after = changed(speech, [ratio, 1.0], [0.0, 0.0])
    expected = shift_voice(speech[0].numpy(), 16000, formant_ratio=ratio)
    assert np.corrcoef(after[0], expected)[0, 1] > 0.999
    assert torch.equal(after[1], speech[1])  # nothing was asked of it


def test_breath_is_as_loud_as_in_the_casts_voices(speech):
    nearly_none = changed(speech, [1.0, 1.0], [1e-9, 1e-9])
    for breath in (0.2, 0.5):
        added = changed(speech, [1.0, 1.0], [breath, breath]) - nearly_none
        breathy = shift_voice(
            speech[0].numpy(), 16000, breathiness=breath, rng=np.random.default_rng(0)
        )
        expected = breathy - shift_voice(speech[0].numpy(), 16000)
        ratio = power_above(1000, added[0].numpy()) / power_above(1000, expected)
        assert 0.8 < ratio < 1.25
        assert power_above(0, added[0].numpy()) < 1.3 * power_above(600, added[0].numpy())
        torch.testing.assert_close(
            added[1].norm() / added[0].norm(), torch.tensor(2.0), rtol=0.2, atol=0
        )


def test_levels_stay_and_seeds_decide(speech):
    one = changed(speech, [1.05, 0.97], [0.4, 0.0])
    torch.testing.assert_close(one.norm(dim=1), speech.norm(dim=1), rtol=1e-4, atol=0)
    assert torch.equal(one, changed(speech, [1.05, 0.97], [0.4, 0.0]))
    other = changed(speech, [1.05, 0.97], [0.4, 0.0], seed=1)
    assert not torch.equal(one[0], other[0]) and torch.equal(
        one[1], other[1]
    )  # no breath, no noise


def test_silence_and_short_clips_stay_finite():
    for clips in (torch.zeros(2, 16000), torch.full((2, 1200), 0.1)):
        after = changed(clips, [1.1, 0.9], [0.5, 0.0])
        assert after.shape == clips.shape and torch.isfinite(after).all()
        assert after.abs().max() <= 0.2


def test_what_is_drawn():
    rng = np.random.default_rng(0)
    drawn = draw_changes(Augmentation(speed=0.1, formants=0.06, breath=0.5), 4000, rng)
    assert 0.9 <= drawn.speed.min() < 0.901 and 1.099 < drawn.speed.max() <= 1.1
    touched = drawn.are_of_timbre
    assert 0.47 < touched.mean() < 0.53  # half of them
    assert 0.94 <= drawn.formants.min() < 0.941 and 1.059 < drawn.formants.max() <= 1.06
    assert 0.499 < drawn.breath.max() <= 0.5 and (drawn.breath[~touched] == 0).all()
    assert (drawn.formants[~touched] == 1).all()
    for config in (None, Augmentation()):
        assert not draw_changes(config, 10, rng).are_of_timbre.any()
    assert (draw_changes(None, 10, rng).speed == 1).all()
