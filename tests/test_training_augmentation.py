"""Augmented speech stays speech-like in form, follows its seed, and does what it says."""

import numpy as np
import pytest
import torch

from training.augmentation import augment, crop
from training.configuration import Augmentation

NOTHING = Augmentation(
    speed=0, gain_db=0, equaliser_db=0, reverberation=0, noise=0, band_limit=0, clipping=0, mu_law=0
)


def speech(batch: int = 4, samples: int = 16000) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


def run(config: Augmentation, seed: int = 0, batch: torch.Tensor | None = None) -> torch.Tensor:
    batch = speech() if batch is None else batch
    return augment(batch, config, torch.Generator().manual_seed(seed))


def changed(**values) -> Augmentation:
    return Augmentation(**(vars(NOTHING) | values))


def test_shape_range_and_finiteness():
    everything = changed(
        equaliser_db=6, reverberation=1, noise=1, band_limit=1, clipping=1, mu_law=1, gain_db=20
    )
    for batch in (speech(), torch.zeros(2, 8000), speech(1, 12345)):
        result = run(everything, batch=batch)
        assert result.shape == batch.shape and result.dtype == torch.float32
        assert torch.isfinite(result).all() and result.abs().max() <= 1


def test_same_seed_same_sound_other_seed_another():
    torch.testing.assert_close(run(Augmentation()), run(Augmentation()), rtol=0, atol=0)
    assert not torch.allclose(run(Augmentation()), run(Augmentation(), seed=1))


def test_nothing_asked_nothing_changed_but_level():
    before, after = speech(), run(NOTHING)
    ratio = after.norm(dim=1) / before.norm(dim=1)
    torch.testing.assert_close(after, before * ratio[:, None], rtol=1e-3, atol=1e-5)


def test_noise_has_the_ratio_that_was_asked_for():
    before = speech()
    after = run(changed(noise=1, babble=0, snr_db=(10, 10)))
    unit = before / before.norm(dim=1, keepdim=True)
    clean = (after * unit).sum(1, keepdim=True) * unit
    snr_db = 20 * torch.log10(clean.norm(dim=1) / (after - clean).norm(dim=1))
    torch.testing.assert_close(snr_db, torch.full((4,), 10.0), rtol=0, atol=1.0)


def test_babble_comes_from_the_other_rows():
    batch = torch.zeros(2, 16000)
    time = torch.arange(16000) / 16000
    batch[0], batch[1] = torch.sin(2 * torch.pi * 500 * time), torch.sin(2 * torch.pi * 2000 * time)
    heard = torch.fft.rfft(run(changed(noise=1, babble=1, snr_db=(6, 6)), batch=batch)).abs()
    assert heard[0, 2000] > 0.1 * heard[0, 500] > 0


def test_telephone_keeps_300_to_3400_hz():
    spectrum = torch.fft.rfft(run(changed(band_limit=1, telephone=1))).abs().square()
    frequency = torch.fft.rfftfreq(16000, 1 / 16000)
    inside = spectrum[:, (frequency > 500) & (frequency < 3000)].mean(1)
    for outside in (frequency < 100, frequency > 5500):
        assert (spectrum[:, outside].mean(1) < 0.02 * inside).all()


def test_reverberation_rings_on_after_the_sound():
    batch = torch.zeros(3, 16000)
    batch[:, 1000:1200] = speech(3, 200)
    after = run(changed(reverberation=1, reverberation_s=(0.4, 0.5)), batch=batch)
    assert (after[:, 1500:4000].square().mean(1) > 1e-8).all()
    assert run(NOTHING, batch=batch)[:, 1500:4000].abs().max() < 1e-5


def test_mu_law_leaves_at_most_256_levels():
    result = run(changed(mu_law=1))
    assert max(len(row.unique()) for row in result) <= 256 < len(run(NOTHING)[0].unique())


def test_clipping_flattens_peaks():
    def crest(x):
        return x.abs().amax(1) / x.square().mean(1).sqrt()

    assert (crest(run(changed(clipping=1))) < crest(run(NOTHING))).all()


def test_crop_loops_what_is_short_and_cuts_what_is_long():
    rng = np.random.default_rng(0)
    ramp = np.arange(100, dtype=np.int16)
    looped = crop(ramp, 250, rng) * 32768
    assert looped.shape == (250,) and looped.dtype == np.float32
    assert looped.min() >= 0 and looped.max() <= 99
    piece = crop(np.arange(10000, dtype=np.int16), 100, rng) * 32768
    np.testing.assert_allclose(np.diff(piece), 1, atol=1e-2)


@pytest.mark.parametrize("speed", [0.95, 1.0, 1.08])
def test_crop_plays_at_the_speed_that_is_asked_for(speed):
    ramp = np.arange(30000, dtype=np.int16)
    piece = crop(ramp, 1000, np.random.default_rng(0), speed) * 32768
    assert np.diff(piece).mean() == pytest.approx(speed, abs=1e-3)


def test_crop_of_a_recording_as_long_as_the_clip():
    same = crop(np.full(100, 16384, np.int16), 100, np.random.default_rng(0))
    assert same == pytest.approx(np.full(100, 0.5))
