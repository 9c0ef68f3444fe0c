"""Tiny trainings, and what is left of them."""

import dataclasses
import json
from pathlib import Path

import torch
import yaml

from training.configuration import (
    FaceDecoderDistillation,
    FaceDecoderTraining,
    NormalizedDecoderTraining,
    Training,
    VoiceEncoderTraining,
    load_configuration,
)

KINDS = {
    "voice_encoder": VoiceEncoderTraining,
    "face_decoder": FaceDecoderTraining,
    "face_decoder_distilled": FaceDecoderDistillation,
    "normalized_decoder": NormalizedDecoderTraining,
}


def configuration_of(part: str, folder: Path, output: str, **changes) -> Training:
    """The tiny training of a part, one of `KINDS`, on the cast in a folder."""
    config = load_configuration(f"training/configs/tiny_{part}.yaml", KINDS[part])
    places = {"dataset": str(folder / "cast"), "cache": str(folder / "cache")}
    return dataclasses.replace(config, output=str(folder / output), **places, **changes)


def configuration(folder: Path, output: str, **changes) -> VoiceEncoderTraining:
    """A voice encoder's; `backbone` changes single values of its backbone's configuration."""
    backbone = changes.pop("backbone", {})
    config = configuration_of("voice_encoder", folder, output, **changes)
    encoder = config.model["voice_encoder_config"] | backbone
    model = config.model | {"voice_encoder_config": encoder}
    return dataclasses.replace(config, model=model)


def written(config: Training, path: Path | None = None) -> Path:
    """A configuration as a file, for a command."""
    path = path or Path(f"{config.output}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(config)))))
    return path


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """What the safetensors in a folder hold, by name; in a sub-folder, with that before it."""
    from safetensors.torch import load_file

    files = sorted(folder.rglob("*.safetensors"))
    return {
        str(file.relative_to(folder).parent / name): weight
        for file in files
        for name, weight in load_file(file).items()
    }


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights_of(one), weights_of(other)
    assert a.keys() == b.keys() and len(a) > 10
    for name in a:
        assert torch.equal(a[name], b[name]), name


def scalars_of(output: Path, name: str) -> dict[int, float]:
    """What TensorBoard has of a figure, by step; of several runs, the last."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for file in sorted(
        output.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime
    ):
        events = EventAccumulator(str(file)).Reload()
        if name in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars(name)}
    return found
