"""Voice encoders trained on every fold, and what they say of the people they never heard.

Each run is a training of `training.train_voice_encoder` and continues where it was stopped; its
predictions are kept, its checkpoints are not.

Letters: N pairs, D size of the face embedding.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.checkpoints import list_checkpoints
from training.compare_voice_encoders.people import Fold, SomePairs, some_of
from training.configuration import VoiceEncoderTraining
from training.data import Pairs
from training.evaluation.store import fingerprint, key_of

VALIDATION_SHARE = 1 / 8  # of a fold's training families: by these the best checkpoint is chosen
PLACES = ("dataset", "output", "cache")  # what a run is given; it changes no result


@dataclass(frozen=True)
class Encoder:
    """A voice encoder as the tables name it.

    Attributes:
        name: of the row.
        config: how it is trained.
        folds: how many of the folds it is trained on.
        seeds: how many times each, from seed 0.
        ablated: the encoder from which it differs in one thing; "" for one that stands for itself.
    """

    name: str
    config: VoiceEncoderTraining
    folds: int
    seeds: int
    ablated: str = ""


class Stopped(Exception):
    """A training was stopped before its end."""


def predict(
    encoder: Encoder,
    pairs: Pairs,
    folds: Sequence[Fold],
    seconds: Sequence[float],
    output: Path,
    may_train: bool,
) -> dict[float, list[np.ndarray]]:
    """What an encoder predicts of the held-out people, by the length of speech that it hears.

    Args:
        encoder: the encoder.
        pairs: all pairs.
        folds: see `people.folds_of`.
        seconds: lengths of speech.
        output: folder of the runs.
        may_train: False only collects what earlier runs predicted.

    Returns:
        For each length, centred predictions (N, D) of every seed that heard as many folds as the
        first; zeros where a fold was not run. No seeds where nothing was run.

    Raises:
        Stopped: if a training was stopped.
    """
    name = key_of(encoder.name, settings_of(encoder.config), pairs.folder.name, len(folds))
    found = []
    for seed in range(encoder.seeds):
        by_fold = []
        for number, fold in enumerate(folds[: encoder.folds]):
            folder = output / name / f"seed-{seed}-fold-{number}"
            config = dataclasses.replace(encoder.config, seed=seed, output=str(folder))
            if may_train and not (folder / "predictions.npz").exists():
                print(f"{encoder.name}: seed {seed}, fold {number}", flush=True)
                _run(config, pairs, fold, number, seconds)
            if (folder / "predictions.npz").exists():
                by_fold.append(np.load(folder / "predictions.npz"))
        found.append(by_fold)
    heard = [by_fold for by_fold in found if by_fold and len(by_fold) == len(found[0])]
    return {each: [_joined(by_fold, each, len(pairs)) for by_fold in heard] for each in seconds}


def settings_of(config: VoiceEncoderTraining) -> dict:
    """All that decides a run's predictions, but its seed and data.

    What has its default is left out, so that a field that is added later changes no earlier run.
    """
    settings = _unlike(dataclasses.asdict(config), dataclasses.asdict(VoiceEncoderTraining()))
    for place in PLACES:
        settings.pop(place, None)
    if config.pretrained:
        weights = sorted(Path(config.pretrained).glob("*.safetensors"))
        settings["weights"] = [fingerprint(path.read_bytes()) for path in weights]
    return settings


def _unlike(values: dict, defaults: dict) -> dict:
    """What differs from the defaults, key by key where both hold keys."""
    unlike = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            value = _unlike(value, default)
            if value:
                unlike[name] = value
        elif name not in defaults or value != default:
            unlike[name] = value
    return unlike


def _run(
    config: VoiceEncoderTraining,
    pairs: Pairs,
    fold: Fold,
    number: int,
    seconds: Sequence[float],
) -> None:
    """Trains on a fold, hears those held out, and writes `predictions.npz`."""
    import torch

    from modeling_speech2face import Speech2FaceModel
    from training import voice_validation
    from training.train_voice_encoder import train

    folder = Path(config.output)
    known, chosen_by = _validation_families(pairs, fold[0], number)
    data = _given(config, pairs, known, "training"), _given(config, pairs, chosen_by, "validation")
    final = train(config, data=data)
    if final is None:
        raise Stopped
    model = Speech2FaceModel.from_pretrained(final, dtype=torch.float32)
    heard = {f"{each:g}": voice_validation.predict(model, pairs, fold[1], each) for each in seconds}
    work = folder / "work.npz"
    np.savez(work, rows=fold[1], **heard)
    for checkpoint in list_checkpoints(folder):
        shutil.rmtree(checkpoint)
    # Of real people figures are kept, but no network that knows them, nor what tells their voices.
    for kept in (final, *(given.folder for given in data)):
        shutil.rmtree(kept)
    work.replace(folder / "predictions.npz")


def _validation_families(pairs: Pairs, rows: np.ndarray, seed: int) -> Fold:
    """Splits a fold's training rows once more, by family."""
    from sklearn.model_selection import GroupShuffleSplit

    split = GroupShuffleSplit(1, test_size=VALIDATION_SHARE, random_state=seed)
    ((known, chosen_by),) = split.split(rows, groups=pairs.speakers[rows])
    return rows[known], rows[chosen_by]


def _given(config: VoiceEncoderTraining, pairs: Pairs, rows: np.ndarray, name: str) -> SomePairs:
    """Pairs for a training, with the voice teacher's embeddings where it looks for them."""
    from training.voice_teacher import cache_name, voice_embeddings

    folder = Path(config.output) / name
    folder.mkdir(parents=True, exist_ok=True)
    if config.voice_teacher is not None:
        voices = voice_embeddings(pairs, config.voice_teacher)
        np.save(folder / cache_name(config.voice_teacher), voices[rows])
    return some_of(pairs, rows, folder)


def _joined(by_fold: list, seconds: float, count: int) -> np.ndarray:
    predictions = None
    for fold in by_fold:
        some = fold[f"{seconds:g}"]
        if predictions is None:
            predictions = np.zeros((count, some.shape[1]))
        predictions[fold["rows"]] = some
    return predictions
