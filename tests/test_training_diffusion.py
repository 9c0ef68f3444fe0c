"""The decoder's loss and sampling against a denoiser that knows the answer."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from modeling_speech2face import faces_to_latents
from training import train_face_decoder
from training.compare_samplers import SAMPLERS
from training.configuration import FaceDecoderTraining

NOISE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
}
CONFIG = FaceDecoderTraining(scheduler=NOISE, sampler_config=SAMPLERS[FaceDecoderTraining.sampler])


class KnowsTheFace(nn.Module):
    """Velocity towards one face: v = alpha * noise - sigma * face, from the noisy latents alone."""

    def __init__(self, face: torch.Tensor):
        super().__init__()
        self.latents = faces_to_latents(face, 2)  # (1, 12, 4, 4)
        self.unet = SimpleNamespace(config=SimpleNamespace(in_channels=12, sample_size=4))
        self.alphas = DDPMScheduler(**NOISE).alphas_cumprod

    def forward(self, noisy, timesteps, embeddings, is_null):
        squared = self.alphas[timesteps.long()][:, None, None, None]
        alpha, sigma = squared.sqrt(), (1 - squared).sqrt()
        noise = (noisy - alpha * self.latents) / sigma
        return alpha * noise - sigma * self.latents


@pytest.fixture
def face():
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("steps", [1, 4, 15])
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_samplers_reach_the_face(face, sampler, steps, guidance_scale):
    import dataclasses

    config = dataclasses.replace(CONFIG, sampler=sampler, sampler_config=SAMPLERS[sampler])
    images = train_face_decoder.decode(
        KnowsTheFace(face),
        train_face_decoder.build_sampler(config),
        torch.zeros(2, 128),
        steps,
        guidance_scale,
        torch.Generator().manual_seed(0),
    )
    # 0.05 is six grey values: a step starts at the nearest timestep, not at its exact noise.
    torch.testing.assert_close(images, face.expand(2, -1, -1, -1), rtol=0, atol=0.05)


def test_loss_is_zero_for_who_knows_and_not_for_others(face):
    batch = {
        "faces": face.expand(6, -1, -1, -1),
        "embeddings": torch.zeros(6, 128),
        "is_null": torch.zeros(6, dtype=torch.bool),
    }
    scheduler = DDPMScheduler(**NOISE)
    torch.manual_seed(0)
    loss = train_face_decoder.diffusion_loss(CONFIG, KnowsTheFace(face), scheduler, batch)
    assert loss.item() < 1e-4
    other = train_face_decoder.diffusion_loss(CONFIG, KnowsTheFace(-face), scheduler, batch)
    assert other.item() > 0.1


def test_noisy_timesteps_count_once_the_snr_weights_end(face):
    import dataclasses

    class KnowsNothing(KnowsTheFace):
        def forward(self, noisy, timesteps, embeddings, is_null):
            return torch.zeros_like(noisy)

    batch = {
        "faces": face.expand(32, -1, -1, -1),
        "embeddings": torch.zeros(32, 128),
        "is_null": torch.zeros(32, dtype=torch.bool),
    }
    config = dataclasses.replace(CONFIG, snr_gamma_steps=5)
    losses = []
    for step in (4, 5):
        torch.manual_seed(0)
        losses.append(
            train_face_decoder.diffusion_loss(
                config, KnowsNothing(face), DDPMScheduler(**NOISE), batch, step
            ).item()
        )
    alphas = DDPMScheduler(**NOISE).alphas_cumprod
    velocity = (alphas + (1 - alphas) * face.square().mean()).mean()  # its mean square, all alike
    assert losses[1] == pytest.approx(velocity.item(), rel=0.05)
    assert losses[0] < 0.7 * losses[1]


def test_min_snr_weights_by_hand():
    scheduler = DDPMScheduler(**NOISE)
    timesteps = torch.tensor([10, 500, 900])
    squared = scheduler.alphas_cumprod[timesteps]
    snr = squared / (1 - squared)
    weights = train_face_decoder.snr_weights(scheduler, timesteps, gamma=5.0)
    assert snr[0] > 5 > snr[1]
    expected = torch.stack([5 / (snr[0] + 1), snr[1] / (snr[1] + 1), snr[2] / (snr[2] + 1)])
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)


def test_unknown_sampler_is_refused():
    with pytest.raises(ValueError, match="no scheduler 'Magic'"):
        train_face_decoder.build_sampler(FaceDecoderTraining(sampler="Magic"))
