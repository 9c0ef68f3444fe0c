"""What a voice encoder is worth on speakers that it was not trained on.

Letters: D size of the face embedding.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from training.checkpoints import check_finite
from training.configuration import VoiceEncoderTraining
from training.data import SAMPLING_RATE, Pairs
from training.measures import association, retrieval, similarity
from training.voice_batches import normalise

VALIDATION_BATCH = 32
RECALL_AT = (1, 5, 10)


@torch.no_grad()
def predict(
    student: nn.Module,
    pairs: Pairs,
    rows: Sequence[int],
    clip_seconds: float,
    accelerator: Any = None,
) -> np.ndarray:
    """Centred predictions (rows, D) from the beginnings of recordings, looped to one clip.

    With an accelerator, all its processes must call this: each hears its share.
    """
    samples = round(clip_seconds * SAMPLING_RATE)
    process, processes = (
        (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    )
    share = math.ceil(len(rows) / processes)
    own = np.resize(rows, share * processes)[process * share : (process + 1) * share]
    device = accelerator.device if accelerator else next(student.parameters()).device
    student.eval()
    predictions = []
    for start in range(0, share, VALIDATION_BATCH):
        clips = [
            np.resize(pairs.speech(r)[:samples], samples) for r in own[start:][:VALIDATION_BATCH]
        ]
        speech = normalise(torch.from_numpy(np.stack(clips).astype(np.float32) / 32768))
        with accelerator.autocast() if accelerator else nullcontext():
            predictions.append(student(speech.to(device))[0].float())
    predicted = torch.cat(predictions)
    if processes > 1:
        predicted = accelerator.gather(predicted)
    return predicted[: len(rows)].cpu().numpy()


def validate(
    student: nn.Module,
    config: VoiceEncoderTraining,
    pairs: Pairs,
    validation: Pairs,
    accelerator: Any,
) -> dict[str, float]:
    """Figures on validation speakers: retrieval, verification, gender as the faces separate it.

    Gender is read from a prediction by the direction between the mean faces of the training set's
    women and men; nothing is fitted to predictions. All processes take part, and all get the same
    figures, the main process's: they decide together whether to go on.
    """
    from accelerate.utils import broadcast_object_list

    rows = _spread_over_speakers(validation, config.validation_pairs)
    predicted = predict(student, validation, rows, config.crop_seconds, accelerator)
    check_finite(predicted, "predictions are")
    mean = pairs.embeddings.mean(0)
    figures = [figures_of(predicted, rows, pairs, validation, mean)]
    return broadcast_object_list(figures)[0]


def figure_named(name: str, figures: dict[str, float]) -> float:
    """The figure of a validation by which checkpoints are compared; higher is better.

    Raises:
        ValueError: if the validation has no such figure.
    """
    if name not in figures:
        raise ValueError(f"best_metric {name!r} is none of {', '.join(sorted(figures))}")
    return figures[name]


def in_words(figures: dict[str, float]) -> str:
    """One line of figures, with the chance of one of them."""
    shown = {k: v for k, v in figures.items() if not k.startswith("chance") or k == "chance_at_10"}
    return ", ".join(f"{name} {value:.3g}" for name, value in shown.items())


def figures_of(
    predicted: np.ndarray, rows: np.ndarray, pairs: Pairs, validation: Pairs, mean: np.ndarray
) -> dict[str, float]:
    """See `validate`; `predicted` (rows, D) belongs to the pairs `rows` of `validation`."""
    actual = validation.embeddings[rows] - mean
    _, first = np.unique(validation.speakers[rows], return_index=True)  # one pair a speaker
    gallery = (validation.speaker_embeddings() - mean)[validation.speakers[rows][first]]
    genders = validation.genders[rows]
    figures = _recognition(predicted[first], gallery, genders[first])
    figures["cosine"] = float(similarity.cosines(predicted, actual).mean())
    figures["explained"] = 1 - float(
        np.square(predicted - actual).sum() / np.square(actual).sum()
    )  # of the faces' variance; 0 for the mean face
    if {"female", "male"} <= set(pairs.genders):
        labelled = pairs.genders != ""
        direction = similarity.centroid_direction(
            pairs.embeddings[labelled], pairs.genders[labelled] == "male"
        )
        scores = predicted @ direction
        figures["gender_auc"] = association.roc_auc(scores, genders == "male")
        sources = validation.voice_sources[rows]
        for source in sorted(set(sources) - {""}):
            of = sources == source
            figures[f"gender_auc/{source}"] = association.roc_auc(scores[of], genders[of] == "male")
    return figures


def _recognition(probes: np.ndarray, gallery: np.ndarray, genders: np.ndarray) -> dict[str, float]:
    """Retrieval and verification; row i of the gallery is the right face of probe i.

    Verification among one gender is left out where no genders are known.
    """
    speakers = np.arange(len(probes))
    ranks = retrieval.ranks(probes, gallery, speakers, speakers)
    recall, chance = retrieval.recall_curve(ranks, RECALL_AT)
    compared = association.compare(
        probes, gallery, speakers, speakers, {"same_gender": (genders, genders)}
    )
    figures = {
        **{f"recall_at_{k}": float(share) for k, share in zip(RECALL_AT, recall, strict=True)},
        **{f"chance_at_{k}": float(share) for k, share in zip(RECALL_AT, chance, strict=True)},
        "gallery": len(gallery),
        "verification_auc": association.verification_auc(compared),
        "verification_auc_same_gender": association.verification_auc(compared, "same_gender"),
    }
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _spread_over_speakers(pairs: Pairs, count: int) -> np.ndarray:
    """At most `count` pairs: every speaker's first, then every speaker's second, and so on.

    They come in the order of the data set, which is how a streamed one is read soonest.
    """
    of_speakers = pairs.pairs_of_speakers()
    turns = [(turn, row) for rows in of_speakers for turn, row in enumerate(rows.tolist())]
    return np.sort([row for _, row in sorted(turns)[:count]])
