"""Trains a voice encoder: `accelerate launch -m training.train_voice_encoder CONFIG.yaml`.

Letters: B batch, T samples, D size of the face embedding, V of the voice teacher's.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training import losses
from training.augmentation import augment, crop
from training.checkpoints import (
    Progress,
    StopRequest,
    parameter_groups,
    resume,
    run_command,
    save_checkpoint,
    seed_of_step,
    set_learning_rate,
    steps_to_go,
)
from training.configuration import VoiceEncoderTraining
from training.data import SAMPLING_RATE, Pairs, load_pairs, speakers_of_batch
from training.measures import association, retrieval, similarity

VALIDATION_BATCH = 32
RECALL_AT = (1, 5, 10)


class VoiceStudent(nn.Module):
    """The voice encoder, and beside it the head that copies the voice teacher and is not shipped.

    Args:
        model: a `Speech2FaceModel`.
        voice_embedding_size: V, or None without a voice teacher.
    """

    def __init__(self, model: nn.Module, voice_embedding_size: int | None):
        super().__init__()
        self.model = model
        self.voice_head = (
            nn.Linear(model.pooled_size, voice_embedding_size) if voice_embedding_size else None
        )

    def forward(self, input_values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised speech (B, T) to face embeddings (B, D) and voice embeddings (B, V)."""
        output = self.model(input_values)
        voice = self.voice_head(output.pooled) if self.voice_head is not None else None
        return output.face_embeddings, voice


def train(config: VoiceEncoderTraining, stop_at_step: int | None = None) -> Path | None:
    """Trains, continuing from the latest checkpoint in `config.output` if there is one.

    Args:
        config: of the run.
        stop_at_step: stop there with a checkpoint, as an interruption would.

    Returns:
        The folder `final/` of the finished model, or None if the run was stopped before its end.
    """
    from accelerate import Accelerator
    from tqdm import tqdm

    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation,
        log_with="tensorboard",
        project_dir=config.output,
    )
    # 1. Data, model, optimiser
    with accelerator.main_process_first():
        pairs = load_pairs(config.dataset, "train", config.cache)
        validation = load_pairs(config.dataset, "validation", config.cache)
        voices = _voices(pairs, config)  # (N, V) or None
    student = build_student(config, pairs, voices)
    optimizer = torch.optim.AdamW(parameter_groups(student, config.weight_decay))
    student, optimizer = accelerator.prepare(student, optimizer)
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    accelerator.init_trackers("tensorboard")
    resume(accelerator, config)
    batches = VoiceBatches(
        config, pairs, voices, accelerator.process_index, accelerator.num_processes
    )
    variance = float(np.square(pairs.embeddings - pairs.embeddings.mean(0)).sum(1).mean())

    # 2. Steps
    bar = tqdm(total=config.steps, initial=progress.step, disable=not accelerator.is_main_process)
    with StopRequest() as stop:
        for step in steps_to_go(progress, config, stop_at_step):
            torch.manual_seed(seed_of_step(config.seed, step, accelerator.process_index))
            rate = set_learning_rate(optimizer, config, step)
            student.train()
            for part in range(config.gradient_accumulation):
                batch = batches(step * config.gradient_accumulation + part, accelerator.device)
                with accelerator.accumulate(student):
                    predicted, voice = student(batch["input_values"])  # (B, D), (B, V)
                    parts = weighted_losses(config, predicted, voice, batch, variance)
                    accelerator.backward(sum(parts.values()))
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(
                            student.parameters(), config.max_grad_norm
                        )
                    optimizer.step()
                    optimizer.zero_grad()
            progress.step = step + 1
            bar.update()

            # 3. What a person watches, and what a killed run needs
            if progress.step % config.log_every == 0:
                values = {f"loss/{name}": value.item() for name, value in parts.items()}
                bar.set_postfix({name[5:]: f"{value:.3f}" for name, value in values.items()})
                accelerator.log(
                    values | {"learning_rate": rate, "gradient_norm": float(norm)}, progress.step
                )
            if progress.step % config.validate_every == 0 and accelerator.is_main_process:
                figures = validate(student, config, pairs, validation)
                accelerator.log({f"validation/{k}": v for k, v in figures.items()}, progress.step)
                bar.write(f"step {progress.step}: {_in_words(figures)}")
            last = stop.asked or progress.step in (config.steps, stop_at_step)
            if progress.step % config.checkpoint_every == 0 or last:
                save_checkpoint(accelerator, config, progress.step)
            if stop.asked:
                break

    # 4. The finished model
    accelerator.end_training()
    if progress.step < config.steps:
        print(f"stopped at step {progress.step}: run the same command to continue")
        return None
    folder = Path(config.output) / "final"
    if accelerator.is_main_process:
        finish(accelerator.unwrap_model(student), config, pairs, validation, folder)
    return folder


def build_student(
    config: VoiceEncoderTraining, pairs: Pairs, voices: np.ndarray | None
) -> VoiceStudent:
    """The model to train, seeded; its targets are centred by the mean over the training faces."""
    from modeling_speech2face import Speech2FaceConfig, Speech2FaceModel

    torch.manual_seed(config.seed)
    arguments = dict(config.model) | {
        "face_recogniser": pairs.teacher,
        "face_embedding_size": pairs.embeddings.shape[1],
        "face_embedding_mean": pairs.embeddings.mean(0).tolist(),
    }
    if config.pretrained:
        model = Speech2FaceModel.from_voice_encoder_pretrained(config.pretrained, **arguments)
    else:
        model = Speech2FaceModel(Speech2FaceConfig(**arguments))
    if not torch.cuda.is_available():
        # On a CPU the backward pass of the fused attention takes a fifth of a step.
        model.voice_encoder.set_attn_implementation("eager")
    if config.filter_bank != "none":
        start_as_filter_bank(model, learns=config.filter_bank == "trained")
    return VoiceStudent(model, None if voices is None else voices.shape[1])


@torch.no_grad()
def start_as_filter_bank(model: nn.Module, learns: bool) -> None:
    """Makes the backbone's first convolution a bank of band-pass filters, three phases a band.

    A network that starts from noise would spend most of a short training on finding pitch and
    formants. After a rectifier, three phases at 120 degrees add up to the band's envelope, whatever
    the phase of the sound. Above 500 Hz the filters undo the fall of speech's spectrum.

    Args:
        model: a `Speech2FaceModel` with a wav2vec2-like convolutional encoder.
        learns: whether the filters are trained further.
    """
    if not hasattr(model.voice_encoder, "feature_extractor"):
        raise ValueError(
            "filter_bank needs a backbone with convolutions over the waveform, got "
            f"{model.voice_encoder.config.model_type}: set filter_bank to none"
        )
    layers = model.voice_encoder.feature_extractor.conv_layers
    kernels = layers[0].conv.weight  # (channels, 1, taps)
    channels, _, taps = kernels.shape
    if channels % 3:
        raise ValueError(f"filter_bank needs conv_dim[0] divisible by 3, got {channels}")
    rate = model.config.sampling_rate
    mel = torch.linspace(_mel(50.0), _mel(0.475 * rate), channels // 3 + 1, dtype=torch.float64)
    edges = 700 * (10 ** (mel / 2595) - 1)  # Hz
    time = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate  # s
    for band in range(channels // 3):
        centre, width = (edges[band] + edges[band + 1]) / 2, edges[band + 1] - edges[band]
        length = min(taps / rate, 2 / width.item())  # s; a Hann window this long is 2 widths wide
        window = torch.cos(math.pi * time / length).square() * (time.abs() < length / 2)
        emphasis = max(1.0, centre.item() / 500)
        for phase in range(3):
            wave = torch.cos(2 * math.pi * (centre * time + phase / 3))
            kernels[3 * band + phase, 0] = (emphasis * window * wave / window.sum()).float()
    if getattr(layers[0], "layer_norm", None) is not None:
        layers[0].layer_norm.weight.fill_(4.0)  # far enough into GELU to rectify weak bands too
    # Nothing before the filters learns, so the waveform needs no gradient: a quarter of a step.
    model.voice_encoder.feature_extractor._freeze_parameters()
    layers[0].requires_grad_(learns)
    for layer in layers[1:]:
        layer.requires_grad_(True)


def _mel(frequency_hz: float) -> float:
    return 2595 * math.log10(1 + frequency_hz / 700)


def _voices(pairs: Pairs, config: VoiceEncoderTraining) -> np.ndarray | None:
    if config.voice_teacher is None:
        return None
    from training.voice_teacher import voice_embeddings

    voices = voice_embeddings(pairs, config.voice_teacher)  # (N, V)
    return voices - voices.mean(0)  # centred, as faces are: a constant must not look like an answer


class VoiceBatches:
    """Training batches as a pure function of (seed, number of the batch).

    A speaker's recording and face are drawn independently of each other: what one picture shows by
    chance (light, expression) cannot be learnt with one recording.
    """

    def __init__(
        self,
        config: VoiceEncoderTraining,
        pairs: Pairs,
        voices: np.ndarray | None,
        process: int = 0,
        processes: int = 1,
    ):
        self.config, self.pairs, self.voices = config, pairs, voices
        self.process, self.processes = process, processes
        self.rows = pairs.pairs_of_speakers()
        self.centred = pairs.embeddings - pairs.embeddings.mean(0)

    def __call__(self, number: int, device: torch.device) -> dict[str, Tensor]:
        """Batch `number`: input_values (B, T), target (B, D), speakers (B,), voice (B, V)."""
        config, pairs = self.config, self.pairs
        number = number * self.processes + self.process
        speakers = speakers_of_batch(config.seed, number, config.batch_size, len(self.rows))
        rng = np.random.default_rng([config.seed, 2, number])
        heard = np.asarray([rng.choice(self.rows[speaker]) for speaker in speakers])
        seen = np.asarray([rng.choice(self.rows[speaker]) for speaker in speakers])
        speed = config.augmentation.speed if config.augmentation else 0.0
        samples = round(config.crop_seconds * SAMPLING_RATE)
        speech = torch.from_numpy(
            np.stack([crop(pairs.speech(row), samples, rng, speed) for row in heard])
        )  # (B, T)
        if config.augmentation:
            generator = torch.Generator().manual_seed(seed_of_step(config.seed + 1, number))
            speech = augment(speech, config.augmentation, generator, SAMPLING_RATE)
        batch = {
            "input_values": normalise(speech),
            "target": torch.from_numpy(self.centred[seen]),
            "speakers": torch.from_numpy(speakers),
        }
        if self.voices is not None:
            batch["voice"] = torch.from_numpy(self.voices[heard])
        return {name: value.to(device) for name, value in batch.items()}


def normalise(speech: Tensor) -> Tensor:
    """Zero mean and unit variance a row, as `Speech2FaceFeatureExtractor` gives it, (B, T)."""
    speech = speech - speech.mean(-1, keepdim=True)
    return speech / (speech.var(-1, keepdim=True, correction=0) + 1e-7).sqrt()


def weighted_losses(
    config: VoiceEncoderTraining,
    predicted: Tensor,
    voice: Tensor | None,
    batch: dict[str, Tensor],
    variance: float,
) -> dict[str, Tensor]:
    """Each loss whose weight is not 0, times its weight; their sum is minimised."""
    target, weights = batch["target"], config.losses
    terms = {
        "mse": lambda: losses.mse_loss(predicted, target, variance),
        "cosine": lambda: losses.cosine_loss(predicted, target),
        "normalised_l2": lambda: losses.normalised_l2_loss(predicted, target),
        "info_nce": lambda: losses.info_nce_loss(
            predicted, target, batch["speakers"], weights.temperature
        ),
        "distillation": lambda: losses.distillation_loss(voice, batch["voice"]),
    }
    used = {name: getattr(weights, name) for name in terms if getattr(weights, name)}
    return {name: weight * terms[name]() for name, weight in used.items()}


@torch.no_grad()
def predict(
    student: nn.Module, pairs: Pairs, rows: Sequence[int], clip_seconds: float
) -> np.ndarray:
    """Centred predictions (rows, D) from the beginnings of recordings, looped to one clip."""
    device = next(student.parameters()).device
    samples = round(clip_seconds * SAMPLING_RATE)
    student.eval()
    predictions = []
    for start in range(0, len(rows), VALIDATION_BATCH):
        clips = [
            np.resize(pairs.speech(r)[:samples], samples) for r in rows[start:][:VALIDATION_BATCH]
        ]
        speech = normalise(torch.from_numpy(np.stack(clips).astype(np.float32) / 32768))
        predictions.append(student(speech.to(device))[0].float().cpu().numpy())
    return np.concatenate(predictions)


def validate(
    student: nn.Module, config: VoiceEncoderTraining, pairs: Pairs, validation: Pairs
) -> dict[str, float]:
    """Figures on validation speakers: retrieval, verification, gender as the faces separate it.

    Gender is read from a prediction by the direction between the mean faces of the training set's
    women and men; nothing is fitted to predictions.
    """
    rows = _spread_over_speakers(validation, config.validation_pairs)
    predicted = predict(student, validation, rows, config.crop_seconds)
    mean = pairs.embeddings.mean(0)
    return figures_of(predicted, rows, pairs, validation, mean)


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
    """At most `count` pairs: every speaker's first, then every speaker's second, and so on."""
    of_speakers = pairs.pairs_of_speakers()
    turns = [(turn, row) for rows in of_speakers for turn, row in enumerate(rows.tolist())]
    return np.asarray([row for _, row in sorted(turns)][:count])


def finish(
    student: VoiceStudent,
    config: VoiceEncoderTraining,
    pairs: Pairs,
    validation: Pairs,
    folder: Path,
) -> dict[str, Any]:
    """Calibrates, estimates what a voice leaves open, and writes the model to `folder`.

    The prediction's length is brought to a t with the least squared error on validation speakers,
    t = <p, y> / <p, p>; the residual covariance is estimated around it. Prediction and draw
    together then have the faces' own spread, which is reported.
    """
    model = student.model.float()
    mean = pairs.embeddings.mean(0)
    rows = np.arange(len(validation))
    predicted = predict(student.float(), validation, rows, model.config.clip_seconds)
    actual = validation.embeddings - mean
    scale = float((predicted * actual).sum() / np.square(predicted).sum())
    scale = min(max(scale, 0.05), 2.0)  # a run of a few steps may find no use in a voice
    with torch.no_grad():
        model.projection[-1].weight.mul_(scale)
        model.projection[-1].bias.mul_(scale)
    predicted = predicted * scale
    model.set_residual_covariance(torch.from_numpy(actual - predicted))
    drawn = float(model.residual_covariance.trace()) + float(predicted.var(0).sum())
    figures = figures_of(predicted, rows, pairs, validation, mean) | {
        "calibration": scale,
        "spread_of_draws": math.sqrt(drawn / float(actual.var(0).sum())),  # 1: as wide as the faces
        "speakers": len(validation.speaker_names),
        "steps": config.steps,
    }
    model.to(getattr(torch, config.save_dtype)).save_pretrained(folder)
    model.feature_extractor.save_pretrained(folder)
    (folder / "validation.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(f"{folder}: {_in_words(figures)}")
    return figures


def export(config: VoiceEncoderTraining, checkpoint: str, folder: str) -> None:
    """Writes the model of a checkpoint as the end of the training would."""
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="no")
    pairs = load_pairs(config.dataset, "train", config.cache)
    validation = load_pairs(config.dataset, "validation", config.cache)
    student = build_student(config, pairs, _voices(pairs, config))
    optimizer = torch.optim.AdamW(parameter_groups(student, config.weight_decay))
    student, optimizer = accelerator.prepare(student, optimizer)
    accelerator.register_for_checkpointing(Progress())
    resume(accelerator, config, checkpoint)
    finish(accelerator.unwrap_model(student), config, pairs, validation, Path(folder))


def _in_words(figures: dict[str, float]) -> str:
    shown = {k: v for k, v in figures.items() if not k.startswith("chance") or k == "chance_at_10"}
    return ", ".join(f"{name} {value:.3g}" for name, value in shown.items())


def main(arguments: Sequence[str] | None = None) -> None:
    run_command(arguments, VoiceEncoderTraining, train, export)


if __name__ == "__main__":
    main()
