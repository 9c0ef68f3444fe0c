"""The trainings at tiny size: they run, a killed run continues exactly, and the parts fit."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_runs import assert_same_weights, configuration_of, weights_of, written
from tests.training_cast import write_cast
from training import (
    distill_face_decoder,
    train_face_decoder,
    train_normalized_decoder,
    train_voice_encoder,
    voice_teacher,
)
from training.assemble_checkpoint import assemble, check_size, sizes_of
from training.checkpoints import (
    TrainingFailed,
    learning_rate_factor,
    list_checkpoints,
    optimizer_of,
    take_step,
)
from training.configuration import (
    FaceDecoderTraining,
    Training,
    VoiceEncoderLosses,
    VoiceEncoderTraining,
)
from training.data import load_pairs
from training.diffusion import FaceDecoder, decode
from training.latents import VaeLatents, load_vae
from training.model_card import checkpoint_facts
from training.stated_voices import StatedVoices


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_cast(folder / "cast")
    return folder


@pytest.fixture(scope="module")
def voice_encoder(folder):
    return train_voice_encoder.train(configuration_of("voice_encoder", folder, "voice"))


@pytest.fixture(scope="module")
def face_decoder(folder):
    return train_face_decoder.train(configuration_of("face_decoder", folder, "face"))


@pytest.fixture(scope="module")
def normalized_decoder(folder):
    return train_normalized_decoder.train(
        configuration_of("normalized_decoder", folder, "normalized")
    )


def test_interrupted_voice_encoder_equals_uninterrupted(folder, voice_encoder):
    config = configuration_of("voice_encoder", folder, "voice_interrupted")
    assert train_voice_encoder.train(config, stop_at_step=3) is None
    assert_same_weights(train_voice_encoder.train(config), voice_encoder)


def every_loss(folder: Path, decoder: Path, output: str) -> VoiceEncoderTraining:
    """A configuration in which each loss of the voice encoder has its own weight."""
    names = ["mse", "cosine", "normalised_l2", "info_nce", "distillation", "feature_l1"]
    names += ["classifier_distillation", "am_softmax", "voice_parameters"]
    losses = VoiceEncoderLosses(**{name: 0.1 * (k + 1) for k, name in enumerate(names)})
    asked = {"losses": losses, "feature_decoder": str(decoder / "normalized_decoder")}
    asked |= {"voice_teacher": "loudness"}
    return configuration_of("voice_encoder", folder, output, **asked)


@pytest.fixture
def loudness(monkeypatch):
    """A voice teacher of this test's own."""

    def embed(waveform: np.ndarray) -> np.ndarray:
        shares = np.asarray([np.square(part).sum() for part in np.array_split(waveform, 3)])
        return (shares / np.linalg.norm(shares)).astype(np.float32)

    backend = voice_teacher.Backend(lambda: embed, takes_model=False)
    monkeypatch.setitem(voice_teacher.BACKENDS, "loudness", backend)


def test_interrupted_run_of_every_loss_equals_uninterrupted(folder, normalized_decoder, loudness):
    whole = train_voice_encoder.train(every_loss(folder, normalized_decoder, "every_loss"))
    config = every_loss(folder, normalized_decoder, "every_loss_interrupted")
    assert train_voice_encoder.train(config, stop_at_step=3) is None
    assert_same_weights(train_voice_encoder.train(config), whole)
    shipped = {name.split(".")[0] for name in weights_of(whole)}
    assert not shipped & {
        "voice_head",
        "parameter_head",
        "speaker_weights",
        "first_layer",
        "feature_decoder",
    }
    kept = weights_of(whole.parent / "checkpoint-6")
    resumed = weights_of(Path(config.output) / "checkpoint-6")
    for name in ("speaker_weights", "voice_head.1.weight", "parameter_head.1.weight"):
        assert torch.equal(kept[name], resumed[name])
    pairs = load_pairs(config.dataset, "train", config.cache)
    start = train_voice_encoder.speaker_prototypes(pairs)
    learnt = kept["speaker_weights"]
    assert learnt.shape == start.shape == (8, 128) and not torch.equal(learnt, start)
    assert not [name for name in kept if "first_layer" in name]
    train_voice_encoder.export(config, list_checkpoints(config.output)[-1], folder / "every_out")
    assert_same_weights(folder / "every_out", whole)


def test_the_weighted_sum_is_of_the_losses(folder, normalized_decoder, loudness):
    config = every_loss(folder, normalized_decoder, "sum")
    pairs = load_pairs(config.dataset, "train", config.cache)
    voices = voice_teacher.voice_embeddings(pairs, config.voice_teacher)
    student = train_voice_encoder.build_student(config, pairs, voices).train()
    references = train_voice_encoder.load_references(config, pairs, torch.device("cpu"))
    batch = train_voice_encoder.VoiceBatches(config, pairs, voices)(0)
    predicted, heads = student(batch["input_values"])
    parts = train_voice_encoder.weighted_losses(config, predicted, heads, batch, references)
    target, decoder = batch["target"], references.feature_decoder
    torch.testing.assert_close(
        parts["feature_l1"],
        0.6 * (decoder.features(predicted) - decoder.features(target)).abs().sum(1).mean(),
    )
    centred = pairs.embeddings - pairs.embeddings.mean(0)
    own = np.stack([centred[rows].mean(0) for rows in pairs.pairs_of_speakers()])
    own = torch.from_numpy(own / np.linalg.norm(own, axis=1, keepdims=True))  # (C, D)
    length = predicted.norm(dim=1, keepdim=True)
    opinions = [
        15 * x @ own.T for x in (target / target.norm(dim=1, keepdim=True), predicted / length)
    ]
    wanted, said = opinions[0].softmax(1), opinions[1].log_softmax(1)
    torch.testing.assert_close(
        parts["classifier_distillation"], -0.7 * (wanted * said).sum(1).mean()
    )
    margin = 0.35 * torch.nn.functional.one_hot(batch["speakers"], 8)
    said = (30 * (predicted / length @ own.T - margin)).log_softmax(
        1
    )  # the weights are at their start
    own_speaker = said[torch.arange(4), batch["speakers"]]
    torch.testing.assert_close(parts["am_softmax"], -0.8 * own_speaker.mean())
    stated, heard = batch["voice_parameters"], heads["voice_parameters"]
    assert heard.shape == stated.shape == (4, len(StatedVoices(pairs).names))
    torch.testing.assert_close(parts["voice_parameters"], 0.9 * (heard - stated).square().mean())
    assert len(parts) == 9
    # DDP waits for the gradient of every parameter.
    sum(parts.values()).backward()
    assert [n for n, p in student.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(weight.grad is None for weight in decoder.parameters())


def test_a_wrong_feature_decoder_is_refused(folder, normalized_decoder, loudness):
    import shutil

    config = every_loss(folder, normalized_decoder, "no")
    pairs = load_pairs(config.dataset, "train", config.cache)
    shutil.copytree(config.feature_decoder, folder / "foreign_features")
    path = folder / "foreign_features" / "config.json"
    path.write_text(path.read_text().replace('"dlib"', '"arcface"'))
    for name, error, sentence in (
        ("foreign_features", ValueError, "feature decoder: arcface, data set: dlib"),
        ("nowhere", FileNotFoundError, "name its final/normalized_decoder"),
    ):
        wrong = dataclasses.replace(config, feature_decoder=str(folder / name))
        with pytest.raises(error, match=sentence):
            train_voice_encoder.load_references(wrong, pairs, torch.device("cpu"))


def test_interrupted_face_decoder_equals_uninterrupted(folder, face_decoder):
    config = configuration_of("face_decoder", folder, "face_interrupted")
    assert train_face_decoder.train(config, stop_at_step=3) is None
    assert_same_weights(train_face_decoder.train(config), face_decoder)


def test_interrupted_flow_with_a_teacher_equals_uninterrupted(folder):
    asked = dict(scheduler={"prediction_type": "flow"}, embedding_loss=0.1, embedding_loss_rows=2)
    asked |= dict(sampler="FlowMatchEulerDiscreteScheduler", condition_dropout=0.0)
    whole = train_face_decoder.train(configuration_of("face_decoder", folder, "flow", **asked))
    scheduler = json.loads((whole / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["_class_name"] == "FlowMatchEulerDiscreteScheduler"
    config = configuration_of("face_decoder", folder, "flow_interrupted", **asked)
    assert train_face_decoder.train(config, stop_at_step=3) is None
    assert_same_weights(train_face_decoder.train(config), whole)
    unlooked = configuration_of(
        "face_decoder", folder, "unlooked", **asked | {"embedding_loss": 0.0}
    )
    other = weights_of(train_face_decoder.train(unlooked))
    assert any(not torch.equal(other[name], weight) for name, weight in weights_of(whole).items())


@pytest.fixture(scope="module")
def distilled(folder, face_decoder):
    asked = {"decoder": str(face_decoder)}
    config = configuration_of("face_decoder_distilled", folder, "distilled", **asked)
    return distill_face_decoder.train(config)


def test_interrupted_distillation_equals_uninterrupted(folder, face_decoder, distilled):
    asked = {"decoder": str(face_decoder)}
    config = configuration_of("face_decoder_distilled", folder, "distilled_interrupted", **asked)
    assert distill_face_decoder.train(config, stop_at_step=3) is None
    assert_same_weights(distill_face_decoder.train(config), distilled)
    last = list_checkpoints(config.output)[-1]
    distill_face_decoder.export(config, last, folder / "distilled_exported")
    assert_same_weights(folder / "distilled_exported", distilled)
    assert (Path(config.output) / "samples" / "step-000006.png").is_file()


def test_what_cannot_be_distilled_is_refused(folder, distilled):
    for decoder, sentence in ((folder / "no", "train it first"), (distilled, "distilled already")):
        config = configuration_of("face_decoder_distilled", folder, "no", decoder=str(decoder))
        with pytest.raises((FileNotFoundError, ValueError), match=sentence):
            distill_face_decoder.train(config)


def test_a_distilled_pipeline_takes_one_pass_a_step(folder, voice_encoder, distilled):
    from modeling_speech2face import Speech2FacePipeline

    assemble(voice_encoder, distilled, folder / "one_pass", 3, 2.0)
    pipeline = Speech2FacePipeline.from_pretrained(folder / "one_pass")
    pipeline.set_progress_bar_config(disable=True)
    torch.nn.init.normal_(pipeline.unet.time_embedding.cond_proj.weight)  # a scale that is heard
    passes = []
    pipeline.unet.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))

    def faces(scale: float) -> torch.Tensor:
        return pipeline(
            face_embedding=np.full(128, 0.1, np.float32),
            guidance_scale=scale,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images

    strong, weak = faces(2.0), faces(1.0)
    assert strong.shape == (4, 3, 64, 64) and passes == [4] * 6
    assert not torch.allclose(strong, weak, atol=1e-4)
    decoder = FaceDecoder(pipeline.unet, pipeline.embedding_projection)
    seed = int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(0)))
    embedding = 0.1 - pipeline.voice_encoder.face_embedding_mean
    generator = torch.Generator().manual_seed(seed)
    expected = decode(decoder, pipeline.scheduler, embedding[None], 3, 2.0, generator)
    torch.testing.assert_close(strong[:1], (expected + 1) / 2, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def vae(folder):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8),  # four pixels a side become one latent
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.2,
    )
    vae.save_pretrained(folder / "vae")
    return str(folder / "vae")


def latent_configuration(folder: Path, output: str, vae: str) -> FaceDecoderTraining:
    config = configuration_of(
        "face_decoder", folder, output, vae=vae, embedding_loss=0.1, pixels=128
    )
    return dataclasses.replace(config, unet=config.unet | {"in_channels": 4, "out_channels": 4})


def test_latent_diffusion_is_trained_resumed_assembled_and_called(folder, voice_encoder, vae):
    from modeling_speech2face import Speech2FacePipeline

    config = latent_configuration(folder, "latent", vae)
    decoder = train_face_decoder.train(config)
    again = latent_configuration(folder, "latent_interrupted", vae)
    assert train_face_decoder.train(again, stop_at_step=3) is None
    assert_same_weights(train_face_decoder.train(again), decoder)
    assemble(voice_encoder, decoder, folder / "latent_checkpoint", 2, 2.0)
    pipeline = Speech2FacePipeline.from_pretrained(folder / "latent_checkpoint")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(face_embedding=np.full(128, 0.1, np.float32)).images
    assert [image.size for image in images] == [(128, 128)] * 4
    facts = checkpoint_facts(folder / "latent_checkpoint")
    assert facts["image_size"] == 128 and "vae" in facts["size"]


def test_latents_are_the_vaes_and_encoded_once(folder, vae, monkeypatch):
    from modeling_speech2face import decode_latents

    pairs = load_pairs(str(folder / "cast"), "train", str(folder / "cache"), 128)
    autoencoder = load_vae(vae, "cpu")
    rows, mirrored = np.array([0, 3]), np.zeros(2, bool)
    faces = torch.from_numpy(pairs.faces[rows].astype(np.float32)) / 127.5 - 1
    with torch.no_grad():
        posterior = autoencoder.encode(faces).latent_dist
    latents = VaeLatents(pairs, autoencoder)
    monkeypatch.setattr(autoencoder, "encode", None)  # from now on, they are read
    latents = VaeLatents(pairs, autoencoder)
    drawn = torch.stack(
        [latents(rows, mirrored, np.random.default_rng(seed)) for seed in range(400)]
    )
    raw = drawn / 0.5 + 0.2  # scaling factor and shift undone
    error = (raw.mean(0) - posterior.mean).abs() / posterior.std
    assert error.mean() < 0.06  # 400 draws: a twentieth of the deviation
    assert ((raw.std(0) / posterior.std) - 1).abs().mean() < 0.06
    with torch.no_grad():
        expected = autoencoder.decode(raw[0]).sample
        torch.testing.assert_close(decode_latents(drawn[0], autoencoder), expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"flip": 0.5}, "cannot be mirrored"),
        ({"vae": "nowhere"}, "vae nowhere cannot be loaded"),
        ({"pixels": 64}, "does not make 64 pixels, but 128"),
        ({"channels": 12}, "are not the VAE's 4 channels"),
    ],
)
def test_a_wrong_latent_configuration_is_refused(folder, vae, changes, sentence):
    config = latent_configuration(folder, "wrong", vae)
    if "channels" in changes:
        changes = {"unet": config.unet | {"in_channels": changes["channels"]}}
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        train_face_decoder.train(dataclasses.replace(config, **changes))


def test_interrupted_normalized_decoder_equals_uninterrupted(folder, normalized_decoder):
    config = configuration_of("normalized_decoder", folder, "normalized_interrupted")
    assert train_normalized_decoder.train(config, stop_at_step=3) is None
    assert_same_weights(train_normalized_decoder.train(config), normalized_decoder)


@pytest.mark.parametrize("training", [train_face_decoder, train_normalized_decoder])
def test_nan_ends_a_decoders_run_which_goes_on_from_before(folder, training, request):
    part = training.__name__.split("train_")[-1]
    config = configuration_of(part, folder, f"{part}_nan", checkpoint_every=10)
    assert training.train(config, stop_at_step=3) is None
    with pytest.raises(TrainingFailed, match="in step .: lower learning_rate.*nan/checkpoint-3"):
        training.train(dataclasses.replace(config, learning_rate=1e30))
    assert [path.name for path in list_checkpoints(config.output)] == ["checkpoint-3"]
    assert_same_weights(training.train(config), request.getfixturevalue(part))


def test_an_infinite_gradient_of_a_finite_loss_is_not_learnt():
    from accelerate import Accelerator

    accelerator, config, module = Accelerator(), Training(), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    module, optimizer = accelerator.prepare(module, optimizer_of(config, module))

    def loss_of(module, batch):
        return {"loss": (module.weight + batch).sqrt().sum()}

    with pytest.raises(FloatingPointError, match="the gradient is NaN or infinite"):
        take_step(accelerator, config, module, optimizer, iter([torch.zeros(1)]), loss_of)
    assert not module.weight.any()
    optimizer.zero_grad()
    take_step(accelerator, config, module, optimizer, iter([torch.ones(1)]), loss_of)
    assert module.weight.any()


def test_a_decoders_speed_is_logged(face_decoder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(face_decoder.parent.rglob("events.out.tfevents.*"))))
    events.Reload()
    for name in ("samples_per_second", "waiting_for_data", "memory_gib"):
        assert all(event.value > 0 for event in events.Scalars(f"speed/{name}")), name


def test_training_changes_the_weights(folder, voice_encoder, face_decoder):
    config = configuration_of("voice_encoder", folder, "voice")
    pairs = load_pairs(config.dataset, "train", config.cache)
    start = train_voice_encoder.build_student(config, pairs, None).model.state_dict()
    end = weights_of(voice_encoder)
    attention = "voice_encoder.encoder.layers.0.attention.q_proj.weight"
    assert not torch.equal(start[attention].half(), end[attention])
    frozen = "voice_encoder.feature_extractor.conv_layers.0.conv.weight"
    assert torch.equal(start[frozen].half(), end[frozen])
    assert torch.count_nonzero(end["residual_factor"]) > 128
    assert (Path(face_decoder).parent / "samples" / "step-000006.png").is_file()


def test_checkpoints_are_rotated(folder, voice_encoder):
    names = [path.name for path in list_checkpoints(Path(voice_encoder).parent)]
    assert names[-2:] == ["checkpoint-4", "checkpoint-6"] and len(names) <= 3  # and the best


def test_checkpoint_can_be_exported(folder, voice_encoder, face_decoder, normalized_decoder):
    config = configuration_of("voice_encoder", folder, "voice")
    last = list_checkpoints(config.output)[-1]
    train_voice_encoder.export(config, last, folder / "voice_exported")
    assert_same_weights(folder / "voice_exported", voice_encoder)
    config = configuration_of("face_decoder", folder, "face")
    train_face_decoder.export(config, list_checkpoints(config.output)[-1], folder / "face_exported")
    assert_same_weights(folder / "face_exported", face_decoder)
    config = configuration_of("normalized_decoder", folder, "normalized")
    last = list_checkpoints(config.output)[-1]
    train_normalized_decoder.export(config, last, folder / "normalized_exported")
    assert_same_weights(folder / "normalized_exported", normalized_decoder)


def test_validation_is_written_beside_the_model(voice_encoder):
    figures = json.loads((voice_encoder / "validation.json").read_text())
    assert figures["gallery"] == 8 and figures["chance_at_5"] == 5 / 8
    assert figures["gender_auc"] == figures["gender_auc/tone"]
    assert 0.5 < figures["spread_of_draws"] < 2


def test_parts_join_into_a_pipeline(folder, voice_encoder, face_decoder, normalized_decoder):
    from modeling_speech2face import Speech2FacePipeline

    output = folder / "checkpoint"
    output.mkdir()
    (output / "README.md").write_text("the card")
    assemble(voice_encoder, face_decoder, output, 3, 2.0, normalized_decoder)
    assert (output / "README.md").read_text() == "the card"
    check_size(output)
    assert sum(sizes_of(output).values()) < 2**20
    assert str(folder) not in "".join(path.read_text() for path in output.rglob("*.json"))
    pipeline = Speech2FacePipeline.from_pretrained(output)  # stored in float16
    assert pipeline.unet.dtype == pipeline.voice_encoder.dtype == torch.float32
    assert pipeline.config.num_inference_steps == 3 and pipeline.config.guidance_scale == 2.0
    pipeline.set_progress_bar_config(disable=True)
    raw = np.full(128, 0.1, np.float32)
    output = pipeline(face_embedding=raw, num_images_per_prompt=2, output_type="pt")
    assert output.images.shape == (2, 3, 64, 64)
    output = pipeline(face_embedding=raw, decoder="normalized", output_type="pt")
    assert output.images.shape == (1, 3, 56, 56)


def test_a_part_that_is_missing_is_named(folder, voice_encoder, face_decoder):
    with pytest.raises(FileNotFoundError, match="normalized_decoder/config.json"):
        assemble(voice_encoder, face_decoder, folder / "no", normalized_decoder=folder / "nowhere")


def test_what_a_voice_tells_joins_the_pipeline(folder, voice_encoder, face_decoder):
    from modeling_speech2face import FaceTraitProbe, Speech2FacePipeline

    probe = FaceTraitProbe(names=["gender", "age"], held_out=[0.99, 0.87], held_out_people=8)
    probe.weights.normal_(generator=torch.Generator().manual_seed(0))
    probe.save_pretrained(folder / "traits")
    assemble(voice_encoder, face_decoder, folder / "telling", face_traits=folder / "traits")
    loaded = Speech2FacePipeline.from_pretrained(folder / "telling").face_traits
    torch.testing.assert_close(loaded.weights, probe.weights, rtol=0, atol=0)  # not halved
    assert "`face_traits`" in (folder / "telling" / "README.md").read_text()
    FaceTraitProbe(face_recogniser="arcface").save_pretrained(folder / "foreign_traits")
    refusals = (("foreign_traits", ValueError, "face traits: arcface"),)
    refusals += (("nowhere", FileNotFoundError, "nowhere/config.json"),)
    for name, error, message in refusals:
        with pytest.raises(error, match=message):
            assemble(voice_encoder, face_decoder, folder / "no", face_traits=folder / name)


def test_pipeline_denoises_as_the_sample_sheet_does(folder, voice_encoder, face_decoder):
    from modeling_speech2face import Speech2FacePipeline

    assemble(voice_encoder, face_decoder, folder / "same", 4, 2.0)
    pipeline = Speech2FacePipeline.from_pretrained(folder / "same")
    pipeline.set_progress_bar_config(disable=True)
    decoder = FaceDecoder(pipeline.unet, pipeline.embedding_projection)
    mean = pipeline.voice_encoder.face_embedding_mean
    raw = mean + 0.05
    seed = int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(0)))
    expected = decode(
        decoder, pipeline.scheduler, (raw - mean)[None], 4, 2.0, torch.Generator().manual_seed(seed)
    )
    image = pipeline(
        face_embedding=raw,
        num_images_per_prompt=1,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    torch.testing.assert_close(image, (expected + 1) / 2, rtol=0, atol=1e-5)


def test_parts_of_different_teachers_are_refused(folder, voice_encoder, face_decoder):
    import shutil

    shutil.copytree(face_decoder, folder / "foreign")
    path = folder / "foreign" / "embedding_projection" / "config.json"
    path.write_text(path.read_text().replace('"dlib"', '"arcface"'))
    with pytest.raises(ValueError, match="different face recognisers"):
        assemble(voice_encoder, folder / "foreign", folder / "refused")
    assert not (folder / "refused").exists()
    with pytest.raises(FileNotFoundError, match="train it first"):
        assemble(voice_encoder, folder / "nowhere", folder / "refused")


def test_a_folder_of_something_else_is_not_overwritten(tmp_path, voice_encoder, face_decoder):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files"):
        assemble(voice_encoder, face_decoder, tmp_path)
    assert (tmp_path / "thesis.txt").is_file()


def test_too_large_a_checkpoint_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").write_bytes(bytes(2000))
    monkeypatch.setattr("training.assemble_checkpoint.MOST_IN_A_FILE", 1999)
    with pytest.raises(ValueError, match="a.safetensors has.*--any-size"):
        check_size(tmp_path)


def test_learning_rate_rises_stays_and_falls():
    config = Training(steps=100, warmup_steps=10, decay_share=0.5)
    factors = [learning_rate_factor(config, step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9:50] == [1.0] * 41
    assert factors[75] == pytest.approx(0.5) and factors[99] < 0.01
    assert factors[50:] == sorted(factors[50:], reverse=True)


def test_learning_rate_falls_in_stairs():
    config = Training(steps=100, warmup_steps=2, decay_share=0.0, decay_factor=0.5, decay_every=40)
    factors = [learning_rate_factor(config, step) for step in range(100)]
    assert factors == [0.5, *[1.0] * 39, *[0.5] * 40, *[0.25] * 20]


def test_filter_bank_hears_its_bands(folder):
    config = configuration_of("voice_encoder", folder, "voice")
    pairs = load_pairs(config.dataset, "train", config.cache)
    model = train_voice_encoder.build_student(config, pairs, None).model
    kernels = model.voice_encoder.feature_extractor.conv_layers[0].conv.weight  # (24, 1, 400)
    response = torch.fft.rfft(kernels[:, 0], 16000).abs()  # (24, 8001), 1 Hz apart
    peaks = response.argmax(1)
    assert (peaks[0::3] - peaks[1::3]).abs().max() < 100  # three phases, one band
    assert (peaks[0::3].diff() > 0).all() and peaks[0] < 300 and peaks[-1] > 5000
    torch.testing.assert_close(
        kernels.unflatten(0, (8, 3)).sum(1), torch.zeros(8, 1, 400), atol=1e-6, rtol=0
    )


def test_wrong_configuration_is_one_sentence(tmp_path, capsys):
    (tmp_path / "wrong.yaml").write_text("stepps: 3\n")
    with pytest.raises(SystemExit) as ended:
        train_voice_encoder.main([str(tmp_path / "wrong.yaml")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "unknown key 'stepps'" in error
    assert "Traceback" not in error


def test_another_data_set_and_output_on_the_command_line(tmp_path):
    from training.checkpoints import run_command
    from training.configuration import VoiceEncoderTraining

    (tmp_path / "some.yaml").write_text("dataset: stills\noutput: here\nsteps: 7\n")
    trained = []
    arguments = [str(tmp_path / "some.yaml"), "--dataset", "films", "--output", "there"]
    run_command(arguments, VoiceEncoderTraining, trained.append, None)
    run_command(arguments[:1], VoiceEncoderTraining, trained.append, None)
    assert [(c.dataset, c.output, c.steps) for c in trained] == [
        ("films", "there", 7),
        ("stills", "here", 7),
    ]


@pytest.mark.slow
def test_accelerate_launch_runs_the_same_training(folder, voice_encoder):
    config = configuration_of("voice_encoder", folder, "launched")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
    result = subprocess.run(
        [*launch, "-m", "training.train_voice_encoder", written(config)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    launched, here = weights_of(folder / "launched" / "final"), weights_of(voice_encoder)
    for name in here:  # the launcher chooses the number of threads, and with it the rounding
        torch.testing.assert_close(launched[name], here[name], rtol=1e-2, atol=1e-3)
