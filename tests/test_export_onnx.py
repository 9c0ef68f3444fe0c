"""A voice encoder as ONNX gives the model's embeddings, for any number and length of clips."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_speech2face import load_audio
from tests.test_readme import TRAINING, blocks
from tests.tiny import tiny_model, tiny_spectrogram_encoder_config, tiny_voice_encoder_config
from training.export_onnx import as_products, compare, export_onnx, main

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = tiny_model()
    path = tmp_path_factory.mktemp("onnx") / "voice.onnx"
    export_onnx(model, path)
    return model, path


@pytest.mark.slow
def test_the_file_gives_the_models_embeddings_whatever_the_batch_and_the_lengths(exported):
    model, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes = {node.name: node.shape for node in session.get_inputs()}
    assert list(shapes) == ["input_values", "attention_mask"]
    assert all(isinstance(side, str) for shape in shapes.values() for side in shape)  # free
    for rows, samples, heard in ((1, 3000, 3000), (2, 8000, 5000), (3, 16000, 777)):
        values = torch.randn(rows, samples)
        mask = torch.ones(rows, samples, dtype=torch.long)
        mask[-1, heard:] = 0
        inputs = {"input_values": values.numpy(), "attention_mask": mask.numpy()}
        expected = model(values, mask).face_embeddings.detach().numpy()
        np.testing.assert_allclose(session.run(None, inputs)[0], expected, atol=1e-6, rtol=1e-4)
    told = json.loads(session.get_modelmeta().custom_metadata_map["speech2face"])
    assert told["sampling_rate"] == 16000 and told["clip_seconds"] == model.config.clip_seconds
    assert len(told["face_embedding_mean"]) == model.config.face_embedding_size


@pytest.mark.slow
def test_the_python_of_the_trainings_readme_gives_the_models_embedding(
    exported, tmp_path, monkeypatch, sample_recording
):
    model, path = exported
    (tmp_path / "voice_encoder.onnx").symlink_to(path)
    (tmp_path / "samples").symlink_to(Path(sample_recording).parent)
    monkeypatch.chdir(tmp_path)
    (snippet,) = blocks("python onnx", TRAINING)
    names = {}
    exec(snippet, names)
    expected = model.embed_clip(load_audio(sample_recording), 16000)
    np.testing.assert_allclose(names["embedding"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "inputs"),
    [
        (tiny_voice_encoder_config(feat_extract_norm="group"), 1),  # it would hear padding
        (tiny_spectrogram_encoder_config(), 2),
    ],
)
def test_other_backbones(backbone, inputs, tmp_path, sample_recording):
    model = tiny_model(voice_encoder_config=backbone)
    export_onnx(model, tmp_path / "voice.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "voice.onnx"))
    assert len(session.get_inputs()) == inputs
    recording = load_audio(sample_recording)
    alike = compare(model, tmp_path / "voice.onnx", [recording, recording[:20000]])
    assert all(cosine > 0.99999 and difference < 1e-4 for cosine, difference in alike)


@pytest.mark.slow
def test_another_model_is_not_taken_for_it(exported, sample_recording):
    _, path = exported
    ((cosine, difference),) = compare(tiny_model(seed=1), path, [load_audio(sample_recording)])
    assert cosine < 0.99 and difference > 1e-3


@pytest.mark.parametrize("model_type", ["wav2vec2", "hubert", "wavlm", "data2vec-audio"])
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_products_give_what_convolutions_give(model_type, norm):
    kernels = {"conv_kernel": [10, 3, 2], "conv_bias": norm == "layer", "feat_extract_norm": norm}
    model = tiny_model(voice_encoder_config=tiny_voice_encoder_config(model_type, **kernels))
    before = {name: type(part) for name, part in model.named_modules()}
    products = as_products(model)
    assert {name: type(part) for name, part in model.named_modules()} == before
    layers = products.voice_encoder.feature_extractor.conv_layers
    assert [isinstance(layer.conv, torch.nn.Conv1d) for layer in layers] == [True, False, False]
    for samples in (4001, 4019, 4038):  # remainders of every stride
        values = torch.randn(2, samples)
        expected = model(values).face_embeddings
        torch.testing.assert_close(products(values).face_embeddings, expected)
    mask = torch.ones(2, samples, dtype=torch.long)
    mask[1, 3000:] = 0
    expected = model(values, mask).face_embeddings
    torch.testing.assert_close(products(values, mask).face_embeddings, expected)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_in_int8_pauses_are_heard_and_only_two_convolutions_are_left(
    norm, tmp_path, sample_recording
):
    import onnx

    backbone = tiny_voice_encoder_config(feat_extract_norm=norm, conv_bias=norm == "layer")
    model, path = tiny_model(voice_encoder_config=backbone), tmp_path / "int8.onnx"
    export_onnx(model, path, int8=True)
    recording = load_audio(sample_recording)
    # With one range for speech and pauses, the group norm's cosine would be .99.
    alike = compare(model, path, [recording, recording[:20000]])
    assert all(0.999 < cosine < 1 for cosine, _ in alike)
    file = onnx.load(path)
    shapes = {weight.name: list(weight.dims) for weight in file.graph.initializer}
    convolved = [shapes[node.input[1]] for node in file.graph.node if node.op_type == "Conv"]
    assert convolved == [[8, 1, 10], [16, 8, 4]]  # the waveform's, and the positions' in groups
    multiplied = [node.input[1] for node in file.graph.node if node.op_type == "MatMul"]
    assert not set(multiplied) & set(shapes)
    assert "speech2face" in {told.key for told in file.metadata_props}


@pytest.mark.parametrize(("options", "taken"), [([], False), (["--int8"], True)])
def test_rounding_is_forgiven_to_int8_alone(options, taken, tmp_path, monkeypatch):
    tiny_model().save_pretrained(tmp_path / "voice")
    file = tmp_path / "voice.onnx"
    monkeypatch.setattr(
        "training.export_onnx.export_onnx", lambda model, path, int8: path.write_text(str(int8))
    )
    monkeypatch.setattr("training.export_onnx.compare", lambda *arguments: [(0.9995, 0.01)] * 2)
    try:
        main([str(tmp_path / "voice"), str(file), *options])
    except SystemExit as ended:
        assert ended.code == 1
    assert file.exists() == taken
    assert not taken or file.read_text() == "True"


@pytest.mark.slow
def test_the_command_compares_before_it_calls_it_done(tmp_path, capsys, monkeypatch):
    tiny_model().save_pretrained(tmp_path / "voice")
    main([str(tmp_path / "voice"), str(tmp_path / "voice.onnx")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[-3:-1]] == [
        "librispeech-2414.flac",
        "librispeech-3080.flac",
    ]
    assert "cosine 1.0000" in lines[-2] and lines[-1].endswith(" MB")
    monkeypatch.setattr("training.export_onnx.compare", lambda *arguments: [(0.5, 1.0)] * 2)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "voice"), str(tmp_path / "wrong.onnx")])
    assert ended.value.code == 1 and not (tmp_path / "wrong.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{folder}", "{folder}/voice.onnx"], "has no voice encoder: name a pipeline or a voice"),
        (["{folder}", "{folder}/nowhere/voice.onnx"], "nowhere is no folder: make it first"),
    ],
)
def test_a_wrong_call_is_one_sentence(arguments, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([argument.format(folder=tmp_path) for argument in arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and sentence in said and said.count("\n") == 1


def test_a_missing_package_is_told_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), str(tmp_path / "voice.onnx")])
    assert ended.value.code == 2 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err == 'onnxruntime is missing: pip install -e ".[onnx]"\n'
