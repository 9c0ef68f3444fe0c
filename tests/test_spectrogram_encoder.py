"""SpectrogramEncoder: the paper's layers, its spectrogram, and a voice encoder made with it."""

import copy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from modeling_speech2face import (
    SpectrogramEncoder,
    SpectrogramEncoderConfig,
    Speech2FaceConfig,
    Speech2FaceModel,
    Speech2FacePipeline,
    load_audio,
    read_provenance,
)
from tests.test_remote_code import check_loads_without_the_package
from tests.tiny import (
    FACE_EMBEDDING_SIZE,
    tiny_model,
    tiny_pipeline,
    tiny_spectrogram_encoder_config,
    tiny_voice_encoder_config,
)

RATE = 16000
SPEECH = "samples/librispeech-2414.flac"


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny_encoder(seed: int = 0, **kwargs) -> SpectrogramEncoder:
    torch.manual_seed(seed)
    return SpectrogramEncoder(
        SpectrogramEncoderConfig(**tiny_spectrogram_encoder_config(**kwargs))
    ).eval()


def tiny_papers_model(seed: int = 0, batch_norm: bool = True, **kwargs) -> Speech2FaceModel:
    """A model whose running statistics are not the initial ones."""
    backbone = tiny_spectrogram_encoder_config(batch_norm=batch_norm)
    model = tiny_model(seed, voice_encoder_config=backbone, **kwargs)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(0.5 + torch.rand(buffer.shape))
    return model


# The spectrogram


@pytest.mark.parametrize(("samples", "frames"), [(96000, 598), (400, 1), (559, 1), (560, 2)])
def test_spectrogram_is_the_fourier_transform_of_windows_by_hand(samples, frames):
    waveform = noise(2, samples)
    with torch.device("meta"):
        encoder = SpectrogramEncoder(SpectrogramEncoderConfig(compression=1.0))
    actual = encoder.spectrogram(waveform)
    assert actual.shape == (2, 2, frames, 257) and actual.dtype == torch.float32
    time = np.arange(400)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / 400)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(257), time) / 512)  # (257, 400)
    for frame in {0, frames // 2, frames - 1}:
        window = waveform[1, 160 * frame : 160 * frame + 400].double().numpy()
        expected = waves @ (hann * window)
        np.testing.assert_allclose(actual[1, 0, frame], expected.real, atol=1e-4)
        np.testing.assert_allclose(actual[1, 1, frame], expected.imag, atol=1e-4)


def test_a_tone_stands_at_its_frequency():
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)[None]
    with torch.device("meta"):
        encoder = SpectrogramEncoder(SpectrogramEncoderConfig(compression=1.0))
    magnitude = encoder.spectrogram(tone).square().sum(dim=1)  # (1, T, F)
    assert (magnitude.argmax(dim=-1) == 32).all()  # 1000 Hz by 16000 / 512


def test_power_law_keeps_the_sign_and_compresses():
    waveform = 10 * noise(1, 4000)
    plain = tiny_encoder(compression=1.0).spectrogram(waveform)
    compressed = tiny_encoder(compression=0.3).spectrogram(waveform)
    heard = plain.abs() > 0.1
    assert heard.float().mean() > 0.9
    expected = plain.sign() * plain.abs() ** 0.3
    torch.testing.assert_close(compressed[heard], expected[heard], rtol=1e-4, atol=0)
    assert (compressed * plain >= 0).all()
    assert (tiny_encoder().spectrogram(torch.zeros(1, 4000)) == 0).all()


def test_silence_has_finite_gradients():
    encoder = tiny_encoder()
    waveform = torch.cat([noise(1, 2000), torch.zeros(1, 3000)], dim=1).requires_grad_()
    encoder(waveform).last_hidden_state.sum().backward()
    assert torch.isfinite(waveform.grad).all() and waveform.grad.abs().max() > 0
    (gradient,) = torch.autograd.grad(encoder.spectrogram(waveform).sum(), waveform)
    assert torch.isfinite(gradient).all()
    assert gradient[0, :2000].abs().max() > 0 and gradient[0, 2100:].abs().max() > 0


def test_gradient_of_the_spectrogram_is_its_slope():
    encoder = tiny_encoder()
    waveform = noise(1, 100).double().requires_grad_()
    assert encoder.spectrogram(waveform).dtype == torch.float64
    assert torch.autograd.gradcheck(encoder.spectrogram, waveform)


# The layers


def test_default_layers_are_the_papers():
    with torch.device("meta"):
        encoder = SpectrogramEncoder(SpectrogramEncoderConfig()).eval()
    table = [
        (type(layer).__name__, *_sizes(layer))
        for layer in encoder.layers
        if not isinstance(layer, torch.nn.ReLU | torch.nn.BatchNorm2d)
    ]
    assert table == [
        ("Conv2d", 64, (1, 1), (4, 4)),
        ("Conv2d", 64, (1, 1), (4, 4)),
        ("Conv2d", 128, (1, 1), (4, 4)),
        ("MaxPool2d", None, (2, 1), (2, 1)),
        ("Conv2d", 128, (1, 1), (4, 4)),
        ("MaxPool2d", None, (2, 1), (2, 1)),
        ("Conv2d", 128, (1, 1), (4, 4)),
        ("MaxPool2d", None, (2, 1), (2, 1)),
        ("Conv2d", 256, (1, 1), (4, 4)),
        ("MaxPool2d", None, (2, 1), (2, 1)),
        ("Conv2d", 512, (1, 1), (4, 4)),
        ("Conv2d", 512, (2, 2), (4, 4)),
        ("Conv2d", 512, (2, 2), (4, 4)),
    ]
    names = [type(layer).__name__ for layer in encoder.layers]
    followers = [names[i + 1 : i + 3] for i, name in enumerate(names) if name == "Conv2d"]
    assert followers == [["ReLU", "BatchNorm2d"]] * 8 + [[]]
    hidden = encoder(torch.zeros(3, 96000, device="meta")).last_hidden_state
    assert hidden.shape == (3, 6, 57 * 512) == (3, 6, encoder.config.hidden_size)


def _sizes(layer):
    kernel, stride = layer.kernel_size, layer.stride
    return getattr(layer, "out_channels", None), stride, kernel


def parameters(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(("size", "count"), [(4096, 148_062_977), (128, 131_806_081)])
def test_the_papers_model_has_as_many_parameters_as_its_documentation_says(size, count):
    config = Speech2FaceConfig(
        voice_encoder_config=SpectrogramEncoderConfig(),
        projection_hidden_size=4096,
        face_embedding_size=size,
    )
    with torch.device("meta"):
        model = Speech2FaceModel(config)
    assert parameters(model) == count and f"{count:,}" in SpectrogramEncoder.__doc__
    assert parameters(model.voice_encoder) == 11_738_880
    assert "11,738,880" in SpectrogramEncoder.__doc__
    head = [type(layer).__name__ for layer in model.projection]
    assert head == ["Linear", "ReLU", "Linear"]
    assert model.pooling.norm.num_features == 512


def test_hidden_state_is_ordered_by_channel():
    encoder, waveform = tiny_encoder(), noise(2, 4000)
    output = encoder(waveform, output_hidden_states=True)
    layers = encoder.layers(encoder.spectrogram(waveform))  # (B, C, T, F)
    assert layers.shape[1] == 6 and layers.shape[3] == encoder.config.num_frequencies
    for channel in range(6):
        by_hand = layers[:, channel]  # (B, T, F)
        part = output.last_hidden_state.unflatten(2, (6, -1))[:, :, channel]
        assert torch.equal(part, by_hand)
    (only,) = output.hidden_states
    assert only is output.last_hidden_state
    as_tuple = encoder(waveform, return_dict=False)
    assert len(as_tuple) == 1 and torch.equal(as_tuple[0], only)


def test_weights_are_drawn_for_rectifiers():
    torch.manual_seed(0)
    config = SpectrogramEncoderConfig(
        conv_channels=[64, 64], conv_strides=[1, 1], time_pools=[1, 1]
    )
    model = Speech2FaceModel(
        Speech2FaceConfig(voice_encoder_config=config, projection_hidden_size=64)
    )
    convolution, fully_connected = model.voice_encoder.layers[3], model.projection[0]
    for layer, inputs in ((convolution, 64 * 16), (fully_connected, config.hidden_size)):
        expected = torch.tensor((2 / inputs) ** 0.5)
        torch.testing.assert_close(layer.weight.std(), expected, rtol=0.03, atol=0)
        assert (layer.bias == 0).all()


@pytest.mark.parametrize("samples", [580, 619, 4000, 4321])
def test_lengths_are_those_of_the_output(samples):
    encoder = tiny_encoder()
    assert encoder.config.min_samples == 580
    frames = encoder(noise(1, samples)).last_hidden_state.shape[1]
    assert encoder._get_feat_extract_output_lengths(torch.tensor([samples])).tolist() == [frames]
    assert frames >= 1


def test_a_frame_hears_no_less_than_it_says():
    encoder = tiny_encoder()
    with pytest.raises(ValueError, match="at least 580 samples, got 579: loop"):
        encoder(noise(1, 579))
    mask = torch.ones(2, 1000, dtype=torch.long)
    mask[1, 500:] = 0
    with pytest.raises(ValueError, match="at least 580 samples, got 500: loop"):
        encoder(noise(2, 1000), mask)
    with pytest.raises(ValueError, match="shape"):
        encoder(noise(1000))
    waveform = noise(1, 580).requires_grad_()
    encoder(waveform).last_hidden_state.square().sum().backward()
    heard = waveform.grad[0].nonzero()[:, 0]
    assert heard.min() == 1 and heard.max() == 579  # a Hann window begins with zero


# The voice encoder made with it


def test_shapes_and_the_papers_head():
    model, values = tiny_papers_model(), noise(3, 8000)
    hidden_size = model.config.voice_encoder_config.hidden_size
    output = model(values)
    assert output.face_embeddings.shape == (3, FACE_EMBEDDING_SIZE)
    assert output.pooled.shape == (3, hidden_size) and model.pooled_size == hidden_size
    assert output.layer_weights.tolist() == [1.0]
    average = model.voice_encoder(values).last_hidden_state.mean(dim=1).relu()  # (B, H)
    norm = model.pooling.norm
    by_channel = average.unflatten(1, (6, -1))  # (B, C, F)
    spread = (norm.running_var + norm.eps).sqrt()[:, None]
    normed = ((by_channel - norm.running_mean[:, None]) / spread).flatten(1)
    torch.testing.assert_close(output.pooled, normed, atol=1e-5, rtol=1e-4)
    first, _, last = model.projection
    torch.testing.assert_close(output.face_embeddings, last(first(output.pooled).relu()))


@pytest.mark.parametrize("model_type", ["speech2face-spectrogram", "wav2vec2"])
@pytest.mark.parametrize("pooling_type", ["mean", "attentive_statistics", None])
def test_either_pooling_goes_with_either_backbone(model_type, pooling_type):
    is_papers = model_type == "speech2face-spectrogram"
    backbone = (
        tiny_spectrogram_encoder_config() if is_papers else tiny_voice_encoder_config(model_type)
    )
    model = tiny_model(voice_encoder_config=backbone, pooling_type=pooling_type)
    expected = pooling_type or ("mean" if is_papers else "attentive_statistics")
    assert model.config.pooling_type == expected
    hidden_size = model.config.voice_encoder_config.hidden_size
    assert model.pooled_size == (hidden_size if expected == "mean" else 2 * hidden_size)
    assert model(noise(2, 4000)).pooled.shape == (2, model.pooled_size)


def test_another_pooling_is_refused():
    with pytest.raises(Exception, match="pooling_type"):
        Speech2FaceConfig(pooling_type="max")


@pytest.mark.parametrize("pooling_type", ["mean", "attentive_statistics"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_padding_does_not_change_a_row(pooling_type, batch_norm):
    model = tiny_papers_model(batch_norm=batch_norm, pooling_type=pooling_type)
    lengths = [6000, 4321, 6000, 1600]
    values, mask = noise(4, 6000), torch.zeros(4, 6000, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
        values[row, length:] = 7 * noise(6000 - length)  # whatever stands there
    together = model(values, mask)
    for row, length in enumerate(lengths):
        alone = model(values[row : row + 1, :length])
        torch.testing.assert_close(
            together.face_embeddings[row], alone.face_embeddings[0], atol=1e-6, rtol=1e-5
        )
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], atol=1e-5, rtol=1e-5)
    unmasked = model(values).face_embeddings
    assert not torch.allclose(unmasked[1], together.face_embeddings[1], atol=1e-4)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_gradients_reach_every_parameter(batch_norm):
    model = tiny_papers_model(batch_norm=batch_norm).train()
    before = copy.deepcopy(dict(model.named_buffers()))
    model(noise(2, 4000)).face_embeddings.square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    grads = {name: weight.grad.abs().sum() for name, weight in model.named_parameters()}
    assert all(torch.isfinite(grad) for grad in grads.values())
    # The bias before a batch norm is no dead end here, since a rectifier stands between them.
    assert [name for name, grad in grads.items() if grad == 0] == ["layer_scores"]
    norms = [name for name in before if name.endswith("running_mean")]
    assert len(norms) == (3 if batch_norm else 0)
    after = dict(model.named_buffers())
    assert not any(torch.equal(before[name], after[name]) for name in norms)


def test_without_batch_norm_there_is_none():
    model = tiny_papers_model(batch_norm=False)
    assert not [m for m in model.modules() if "BatchNorm" in type(m).__name__]
    assert len([m for m in tiny_papers_model().modules() if "BatchNorm" in type(m).__name__]) == 3


def test_constant_input_has_finite_gradients():
    model = tiny_papers_model().train()
    model(torch.zeros(2, 8000)).face_embeddings.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_half_precision_is_near_single():
    model, values = tiny_papers_model(), noise(2, 8000)
    expected = model(values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(values)
    half = copy.deepcopy(model).bfloat16()(values.bfloat16())
    assert half.face_embeddings.dtype == torch.bfloat16
    for output in (mixed, half):
        similarity = torch.cosine_similarity(output.pooled.float(), expected.pooled)
        assert similarity.min() > 0.999
        difference = (output.face_embeddings.float() - expected.face_embeddings).abs().max()
        assert difference < 0.05 * expected.face_embeddings.abs().max()


def test_autocast_leaves_the_spectrogram_alone():
    encoder, values = tiny_encoder(), noise(1, 4000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spectrogram = encoder.spectrogram(values)
    assert torch.equal(spectrogram, encoder.spectrogram(values))


def test_gradient_checkpointing_is_refused():
    with pytest.raises(ValueError, match="does not support"):
        tiny_papers_model().gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="does not support"):
        tiny_encoder().gradient_checkpointing_enable()


def test_embed_recording_loops_and_cuts_as_for_any_backbone():
    model = tiny_papers_model(clip_seconds=4.0)
    speech = torch.from_numpy(load_audio(SPEECH))  # 6.8 s: two windows
    whole = model.embed_recording(speech, RATE)
    assert whole.shape == (FACE_EMBEDDING_SIZE,) and torch.isfinite(whole).all()
    short = model.embed_recording(speech[: 3 * RATE], RATE)  # 3 s are looped to 4
    torch.testing.assert_close(short, model.embed_clip(speech[: 3 * RATE], RATE))
    looped = torch.cat([speech[: 3 * RATE], speech[:RATE]])
    torch.testing.assert_close(short, model.embed_clip(looped, RATE))
    assert not torch.allclose(short, whole)


# What is refused


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"conv_strides": [1, 1]}, "3, 2, 3 values"),
        ({"conv_channels": [], "conv_strides": [], "time_pools": []}, "0, 0, 0 values"),
        ({"time_pools": [1, 0, 1]}, "at least 1"),
        ({"window_length": 65}, "fft_size=64"),
        ({"compression": 0.0}, "compression"),
        ({"conv_strides": [2, 4, 4]}, "nothing of 33 frequencies"),
        ({"hop_length": "short"}, "hop_length"),
    ],
)
def test_contradictions_are_refused(wrong, message):
    with pytest.raises(Exception, match=message):
        SpectrogramEncoderConfig(**tiny_spectrogram_encoder_config(**wrong))


def test_a_clip_that_is_shorter_than_a_frame_is_refused():
    papers = SpectrogramEncoderConfig()
    assert Speech2FaceConfig(voice_encoder_config=papers, clip_seconds=2.61).clip_seconds == 2.61
    with pytest.raises(Exception, match="2.5 are 40000 samples, .* needs 41680"):
        Speech2FaceConfig(voice_encoder_config=papers, clip_seconds=2.5)


def test_a_filter_bank_is_refused_in_a_sentence():
    from training.train_voice_encoder import start_as_filter_bank

    with pytest.raises(ValueError, match="speech2face-spectrogram: set filter_bank to none"):
        start_as_filter_bank(tiny_papers_model(), learns=False)
    tiny_papers_model().voice_encoder.set_attn_implementation("eager")  # as every training does


@pytest.mark.parametrize("pooling_type", ["mean", "attentive_statistics"])
def test_the_head_that_copies_a_voice_teacher_fits(pooling_type):
    from training.train_voice_encoder import VoiceStudent

    student = VoiceStudent(tiny_papers_model(pooling_type=pooling_type), voice_embedding_size=5)
    faces, heads = student(noise(2, 8000))
    assert faces.shape == (2, FACE_EMBEDDING_SIZE) and heads["voice"].shape == (2, 5)


@pytest.mark.slow
def test_an_interrupted_training_equals_an_uninterrupted_one(tmp_path):
    from safetensors.torch import load_file

    from tests.training_cast import write_cast
    from training import train_voice_encoder
    from training.configuration import VoiceEncoderTraining, load_configuration

    write_cast(tmp_path / "cast")
    config = load_configuration("training/configs/tiny_voice_encoder.yaml", VoiceEncoderTraining)
    backbone = tiny_spectrogram_encoder_config()
    config = replace(
        config,
        dataset=str(tmp_path / "cast"),
        cache=str(tmp_path / "cache"),
        filter_bank="none",
        model={**config.model, "voice_encoder_config": backbone},
    )
    whole = train_voice_encoder.train(replace(config, output=str(tmp_path / "whole")))
    in_parts = replace(config, output=str(tmp_path / "in_parts"))
    assert train_voice_encoder.train(in_parts, stop_at_step=3) is None
    resumed = train_voice_encoder.train(in_parts)
    expected, actual = (load_file(f / "model.safetensors") for f in (whole, resumed))
    assert expected.keys() == actual.keys()
    for name, weight in expected.items():
        assert torch.equal(actual[name], weight), name
    assert expected["pooling.norm.num_batches_tracked"] == config.steps


# Saved and loaded


def test_configuration_survives_a_file(tmp_path):
    config = SpectrogramEncoderConfig(**tiny_spectrogram_encoder_config(batch_norm=False))
    config.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is SpectrogramEncoderConfig
    loaded = SpectrogramEncoderConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.hidden_size == config.hidden_size and not loaded.batch_norm
    of_model = Speech2FaceConfig(voice_encoder_config=config)
    of_model.save_pretrained(tmp_path)
    loaded = Speech2FaceConfig.from_pretrained(tmp_path)
    assert type(loaded.voice_encoder_config) is SpectrogramEncoderConfig
    assert loaded.to_dict() == of_model.to_dict() and loaded.pooling_type == "mean"
    assert not hasattr(loaded.voice_encoder_config, "layerdrop")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_and_load_give_the_same_model(dtype, tmp_path):
    model, values = tiny_papers_model().to(dtype), noise(2, 8000)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is Speech2FaceModel and not loaded.training
    assert type(loaded.voice_encoder) is SpectrogramEncoder
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    assert torch.equal(model(values).face_embeddings, loaded(values).face_embeddings)


def test_a_backbone_goes_through_the_auto_classes(tmp_path):
    encoder, values = tiny_encoder(), noise(1, 4000)
    encoder.save_pretrained(tmp_path)
    for loaded in (
        AutoModel.from_pretrained(tmp_path),
        SpectrogramEncoder.from_pretrained(tmp_path),
        Speech2FaceModel.from_voice_encoder_pretrained(str(tmp_path)).voice_encoder,
    ):
        assert type(loaded) is SpectrogramEncoder and not loaded.training
        assert torch.equal(loaded(values).last_hidden_state, encoder(values).last_hidden_state)
    assert type(AutoModel.from_config(encoder.config)) is SpectrogramEncoder


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import modeling_speech2face",
        "import transformers.models.auto.modeling_auto, modeling_speech2face",
        "from modeling_speech2face import SpectrogramEncoder",
    ],
)
def test_the_auto_classes_know_it_in_whatever_order_things_are_imported(imports, tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    code = (
        f"import sys\n{imports}\n"
        "from transformers import AutoConfig, AutoModel\n"
        "config = AutoConfig.from_pretrained(sys.argv[1])\n"
        "assert type(config).__name__ == 'SpectrogramEncoderConfig'\n"
        "assert type(AutoModel.from_config(config)).__name__ == 'SpectrogramEncoder'\n"
        "assert type(AutoModel.from_pretrained(sys.argv[1])).__name__ == 'SpectrogramEncoder'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_folder_with_code_needs_no_package(tmp_path):
    check_loads_without_the_package(tiny_papers_model(), tmp_path)
    assert (tmp_path / "model" / "modeling_spectrogram_encoder.py").exists()


def test_a_pipeline_with_it_is_the_same_after_a_file(tmp_path):
    backbone = tiny_spectrogram_encoder_config()
    pipe = tiny_pipeline(voice_encoder_config=backbone)
    pipe.save_pretrained(tmp_path / "mine")
    loaded = Speech2FacePipeline.from_pretrained(tmp_path / "mine")
    assert type(loaded.voice_encoder.voice_encoder) is SpectrogramEncoder
    images = []
    for pipeline in (pipe, loaded):
        generator = torch.Generator().manual_seed(3)
        out = pipeline(SPEECH, generator=generator, num_images_per_prompt=2)
        images.append([np.asarray(image) for image in out.images])
        out.images[0].save(tmp_path / "face.png")
    np.testing.assert_array_equal(images[0], images[1])
    provenance = read_provenance(tmp_path / "face.png")
    assert provenance["checkpoint"] == "mine" and provenance["seed"] == 3
