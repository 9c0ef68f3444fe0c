"""The decoder's losses and sampling against denoisers that know the answer, and a student's."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from modeling_speech2face import faces_to_latents, guidance_embedding
from tests.tiny import tiny_pipeline
from training.compare_samplers import SAMPLERS
from training.configuration import FaceDecoderDistillation, FaceDecoderTraining
from training.diffusion import FaceDecoder, NoiseSchedule, build_sampler, decode
from training.distill_face_decoder import DistillationLoss, build_student
from training.train_face_decoder import DiffusionLoss

NOISE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
}
FLOW = {"prediction_type": "flow"}
BOTH = pytest.mark.parametrize("noise", [NOISE, FLOW], ids=["v", "flow"])
CONFIG = FaceDecoderTraining(scheduler=NOISE, condition_dropout=0)
PAIRS = SimpleNamespace(teacher="colours", embeddings=torch.zeros(2, 3).numpy())


class KnowsTheFace(nn.Module):
    """Predicts what leads to one face, from the noisy latents alone."""

    def __init__(self, face: torch.Tensor, noise: dict = NOISE):
        super().__init__()
        self.latents = faces_to_latents(face, 2)  # (1, 12, 4, 4)
        config = SimpleNamespace(in_channels=12, sample_size=4, time_cond_proj_dim=None)
        self.unet = SimpleNamespace(config=config)
        self.flow = noise is FLOW
        self.alphas = DDPMScheduler(**NOISE).alphas_cumprod

    def forward(self, noisy, timesteps, embeddings, is_null, scales=None):
        if self.flow:
            sigma = timesteps[:, None, None, None] / 1000
            alpha = 1 - sigma
        else:
            squared = self.alphas[timesteps.long()][:, None, None, None]
            alpha, sigma = squared.sqrt(), (1 - squared).sqrt()
        noise = (noisy - alpha * self.latents) / sigma
        return noise - self.latents if self.flow else alpha * noise - sigma * self.latents


class KnowsNothing(KnowsTheFace):
    def forward(self, noisy, timesteps, embeddings, is_null, scales=None):
        return torch.zeros_like(noisy)


@pytest.fixture
def face():
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def batch_of(face: torch.Tensor, rows: int, embedding: torch.Tensor | None = None) -> dict:
    """Rows of one face, all with one embedding."""
    embedding = torch.zeros(3) if embedding is None else embedding
    latents = faces_to_latents(face, 2).expand(rows, -1, -1, -1)
    return {"latents": latents, "embeddings": embedding.expand(rows, -1)}


@BOTH
@pytest.mark.parametrize("steps", [1, 4, 15])
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_samplers_reach_the_face(face, noise, steps, guidance_scale):
    for name, arguments in SAMPLERS[noise["prediction_type"] == "flow"].items():
        images = decode(
            KnowsTheFace(face, noise),
            build_sampler(noise, name, arguments),
            torch.zeros(2, 128),
            steps,
            guidance_scale,
            torch.Generator().manual_seed(0),
        )
        # 0.05 is six grey values: a step starts at the nearest timestep, not at its exact noise.
        torch.testing.assert_close(images, face.expand(2, -1, -1, -1), rtol=0, atol=0.05)


def test_no_step_of_a_flow_is_wasted():
    from modeling_speech2face import set_timesteps

    sampler = build_sampler(FLOW, "FlowMatchEulerDiscreteScheduler", {})
    set_timesteps(sampler, 4)
    assert sampler.sigmas.tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert sampler.timesteps.tolist() == [1000, 750, 500, 250]


@BOTH
def test_loss_is_zero_for_who_knows_and_not_for_others(face, noise):
    loss_of = DiffusionLoss(dataclasses.replace(CONFIG, scheduler=noise), PAIRS)
    torch.manual_seed(0)
    assert loss_of(KnowsTheFace(face, noise), batch_of(face, 6))["loss"].item() < 1e-4
    assert loss_of(KnowsTheFace(-face, noise), batch_of(face, 6))["loss"].item() > 0.1


def test_noisy_timesteps_count_once_the_snr_weights_end(face):
    loss_of = DiffusionLoss(dataclasses.replace(CONFIG, snr_gamma_steps=5), PAIRS)
    losses = []
    for step in (4, 5):
        torch.manual_seed(0)
        losses.append(loss_of(KnowsNothing(face), batch_of(face, 32), step)["loss"].item())
    alphas = DDPMScheduler(**NOISE).alphas_cumprod
    velocity = (alphas + (1 - alphas) * face.square().mean()).mean()  # its mean square, all alike
    assert losses[1] == pytest.approx(velocity.item(), rel=0.05)
    assert losses[0] < 0.7 * losses[1]


def test_min_snr_weights_by_hand():
    schedule = NoiseSchedule(NOISE)
    timesteps = torch.tensor([10, 500, 900])
    squared = DDPMScheduler(**NOISE).alphas_cumprod[timesteps]
    snr = squared / (1 - squared)
    weights = schedule.weights(timesteps, gamma=5.0)
    assert snr[0] > 5 > snr[1]
    expected = torch.stack([5 / (snr[0] + 1), snr[1] / (snr[1] + 1), snr[2] / (snr[2] + 1)])
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(schedule.signal(timesteps), squared)
    for_noise = NoiseSchedule(NOISE | {"prediction_type": "epsilon"}).weights(timesteps, 5.0)
    torch.testing.assert_close(for_noise, torch.stack([5 / snr[0], *torch.ones(2)]))


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "flow"])
def test_noise_and_velocity_are_diffusers_and_lead_back(kind):
    schedule = NoiseSchedule(NOISE | {"prediction_type": kind})
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 6, 3, 4, 4)
    timesteps = schedule.timesteps(6)
    noisy = schedule.noised(clean, noise, timesteps)
    target = schedule.target(clean, noise, timesteps)
    if kind != "flow":
        theirs = DDPMScheduler(**NOISE)
        torch.testing.assert_close(noisy, theirs.add_noise(clean, noise, timesteps))
        velocity = theirs.get_velocity(clean, noise, timesteps)
        torch.testing.assert_close(target, velocity if kind == "v_prediction" else noise)
    back = schedule.clean(noisy, target, timesteps)
    torch.testing.assert_close(back, clean, atol=1e-2 if kind == "epsilon" else 1e-4, rtol=0)


@BOTH
def test_every_place_in_a_batch_meets_every_noise(noise):
    torch.manual_seed(0)
    drawn = torch.stack([NoiseSchedule(noise).timesteps(8) for _ in range(400)]) / 1000
    first, last = drawn[:, 0], drawn[:, -1]
    assert abs(first.mean() - 0.5) < 0.05 and abs(last.mean() - 0.5) < 0.05
    if noise is NOISE:  # one in each eighth
        assert ((drawn.sort(1).values * 8).floor() == torch.arange(8)).all()


def test_a_flow_is_learnt_most_halfway():
    torch.manual_seed(0)
    sigmas = NoiseSchedule(FLOW).timesteps(4000) / 1000
    assert 0 < sigmas.min() and sigmas.max() < 1
    logits = (sigmas / (1 - sigmas)).log()
    assert logits.mean().abs() < 0.02 and abs(logits.std() - 1) < 0.02


class MeanColour(nn.Module):
    """A teacher that sees nothing but colour: (B, 3, S, S) to (B, 3)."""

    def forward(self, faces):
        return faces.mean((2, 3))


@BOTH
def test_the_teacher_sees_who_was_asked_for(noise, monkeypatch):
    monkeypatch.setattr("training.train_face_decoder.load_teacher", lambda *_: MeanColour())
    colour = torch.tensor([0.6, -0.2, 0.2])
    face = colour[None, :, None, None].expand(1, 3, 8, 8)
    pairs = SimpleNamespace(teacher="colours", embeddings=torch.full((2, 3), 0.5).numpy())
    config = dataclasses.replace(
        CONFIG, scheduler=noise, embedding_loss=0.5, embedding_loss_rows=64
    )
    loss_of, batch = DiffusionLoss(config, pairs), batch_of(face, 64, colour / 2)
    torch.manual_seed(0)
    losses = loss_of(KnowsTheFace(face, noise), batch)
    assert losses["embedding"].item() == pytest.approx(0, abs=1e-4)
    losses = loss_of(KnowsTheFace(-face, noise), batch)
    signal = loss_of.schedule.signal(loss_of.schedule.timesteps(64))
    expected = 2 * signal[signal >= config.embedding_loss_signal].mean()  # the opposite colour
    assert losses["embedding"].item() == pytest.approx(expected.item(), rel=0.05)
    total = losses["denoising"] + 0.5 * losses["embedding"]
    torch.testing.assert_close(losses["loss"], total)


def test_the_teacher_looks_at_few_and_at_nobody_in_particular(face, monkeypatch):
    looked = []

    class Watching(MeanColour):
        def forward(self, faces):
            looked.append(len(faces))
            return super().forward(faces)

    monkeypatch.setattr("training.train_face_decoder.load_teacher", lambda *_: Watching())
    config = dataclasses.replace(CONFIG, embedding_loss=1.0, embedding_loss_rows=5)
    batch = batch_of(face, 32, torch.ones(3))
    DiffusionLoss(config, PAIRS)(KnowsTheFace(face), batch)
    without = dataclasses.replace(config, condition_dropout=1.0)
    losses = DiffusionLoss(without, PAIRS)(KnowsTheFace(face), batch)
    assert looked == [5] and losses["embedding"].item() == 0
    later = DiffusionLoss(dataclasses.replace(config, embedding_loss_from=7), PAIRS)
    assert later(KnowsTheFace(face), batch, step=6)["embedding"].item() == 0 and looked == [5]
    later(KnowsTheFace(face), batch, step=7)
    assert looked == [5, 5]


@pytest.mark.parametrize(
    ("scheduler", "sampler", "sentence"),
    [
        (NOISE, "Magic", "no scheduler 'Magic'"),
        (FLOW, "DDIMScheduler", "DDIMScheduler cannot sample a flow"),
        ({"prediction_type": "sample"}, "DDIMScheduler", "must be flow, v_prediction or epsilon"),
    ],
)
def test_unknown_samplers_are_refused(scheduler, sampler, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_sampler(scheduler, sampler, {})


def tiny_decoder() -> FaceDecoder:
    pipeline = tiny_pipeline()
    return FaceDecoder(pipeline.unet, pipeline.embedding_projection).requires_grad_(False)


def test_a_student_starts_as_the_decoder_and_learns_its_guidance():
    guided = tiny_decoder()
    config = FaceDecoderDistillation(guidance_scales=(1.0, 3.0), guidance_embedding_size=8)
    student = build_student(config, guided)
    torch.manual_seed(0)
    latents, embeddings = torch.randn(16, 12, 8, 8), torch.randn(16, 8)
    noisy, timesteps, scales = torch.randn(16, 12, 8, 8), torch.arange(16) * 60, torch.rand(16) + 2
    is_null = torch.arange(16) % 2 == 0
    same = student(noisy, timesteps, embeddings, is_null, scales)
    torch.testing.assert_close(same, guided(noisy, timesteps, embeddings, is_null))
    loss_of = DistillationLoss(config, guided, NoiseSchedule(NOISE))
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = loss_of(student, {"latents": latents, "embeddings": embeddings})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert student.unet.time_embedding.cond_proj.weight.abs().max() > 1e-4


def test_what_guidance_without_strength_would_cost_is_no_loss():
    guided = tiny_decoder()
    config = FaceDecoderDistillation(guidance_scales=(1.0, 1.0), guidance_embedding_size=8)
    batch = {"latents": torch.randn(4, 12, 8, 8), "embeddings": torch.randn(4, 8)}
    loss_of = DistillationLoss(config, guided, NoiseSchedule(NOISE))
    assert loss_of(build_student(config, guided), batch)["loss"].item() < 1e-10


def test_the_scale_is_told_as_in_diffusers_own_pipelines():
    from diffusers import LatentConsistencyModelPipeline

    scales = torch.tensor([1.0, 1.5, 3.0])
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scales - 1, 16)
    torch.testing.assert_close(guidance_embedding(scales, 16), theirs)


def test_a_distilled_decoder_takes_one_pass_a_step():
    guided, passes = tiny_decoder(), []
    student = build_student(FaceDecoderDistillation(guidance_embedding_size=8), guided)
    nn.init.normal_(student.unet.time_embedding.cond_proj.weight)
    for decoder in (guided, student):
        decoder.unet.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    sampler = build_sampler(NOISE, CONFIG.sampler, {})
    faces = [
        decode(decoder, sampler, torch.ones(3, 8), 2, scale, torch.Generator().manual_seed(0))
        for decoder, scale in ((guided, 2.0), (student, 2.0), (student, 1.5))
    ]
    assert passes == [6, 6, 3, 3, 3, 3]
    assert not torch.allclose(faces[1], faces[2], atol=1e-4)  # the scale is heard
