"""Speech2FaceModel: shapes, padding, saving, pretrained backbones, recordings, and draws."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from modeling_speech2face import (
    NoSpeechError,
    Speech2FaceModel,
    load_audio,
    speech_probabilities,
)
from modeling_speech2face.voice_activity import speech_share_of_windows
from tests.tiny import FACE_EMBEDDING_SIZE, tiny_config, tiny_model, tiny_voice_encoder_config

RATE = 16000
SPEECH = "samples/librispeech-2414.flac"
BACKBONES = ["wav2vec2", "hubert", "wavlm", "data2vec-audio"]


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    return torch.from_numpy(load_audio(SPEECH))  # 6.8 s


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_shapes():
    model = tiny_model()
    output = model(noise(3, 8000))
    assert output.face_embeddings.shape == (3, FACE_EMBEDDING_SIZE)
    assert output.pooled.shape == (3, 2 * 16)
    assert output.layer_weights.shape == (3,)  # two layers and what goes into them
    torch.testing.assert_close(output.layer_weights.sum(), torch.tensor(1.0))
    as_tuple = model(noise(3, 8000), return_dict=False)
    torch.testing.assert_close(as_tuple[0], output.face_embeddings)


@pytest.mark.parametrize("model_type", BACKBONES)
@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("is_stable", [False, True])
def test_padding_does_not_change_a_row(model_type, norm, is_stable):
    backbone = tiny_voice_encoder_config(
        model_type, feat_extract_norm=norm, do_stable_layer_norm=is_stable
    )
    model = tiny_model(voice_encoder_config=backbone)
    lengths = [6000, 4321, 6000, 1600]
    values, mask = noise(4, 6000), torch.zeros(4, 6000, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
        values[row, length:] = 0
    together = model(values, mask)
    for row, length in enumerate(lengths):
        alone = model(values[row : row + 1, :length])
        torch.testing.assert_close(
            together.face_embeddings[row], alone.face_embeddings[0], atol=1e-6, rtol=1e-5
        )
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-5, rtol=1e-5)


def test_what_is_under_the_padding_does_not_matter():
    model, mask = tiny_model(), torch.ones(1, 6000, dtype=torch.long)
    mask[:, 4000:] = 0
    silent, loud = noise(1, 6000), noise(1, 6000)
    silent[:, 4000:] = 0
    loud[:, 4000:] *= 9
    expected = model(silent, mask).face_embeddings
    torch.testing.assert_close(model(loud, mask).face_embeddings, expected, atol=1e-7, rtol=1e-5)
    assert not torch.allclose(model(loud).face_embeddings, expected, atol=1e-5)


def test_every_layer_counts():
    model, values = tiny_model(), noise(1, 8000)
    seen = []
    for layer in range(3):
        model.layer_scores.data = torch.full((3,), -100.0)
        model.layer_scores.data[layer] = 0
        seen.append(model(values).face_embeddings)
    assert not torch.allclose(seen[0], seen[1]) and not torch.allclose(seen[1], seen[2])


@pytest.mark.parametrize("model_type", BACKBONES)
def test_gradients_reach_every_parameter_with_checkpointing_too(model_type):
    model = tiny_model(voice_encoder_config=tiny_voice_encoder_config(model_type)).train()
    model.gradient_checkpointing_enable()
    model(noise(2, 4000)).face_embeddings.square().sum().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert without == []
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_constant_input_has_finite_gradients():
    # All frames alike: the standard deviation is zero, where the square root has no slope.
    model = tiny_model().train()
    model(torch.zeros(1, 8000)).face_embeddings.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_save_and_load_give_the_same_model(tmp_path):
    model, values = tiny_model(), noise(2, 8000)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, Speech2FaceModel) and not loaded.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    assert torch.equal(model(values).face_embeddings, loaded(values).face_embeddings)
    assert torch.equal(loaded.face_embedding_mean, torch.tensor(model.config.face_embedding_mean))


def test_half_precision_on_disk_loads_as_float32(tmp_path):
    model = tiny_model()
    model.half().save_pretrained(tmp_path)
    loaded = Speech2FaceModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert {weight.dtype for weight in loaded.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(
        loaded(noise(1, 8000)).face_embeddings,
        tiny_model()(noise(1, 8000)).face_embeddings,
        atol=1e-2,
        rtol=1e-2,
    )


@pytest.mark.parametrize("model_type", BACKBONES)
def test_a_pretrained_backbone_keeps_its_weights(model_type, tmp_path):
    torch.manual_seed(1)
    backbone_config = AutoConfig.for_model(**tiny_voice_encoder_config(model_type))
    backbone = AutoModel.from_config(backbone_config).eval()
    backbone.save_pretrained(tmp_path)
    model = Speech2FaceModel.from_voice_encoder_pretrained(
        str(tmp_path), face_embedding_size=5, pooling_hidden_size=4
    )
    assert type(model.voice_encoder) is type(backbone) and not model.training
    values = noise(1, 8000)
    assert torch.equal(
        model.voice_encoder(values).last_hidden_state, backbone(values).last_hidden_state
    )
    assert model(values).face_embeddings.shape == (1, 5)
    assert str(tmp_path) not in model.config.to_json_string()


def test_a_frozen_voice_encoder_leaves_the_rest_to_train():
    model = tiny_model()
    model.freeze_voice_encoder()
    trained = {name.split(".")[0] for name, w in model.named_parameters() if w.requires_grad}
    assert trained == {"layer_scores", "pooling", "projection"}


# Clips and recordings


def test_embed_clip_is_forward_on_the_looped_clip(speech):
    model, clip = tiny_model(), speech[:5000]
    inputs = model.feature_extractor(clip, RATE, return_tensors="pt")
    assert inputs["input_values"].shape == (1, 8000)
    torch.testing.assert_close(model.embed_clip(clip, RATE), model(**inputs).face_embeddings[0])


def test_a_recording_of_one_window_is_that_clip(speech):
    model = tiny_model(clip_seconds=6.0)
    torch.testing.assert_close(
        model.embed_recording(speech[: 4 * RATE], RATE), model.embed_clip(speech[: 4 * RATE], RATE)
    )


def test_windows_count_by_their_share_of_speech(speech):
    model = tiny_model(clip_seconds=2.0)
    first, second = speech[: 2 * RATE], speech[2 * RATE : 4 * RATE]
    recording = torch.cat([first, second, 1e-4 * noise(2 * RATE)])
    is_speech = speech_probabilities(recording) >= 0.5
    shares = [part.float().mean() for part in (is_speech[:62], is_speech[62:125], is_speech[125:])]
    assert shares[0] > 0.5 and shares[1] > 0.5 and shares[2] < 0.1
    expected = sum(
        share * model.embed_clip(window, RATE)
        for share, window in zip(shares, recording.split(2 * RATE), strict=True)
    ) / sum(shares)
    torch.testing.assert_close(
        model.embed_recording(recording, RATE), expected, atol=1e-5, rtol=1e-3
    )


@pytest.mark.parametrize("seconds", [1.9, 2.0, 2.1, 5.0, 6.83])
def test_windows_cover_a_recording_from_start_to_end(speech, seconds):
    recording = speech[: round(seconds * RATE)]
    windows, shares = speech_share_of_windows(recording, RATE, 2 * RATE)
    starts = [window.storage_offset() for window in windows]
    ends = [start + len(window) for start, window in zip(starts, windows, strict=True)]
    assert len(windows) == len(shares) == max(1, -(-len(recording) // (2 * RATE)))
    assert starts[0] == 0 and ends[-1] == len(recording)
    assert all(start <= end for start, end in zip(starts[1:], ends[:-1], strict=True))
    assert all(len(window) == min(2 * RATE, len(recording)) for window in windows)
    assert (shares > 0.3).all()


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (torch.zeros(3 * RATE), "silent"),
        (1e-4 * noise(3 * RATE), "silent"),
        (0.1 * noise(6 * RATE), "no speech"),
        (0.3 * torch.sin(torch.arange(6 * RATE) * 2 * torch.pi * 440 / RATE), "no speech"),
        (0.1 * noise(RATE // 2), "lasts 0.5 s"),
        (torch.zeros(0), "lasts 0.0 s"),
    ],
)
def test_what_is_no_speech_is_refused_in_a_sentence(recording, message):
    with pytest.raises(NoSpeechError, match=message) as error:
        tiny_model().embed_recording(recording, RATE)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_less_than_a_second_of_speech_is_refused(speech):
    start = int((speech_probabilities(speech) > 0.5).float().argmax()) * 512
    recording = torch.cat([torch.zeros(RATE), speech[start : start + RATE // 2], torch.zeros(RATE)])
    with pytest.raises(NoSpeechError, match="only 0.. s of speech"):
        tiny_model().embed_recording(recording, RATE)


@pytest.mark.parametrize(
    "wrong", [0.1 * noise(2, 3 * RATE), torch.full((3 * RATE,), torch.nan)], ids=["stereo", "NaN"]
)
def test_a_recording_that_is_no_waveform_is_refused(wrong):
    with pytest.raises(ValueError, match="mono waveform of shape .* without NaN"):
        tiny_model().embed_recording(wrong, RATE)


def test_another_sampling_rate_is_refused(speech):
    for embed in (tiny_model().embed_clip, tiny_model().embed_recording):
        with pytest.raises(ValueError, match="16000 Hz, got 22050"):
            embed(speech, 22050)


def test_speech_is_found_as_the_library_finds_it(speech):
    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad

    torch.set_num_threads(threads)
    recording = torch.cat([speech, 0.05 * noise(RATE), torch.zeros(RATE)])[:-100]
    with torch.inference_mode():
        expected = load_silero_vad().audio_forward(recording[None], RATE)[0]
    torch.testing.assert_close(speech_probabilities(recording), expected, atol=1e-4, rtol=0)


def test_finding_speech_leaves_the_number_of_threads_alone(speech):
    import subprocess
    import sys

    code = (
        "import torch; torch.set_num_threads(2)\n"
        "from modeling_speech2face import speech_probabilities\n"
        "speech_probabilities(torch.zeros(16000))\n"
        "assert torch.get_num_threads() == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Draws


def test_draws_have_the_covariance_of_the_residuals():
    model = tiny_model()
    torch.manual_seed(3)
    mixing = torch.randn(FACE_EMBEDDING_SIZE, FACE_EMBEDDING_SIZE)
    residuals = torch.randn(20000, FACE_EMBEDDING_SIZE) @ mixing.T
    model.set_residual_covariance(residuals)
    truth = mixing @ mixing.T
    scale = truth.diagonal().max()
    torch.testing.assert_close(model.residual_covariance, truth, atol=0.05 * scale, rtol=0)
    prediction = torch.linspace(-1, 1, FACE_EMBEDDING_SIZE)
    draws = model.sample_face_embeddings(prediction, 20000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws.T.cov(), truth, atol=0.05 * scale, rtol=0)
    torch.testing.assert_close(draws.mean(dim=0), prediction, atol=0.1, rtol=0)


def test_few_residuals_give_a_covariance_that_can_be_drawn_from_and_is_nearer_the_truth():
    torch.manual_seed(4)
    residuals = torch.randn(6, FACE_EMBEDDING_SIZE)  # fewer than dimensions; the truth is I
    model = tiny_model()
    model.set_residual_covariance(residuals)
    covariance = model.residual_covariance
    assert torch.linalg.eigvalsh(covariance).min() > 0.01
    identity = torch.eye(FACE_EMBEDDING_SIZE)
    plain = residuals.T @ residuals / len(residuals)
    assert (covariance - identity).norm() < 0.7 * (plain - identity).norm()


def test_a_fresh_model_draws_its_prediction():
    torch.manual_seed(0)
    model = Speech2FaceModel(tiny_config())
    prediction = noise(FACE_EMBEDDING_SIZE)
    assert torch.equal(
        model.sample_face_embeddings(prediction, 3), prediction.expand(3, FACE_EMBEDDING_SIZE)
    )


def test_the_same_seed_gives_the_same_draws():
    model, prediction = tiny_model(), noise(FACE_EMBEDDING_SIZE)
    draws = [
        model.sample_face_embeddings(prediction, 2, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0][0], draws[0][1])


@pytest.mark.parametrize(
    ("residuals", "message"),
    [
        (torch.zeros(10, 3), "shape"),
        (torch.zeros(1, FACE_EMBEDDING_SIZE), "shape"),
        (torch.full((10, FACE_EMBEDDING_SIZE), torch.nan), "NaN"),
    ],
)
def test_wrong_residuals_are_refused(residuals, message):
    with pytest.raises(ValueError, match=message):
        tiny_model().set_residual_covariance(residuals)
