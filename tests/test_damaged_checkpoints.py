"""Checkpoints that are damaged, foreign or malicious: one sentence each, and nothing unpickled."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_speech2face import CheckpointError, Speech2FaceModel, Speech2FacePipeline
from modeling_speech2face.__main__ import main
from tests.tiny import tiny_pipeline

VOICE = "samples/librispeech-2414.flac"
STEMS = {"voice_encoder": "model"}  # of the file of weights; the others' are diffusers'
PARTS = ("voice_encoder", "unet", "embedding_projection", "normalized_decoder", "face_traits")


def weights_of(folder: Path, part: str) -> Path:
    return folder / part / f"{STEMS.get(part, 'diffusion_pytorch_model')}.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "whole"
    tiny_pipeline(with_normalized_decoder=True, with_face_traits=True).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def refused(load: Callable, folder: Path) -> str:
    """The one sentence of the refusal."""
    with pytest.raises(CheckpointError) as error:
        load(str(folder))
    sentence = str(error.value)
    assert sentence.endswith(".") and sentence.isprintable() and ". " not in sentence, sentence
    assert len(sentence) < 600
    return sentence


class Malice:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("part", PARTS)
def test_a_pickle_is_not_opened(checkpoint, part, tmp_path):
    canary, weights = tmp_path / "canary", weights_of(checkpoint, part)
    weights.unlink()
    names = ("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.bin")
    for name in names:
        torch.save({"weight": Malice(canary)}, weights.parent / name)
    sentence = refused(Speech2FacePipeline.from_pretrained, checkpoint)
    assert "safetensors" in sentence and part in sentence
    if part == "voice_encoder":
        refused(Speech2FaceModel.from_pretrained, checkpoint / part)
    assert not canary.exists()
    torch.load(weights.parent / names[0], weights_only=False)
    assert canary.exists()  # it would have been found


@pytest.mark.parametrize("library", ["evil", "diffusers"])
def test_code_that_came_with_a_part_is_not_run(checkpoint, library, tmp_path):
    index = json.loads((checkpoint / "model_index.json").read_text())
    index["unet"][0] = library
    (checkpoint / "model_index.json").write_text(json.dumps(index))
    code = f"import os; os.mkdir({str(tmp_path / 'canary')!r})\nfrom diffusers import *\n"
    (checkpoint / "unet" / f"{library}.py").write_text(code)
    sentence = refused(Speech2FacePipeline.from_pretrained, checkpoint)
    assert f"unet/{library}.py to be run" in sentence
    assert not (tmp_path / "canary").exists()


def test_not_even_an_honest_pickle_is_opened(checkpoint):
    weights = weights_of(checkpoint, "unet")
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    refused(Speech2FacePipeline.from_pretrained, checkpoint)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def reshape(path: Path) -> None:
    weights = load_file(path)
    largest = max(weights, key=lambda name: weights[name].numel())
    save_file(weights | {largest: torch.zeros(3, 3)}, path, metadata={"format": "pt"})


DAMAGES = {
    "torn": tear,
    "empty": lambda path: path.write_bytes(b""),
    "header": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f{}"),  # of exabytes
    "no weights": Path.unlink,
    "shapes": reshape,
    "no part": lambda path: shutil.rmtree(path.parent),
    "json": lambda path: (path.parent / "config.json").write_text("{not json"),
    "list": lambda path: (path.parent / "config.json").write_text("[1, 2]"),
    "no json": lambda path: (path.parent / "config.json").unlink(),
}


# One part is read by transformers, the others by diffusers.
@pytest.mark.parametrize(
    "part", ["voice_encoder", "unet", *(pytest.param(p, marks=pytest.mark.slow) for p in PARTS[2:])]
)
def test_a_damaged_part_is_one_sentence(whole, part, tmp_path):
    for damage in DAMAGES:
        folder = Path(shutil.copytree(whole, tmp_path / damage))
        DAMAGES[damage](weights_of(folder, part))
        assert str(folder) in refused(Speech2FacePipeline.from_pretrained, folder)
        if part == "voice_encoder" and damage != "no part":
            refused(Speech2FaceModel.from_pretrained, folder / part)


NONSENSE = {
    "voice_encoder/config.json": (
        {"face_embedding_size": 99},
        {"face_embedding_size": -3},
        {"face_embedding_size": "many"},
        {"projection_hidden_size": 10**12},
        {"clip_seconds": -1},
        {"voice_encoder_config": {"model_type": "nonesuch"}},
        {"voice_encoder_config": 7},
    ),
    "unet/config.json": (
        {"in_channels": -1},
        {"block_out_channels": "x"},
        {"down_block_types": ["NoBlock", "NoBlock"]},
    ),
    "embedding_projection/config.json": (
        {"num_tokens": -2},
        {"num_tokens": "a"},
        {"face_recogniser": "arcface"},
        {"face_embedding_size": 99},
    ),
    "scheduler/scheduler_config.json": ({"num_train_timesteps": -5}, {"beta_schedule": "nope"}),
    "feature_extractor/preprocessor_config.json": (
        {"sampling_rate": -1},
        {"sampling_rate": "x"},
        {"clip_seconds": 0},
    ),
    "model_index.json": (
        {"unet": ["diffusers", "NoSuchClass"]},
        {"unet": ["os", "system"]},
        {"voice_encoder": [None, None]},
        {"num_inference_steps": -5},
        {"guidance_scale": "x"},
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_in_a_configuration_is_one_sentence(whole, name, tmp_path):
    for index, changes in enumerate(NONSENSE[name]):
        folder = Path(shutil.copytree(whole, tmp_path / str(index)))
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))
        refused(Speech2FacePipeline.from_pretrained, folder)
    for index, content in enumerate(("{", "[]", "", "null")):
        folder = Path(shutil.copytree(whole, tmp_path / f"text-{index}"))
        (folder / name).write_text(content)
        refused(Speech2FacePipeline.from_pretrained, folder)


def test_a_folder_that_is_no_checkpoint_is_one_sentence(checkpoint, tmp_path):
    (tmp_path / "nothing").mkdir()
    refused(Speech2FacePipeline.from_pretrained, tmp_path / "nothing")
    refused(Speech2FaceModel.from_pretrained, tmp_path / "nothing")
    (checkpoint / "model_index.json").unlink()
    refused(Speech2FacePipeline.from_pretrained, checkpoint)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MemoryError(), "(MemoryError): free some memory, or use a smaller checkpoint."),
        (torch.OutOfMemoryError("CUDA out of memory. Tried much."), ": free some memory, "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), ": free some memory"),
        (OSError(12, "Cannot allocate memory"), ": free some memory"),
        (PermissionError(13, "Permission denied", "x"), ": see that its files can be read here, "),
        (OSError(5, "Input/output error"), ": see that its files can be read here, "),
        (FileNotFoundError(2, "No such file", "x"), ": use a checkpoint whose parts are whole"),
        (OSError("Error no file named x found"), ": use a checkpoint whose parts are whole"),
    ],
)
def test_only_a_damaged_checkpoint_is_called_one(checkpoint, monkeypatch, error, advice):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", fail)
    sentence = refused(Speech2FacePipeline.from_pretrained, checkpoint)
    assert advice in sentence and str(checkpoint) in sentence


def test_another_teacher_is_told_as_such(checkpoint):
    path = checkpoint / "embedding_projection" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"face_recogniser": "arcface"}))
    sentence = refused(Speech2FacePipeline.from_pretrained, checkpoint)
    assert "same face recogniser" in sentence


def test_weights_that_are_no_numbers_draw_nothing(checkpoint):
    path = weights_of(checkpoint, "voice_encoder")
    weights = {name: torch.full_like(value, torch.nan) for name, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    pipeline = Speech2FacePipeline.from_pretrained(str(checkpoint))
    with pytest.raises(CheckpointError, match="predicts no numbers: use another checkpoint"):
        pipeline(VOICE)


@pytest.mark.parametrize("damage", ["torn", "shapes", "list", "no part"])
def test_the_command_says_it_in_one_line(checkpoint, damage, tmp_path, capsys):
    DAMAGES[damage](weights_of(checkpoint, "voice_encoder"))
    arguments = [VOICE, "--output", str(tmp_path / "out"), "--unsigned"]
    assert main([*arguments, "--checkpoint", str(checkpoint)]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("speech2face")]
    assert len(said) == 1 and "cannot be loaded" in said[0] and said[0].endswith(".")
    assert not any((tmp_path / "out").iterdir())
