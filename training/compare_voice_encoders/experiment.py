"""What is compared: a YAML file that names regressions, trainings, and what they do without."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.compare_voice_encoders.encoders import Encoder
from training.configuration import VoiceEncoderTraining, load_configuration
from training.voice_teacher import VoiceTeacher


@dataclass
class Experiment:
    """What is compared, and on how many folds.

    Attributes:
        folds: into how many the people are divided.
        seeds: how many times an encoder is trained on each.
        ablation_folds: on how many folds an ablation is trained.
        ablation_seeds: how many times on each.
        seconds: of speech that encoders hear; the last is that of the other rows.
        ridge: name of a row to the voice teachers that it regresses from; the first row is what all
            others are compared with.
        encoders: name of a row to its training's YAML file, as this file's folder sees it.
        averages: name of a row to the rows whose predictions it averages.
        ablations: name of an encoder to its ablations: name to what they change in its YAML file.
    """

    folds: int = 5
    seeds: int = 3
    ablation_folds: int = 1
    ablation_seeds: int = 1
    seconds: list[float] = field(default_factory=lambda: [3.0, 6.0])
    ridge: dict[str, list[str | dict]] = field(
        default_factory=lambda: {"ridge from GE2E": ["ge2e"]}
    )
    encoders: dict[str, str] = field(default_factory=dict)
    averages: dict[str, list[str]] = field(default_factory=dict)
    ablations: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self):
        if self.folds < 2 or min(self.seeds, self.ablation_folds, self.ablation_seeds) < 1:
            raise ValueError("folds must be at least 2, and seeds and ablations' folds at least 1")
        if not self.ridge:
            raise ValueError("ridge must name a row: it is what all others are compared with")
        if unknown := sorted(set(self.ablations) - set(self.encoders)):
            raise ValueError(
                f"ablations of {unknown[0]!r}, which is no encoder: name one of encoders"
            )
        rows = {*self.ridge, *self.encoders}
        for name, parts in self.averages.items():
            if missing := sorted(set(parts) - rows):
                raise ValueError(f"average {name!r} is of {missing[0]!r}, which is no row")

    def teachers(self, row: str) -> list[VoiceTeacher]:
        """Whom a ridge row regresses from."""
        return [
            VoiceTeacher(**t) if isinstance(t, dict) else VoiceTeacher(t) for t in self.ridge[row]
        ]


def load_experiment(path: str | Path, **given: Any) -> tuple[Experiment, list[Encoder]]:
    """Reads an experiment and the trainings that it names.

    Args:
        path: the YAML file.
        given: fields to put in the place of the file's.

    Raises:
        FileNotFoundError: if one of the files is not there.
        ValueError: for a key that is unknown, or values that contradict each other.
    """
    experiment = load_configuration(path, Experiment)
    experiment = dataclasses.replace(experiment, **given)
    found = []
    for name, file in experiment.encoders.items():
        file = Path(path).parent / file
        config = load_configuration(file, VoiceEncoderTraining)
        found.append(Encoder(name, config, experiment.folds, experiment.seeds))
        for what, changes in experiment.ablations.get(name, {}).items():
            config = load_configuration(file, VoiceEncoderTraining, changes)
            folds = experiment.ablation_folds, experiment.ablation_seeds
            found.append(Encoder(f"{name}, {what}", config, *folds, ablated=name))
    return experiment, found
