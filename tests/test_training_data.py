"""Data sets are decoded once, batches are a pure function of seed and number, mixes are refused."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modeling_speech2face import latents_to_faces
from tests.training_cast import write_cast
from training.checkpoints import optimizer_of, set_learning_rate
from training.configuration import (
    Augmentation,
    FaceDecoderDistillation,
    FaceDecoderTraining,
    VoiceEncoderLosses,
    VoiceEncoderTraining,
    load_configuration,
)
from training.data import check_same_teacher, load_pairs, speakers_of_batch, teacher_of
from training.diffusion import build_sampler
from training.latents import FoldedPixels
from training.train_face_decoder import FaceBatches, build_decoder
from training.voice_batches import VoiceBatches
from training.voice_teacher import VoiceTeacher


@pytest.fixture(scope="module")
def cast(tmp_path_factory):
    return write_cast(tmp_path_factory.mktemp("data") / "cast")


@pytest.fixture(scope="module")
def pairs(cast, tmp_path_factory):
    return load_pairs(str(cast), "train", str(tmp_path_factory.mktemp("cache")))


def test_what_is_read_is_what_was_written(pairs):
    assert pairs.teacher == "dlib" and len(pairs) == 16 and len(pairs.speaker_names) == 8
    assert pairs.faces.shape == (16, 3, 64, 64) and pairs.faces.dtype == np.uint8
    assert pairs.embeddings.shape == (16, 128)
    assert [len(pairs.speech(i)) for i in range(4)] == [16000, 20000, 16000, 20000]
    assert np.abs(pairs.speech(0)).max() > 1000
    assert set(pairs.genders) == {"female", "male"} and set(pairs.voice_sources) == {"tone"}
    face = pairs.faces[0]
    assert (face[:, 30, 30] == 255 - face[:, 2, 2]).all()  # the dark bar lies where it was drawn
    for rows in pairs.pairs_of_speakers():
        assert len(rows) == 2 and len(set(pairs.speakers[rows])) == 1


def test_second_reading_decodes_nothing(cast, tmp_path, monkeypatch):
    first = load_pairs(str(cast), "test", str(tmp_path))
    monkeypatch.setattr("soundfile.read", lambda *_, **__: pytest.fail("decoded again"))
    again = load_pairs(str(cast), "test", str(tmp_path))
    np.testing.assert_array_equal(first.samples, again.samples)


def test_missing_split_and_missing_card_are_refused(cast, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a folder nor a data set"):
        load_pairs(str(tmp_path / "nothing"), "train", str(tmp_path))
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="names its teacher"):
        teacher_of(str(tmp_path / "bare"))
    (tmp_path / "bare" / "README.md").write_text("---\nlicense: mit\n---\n")
    with pytest.raises(ValueError, match="names no teacher"):
        load_pairs(str(tmp_path / "bare"), "train", str(tmp_path))
    (tmp_path / "bare" / "README.md").write_text((cast / "README.md").read_text())
    with pytest.raises(FileNotFoundError, match="no train-"):
        load_pairs(str(tmp_path / "bare"), "train", str(tmp_path))


def test_different_teachers_are_refused():
    check_same_teacher(voice_encoder="dlib", face_decoder="dlib")
    with pytest.raises(ValueError, match="voice encoder: dlib, face decoder: arcface"):
        check_same_teacher(voice_encoder="dlib", face_decoder="arcface")


def test_every_speaker_once_an_epoch():
    order = np.concatenate([speakers_of_batch(3, batch, 4, 10) for batch in range(5)])
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10].tolist() != order[10:].tolist()
    np.testing.assert_array_equal(speakers_of_batch(3, 2, 4, 10), order[8:12])
    assert speakers_of_batch(4, 0, 10, 10).tolist() != order[:10].tolist()


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_voice_batches_are_a_pure_function(pairs, augmentation):
    config = VoiceEncoderTraining(batch_size=8, crop_seconds=0.5, augmentation=augmentation)
    one, other = VoiceBatches(config, pairs, None), VoiceBatches(config, pairs, None)
    one(0)
    a, b = one(5), other(5)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)
    assert a["input_values"].shape == (8, 8000)
    assert a["speakers"].unique().numel() == 8  # each batch holds different speakers
    torch.testing.assert_close(a["input_values"].mean(1), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(a["input_values"].std(1), torch.ones(8), atol=1e-2, rtol=0)
    assert not torch.equal(one(6)["input_values"], a["input_values"])


def test_processes_share_the_batches_out(pairs):
    config = VoiceEncoderTraining(batch_size=4, crop_seconds=0.5, augmentation=None)
    alone = VoiceBatches(config, pairs, None)
    for process in (0, 1):
        second = VoiceBatches(config, pairs, None, process, processes=2)(3)
        torch.testing.assert_close(second["target"], alone(6 + process)["target"])


def test_face_batches_keep_faces_and_embeddings_together(pairs):
    config = FaceDecoderTraining(batch_size=16, embedding_noise=0, flip=0.5)
    batch = FaceBatches(config, pairs, FoldedPixels(pairs, 12))(1, "cpu")
    centred = pairs.embeddings - pairs.embeddings.mean(0)
    mirrored = 0
    for face, embedding in zip(
        latents_to_faces(batch["latents"], 2), batch["embeddings"], strict=True
    ):
        row = np.abs(centred - embedding.numpy()).sum(1).argmin()
        expected = torch.from_numpy(pairs.faces[row].astype(np.float32)) / 127.5 - 1
        mirrored += not torch.equal(face, expected)
        assert torch.equal(face, expected) or torch.equal(face, expected.flip(2))
    assert 0 < mirrored < 16


def test_what_is_kept_of_a_training_names_no_place_of_the_machine(tmp_path):
    teacher = VoiceTeacher("xvector", str(tmp_path / "models" / "voices"))
    config = VoiceEncoderTraining(
        dataset=str(tmp_path / "data" / "cast"),
        output=str(tmp_path),
        voice_teacher=teacher,
        losses=VoiceEncoderLosses(distillation=1.0),
    )
    config.keep_beside(tmp_path)
    text = (tmp_path / "training.json").read_text()
    assert str(tmp_path) not in text
    assert '"dataset": "data/cast"' in text and '"model": "models/voices"' in text


def test_unknown_keys_are_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("steps: 3\nlosses: {mse: 2, cosin: 1}\n")
    with pytest.raises(ValueError, match="unknown key 'cosin' in config.yaml: losses"):
        load_configuration(path, VoiceEncoderTraining)
    path.write_text("setps: 3\n")
    with pytest.raises(ValueError, match="unknown key 'setps'"):
        load_configuration(path, FaceDecoderTraining)
    path.write_text("learning_rate: 1e-3\n")  # YAML reads this as text
    with pytest.raises(ValueError, match="learning_rate in config.yaml must be a number"):
        load_configuration(path, FaceDecoderTraining)
    path.write_text("losses: {distillation: 1.0}\n")
    with pytest.raises(ValueError, match="needs a voice_teacher"):
        load_configuration(path, VoiceEncoderTraining)
    path.write_text("voice_teacher: ge2e\nlosses: {distillation: 1.0}\n")
    config = load_configuration(path, VoiceEncoderTraining)
    path.write_text("voice_teacher: {backend: ge2e}\nlosses: {distillation: 1.0}\n")
    assert config == load_configuration(path, VoiceEncoderTraining)
    path.write_text("guidance_scales: [3, 1]\n")
    with pytest.raises(ValueError, match="guidance_scales must rise from at least 1"):
        load_configuration(path, FaceDecoderDistillation)
    with pytest.raises(FileNotFoundError, match="no configuration"):
        load_configuration(tmp_path / "none.yaml", VoiceEncoderTraining)


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("losses: {feature_l1: 1}", "feature_l1 needs a feature_decoder: name the folder"),
        ("feature_decoder: somewhere", "feature_decoder is named but losses.feature_l1 is 0"),
        ("voice_teacher: ge2e", "voice_teacher is named but losses.distillation is 0"),
        ("losses: {mse: 0, cosine: 0, info_nce: 0}", "no loss has a weight: set one of mse"),
        ("losses: {cosine: -1}", "losses.cosine must be at least 0"),
        ("losses: {classifier_temperature: 0}", "classifier_temperature must be above 0"),
        (
            "voice_teacher: dvector",
            "unknown voice teacher 'dvector': choose among ge2e, campplus, xvector",
        ),
        ("{losses: {voice_parameters: 1}, batch_size: 1}", "batch: set batch_size to 2 or more"),
        ("voice_teacher: xvector", "xvector needs a model: write voice_teacher: {backend: xvec"),
        ("voice_teacher: {backend: ge2e, model: x}", "ge2e brings its own: name no model"),
        ("voice_teacher: {name: ge2e}", "unknown key 'name' in config.yaml: voice_teacher"),
        ("decay_factor: 0", "decay_factor must be above 0, at most 1"),
        ("decay_every: 0", "decay_every must be at least 1"),
    ],
)
def test_contradictions_are_refused(tmp_path, yaml, sentence):
    path = tmp_path / "config.yaml"
    path.write_text(yaml)
    with pytest.raises(ValueError, match=sentence):
        load_configuration(path, VoiceEncoderTraining)


def test_the_papers_recipe_is_the_papers():
    config = load_configuration("training/configs/paper_voice_encoder.yaml", VoiceEncoderTraining)
    assert config.steps * config.batch_size == 3 * 1_700_000
    weights = dataclasses.asdict(config.losses)
    assert {name: weights[name] for name in ("feature_l1", "normalised_l2")} == {
        "feature_l1": 1.0,
        "normalised_l2": 0.025,
    }
    assert weights["classifier_distillation"] == 200 and weights["classifier_temperature"] == 2
    assert not any(weights[name] for name in ("mse", "cosine", "info_nce", "am_softmax"))
    optimizer = optimizer_of(config, torch.nn.Linear(2, 2))
    for group in optimizer.param_groups:
        assert (group["betas"][0], group["eps"], group["weight_decay"]) == (0.5, 1e-4, 0)
    for step, stairs in ((0, 0), (9_999, 0), (10_000, 1), (25_000, 2), (637_499, 63)):
        rate = set_learning_rate(optimizer, config, step)
        assert rate == pytest.approx(1e-3 * 0.95**stairs)
        assert all(group["lr"] == rate for group in optimizer.param_groups)


@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_the_configurations_that_come_along_are_valid(name):
    load_configuration(f"training/configs/{name}_voice_encoder.yaml", VoiceEncoderTraining)
    load_configuration(f"training/configs/{name}_face_decoder.yaml", FaceDecoderTraining)
    path = f"training/configs/{name}_face_decoder_distilled.yaml"
    config = load_configuration(path, FaceDecoderDistillation)
    assert config.guidance_scales == (1.0, 3.0)


def test_the_recipe_for_256_pixels_fits_its_vae(pairs):
    config = load_configuration("training/configs/face_decoder_256.yaml", FaceDecoderTraining)
    stable_diffusions = {"latent_channels": 4, "block_out_channels": (128, 256, 512, 512)}
    with torch.device("meta"):  # no weights are made
        decoder = build_decoder(
            config, pairs, SimpleNamespace(config=SimpleNamespace(**stable_diffusions))
        )
    assert round(sum(weight.numel() for weight in decoder.parameters()) / 1e6) == 238
    build_sampler(config.scheduler, config.sampler, config.sampler_config)


@pytest.mark.parametrize(
    "path", sorted(Path("training/configs").glob("*_voice_encoder.yaml")), ids=str
)
def test_the_voice_encoders_configurations_are_whole(path):
    config = load_configuration(str(path), VoiceEncoderTraining)
    assert config.pretrained or config.model["voice_encoder_config"]
    assert (config.targets == "expected_face") == (path.stem == "demo_voice_encoder")
