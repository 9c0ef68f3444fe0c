"""Tiny trainings of voice encoders, and what is left of them."""

import dataclasses
import json
from pathlib import Path

import torch
import yaml

from training.configuration import VoiceEncoderTraining, load_configuration


def configuration(folder: Path, output: str, **changes) -> VoiceEncoderTraining:
    config = load_configuration("training/configs/tiny_voice_encoder.yaml", VoiceEncoderTraining)
    places = {"dataset": str(folder / "cast"), "cache": str(folder / "cache")}
    backbone = changes.pop("backbone", {})
    if backbone:
        model = config.model
        encoder = model["voice_encoder_config"] | backbone
        changes["model"] = model | {"voice_encoder_config": encoder}
    return dataclasses.replace(config, output=str(folder / output), **places, **changes)


def written(config: VoiceEncoderTraining) -> Path:
    """A configuration as a file, for a command."""
    path = Path(f"{config.output}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(config)))))
    return path


def weights_of(final: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(final / "model.safetensors")


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
