"""Trains a voice encoder: `accelerate launch -m training.train_voice_encoder CONFIG.yaml`.

Letters: B batch, T samples, D size of the face embedding, V of the voice teacher's, P parameters of
a voice, C speakers of the training set.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training import losses
from training.checkpoints import (
    Meter,
    Progress,
    StopRequest,
    accelerator_of,
    batches_to_go,
    begins,
    configuration_of,
    end_processes,
    failures_explained,
    load_weights,
    one_goes_first,
    optimizer_of,
    refusing,
    resume,
    save_checkpoint,
    seed_of_step,
    set_learning_rate,
    steps_to_go,
    take_step,
    training_parser,
)
from training.configuration import VoiceEncoderTraining
from training.data import SPLITS, Pairs, check_same_teacher, load_pairs
from training.hub import check_can_push
from training.stated_voices import StatedVoices
from training.streaming import stream_pairs
from training.voice_batches import VoiceBatches, in_order
from training.voice_encoder_hub import push, write_card
from training.voice_validation import figure_named, figures_of, in_words, predict, validate

HEADS = ("voice_head", "parameter_head", "speaker_weights")  # the student's own, not the model's


class VoiceStudent(nn.Module):
    """The voice encoder, and beside it what only its losses need and is not shipped.

    The head that copies the voice teacher, the one that hears how the voice was made, and
    AM-softmax's class weights. These are learnt, as in their paper, and start as the speakers'
    prototypes: from the first step a voice is drawn to where its face is. Each exists only if its
    loss is used, since DDP waits for the gradient of every parameter.

    Args:
        model: a `Speech2FaceModel`.
        voice_embedding_size: V, or None without a voice teacher.
        num_voice_parameters: P, or None without that loss.
        prototypes: (C, D), of which AM-softmax's class weights are a copy; None without that loss.
    """

    def __init__(
        self,
        model: nn.Module,
        voice_embedding_size: int | None,
        num_voice_parameters: int | None = None,
        prototypes: Tensor | None = None,
    ):
        super().__init__()
        self.model = model
        self.voice_head = _head(model.pooled_size, voice_embedding_size)
        self.parameter_head = _head(model.pooled_size, num_voice_parameters)
        self.speaker_weights = None if prototypes is None else nn.Parameter(prototypes.clone())

    def forward(self, input_values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised speech (B, T) to face embeddings (B, D), and what the losses' own parts say.

        That is "voice" (B, V), the voice embeddings, "voice_parameters" (B, P), and "speakers"
        (B, C), the cosines of the face embeddings and the class weights.
        """
        output = self.model(input_values)
        face, heads = output.face_embeddings, {}
        if self.voice_head is not None:
            heads["voice"] = self.voice_head(output.pooled)
        if self.parameter_head is not None:
            heads["voice_parameters"] = self.parameter_head(output.pooled)
        if self.speaker_weights is not None:
            with torch.autocast(face.device.type, enabled=False):  # in bf16 1 is next to 0.996
                heads["speakers"] = losses.cosines(face.float(), self.speaker_weights)
        return face, heads


def _head(pooled_size: int, outputs: int | None) -> nn.Module | None:
    """A linear head, or None without outputs.

    What voices share is many times what they differ in: pooled features are standardised first, or
    a linear layer would learn slowly.
    """
    if outputs is None:
        return None
    return nn.Sequential(nn.BatchNorm1d(pooled_size, affine=False), nn.Linear(pooled_size, outputs))


def train(
    config: VoiceEncoderTraining,
    stop_at_step: int | None = None,
    data: tuple[Pairs, Pairs] | None = None,
) -> Path | None:
    """Trains, continuing from the latest checkpoint in `config.output` if there is one.

    Args:
        config: of the run.
        stop_at_step: stop there with a checkpoint, as an interruption would.
        data: the pairs to train on and those to validate on; those of `config.dataset` if None.

    Returns:
        The folder `final/` of the finished model, or None if the run was stopped before its end.
    """
    from accelerate.utils import set_seed
    from tqdm import tqdm

    accelerator = accelerator_of(config, can_spread=True)
    # 1. Data, model, optimiser
    with one_goes_first(accelerator):
        pairs, validation = data or load_data(config)
        voices = _voices(pairs, config)  # (N, V) or None
    student = build_student(config, pairs, voices)
    optimizer = optimizer_of(config, student, learning_rates_of(config))
    student, optimizer = accelerator.prepare(student, optimizer)
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    accelerator.init_trackers("tensorboard")
    resume(accelerator, config)
    batches = VoiceBatches(
        config, pairs, voices, accelerator.process_index, accelerator.num_processes
    )
    references = load_references(config, pairs, accelerator.device)
    meter = Meter(config.batch_size * config.gradient_accumulation * accelerator.num_processes)
    numbers = batches_to_go(progress, config)
    coming = meter.waiting_for(in_order(batches, numbers, accelerator.device))

    def loss_of(student: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with accelerator.autocast():  # FSDP leaves it to us
            predicted, heads = student(batch["input_values"])  # (B, D), ...
        parts = weighted_losses(config, predicted, heads, batch, references)
        return {f"loss/{name}": part for name, part in parts.items()} | {
            "loss": sum(parts.values())
        }

    # 2. Steps
    bar = tqdm(total=config.steps, initial=progress.step, disable=not accelerator.is_main_process)
    with StopRequest() as stop, failures_explained(config, progress):
        to_go = () if _is_done(progress, config) else steps_to_go(progress, config, stop_at_step)
        for step in to_go:
            # NumPy's too: transformers draws SpecAugment's masks with it
            set_seed(seed_of_step(config.seed, step, accelerator.process_index) % 2**32)
            rate = set_learning_rate(optimizer, config, step)
            student.train()
            with meter.step():
                values, norm = take_step(accelerator, config, student, optimizer, coming, loss_of)
            progress.step = step + 1
            bar.update()

            # 3. What a person watches, and what a killed run needs
            if progress.step % config.log_every == 0:
                shown = {name.removeprefix("loss/"): f"{v:.3f}" for name, v in values.items()}
                bar.set_postfix(shown)
                values |= {"learning_rate": rate, "gradient_norm": norm}
                accelerator.log(values | meter.read(accelerator.device), progress.step)
            best = False
            if progress.step % config.validate_every == 0:
                figures = validate(student, config, pairs, validation, accelerator)
                accelerator.log({f"validation/{k}": v for k, v in figures.items()}, progress.step)
                if accelerator.is_main_process:
                    bar.write(f"step {progress.step}: {in_words(figures)}")
                best = progress.validated(figure_named(config.best_metric, figures))
            done = _is_done(progress, config)
            if (
                stop.agreed(accelerator)
                or progress.step == stop_at_step
                or best
                or done
                or (progress.step % config.checkpoint_every == 0)
            ):
                save_checkpoint(accelerator, config, progress.step, progress.best_step)
            if stop.asked or done:
                break

    # 4. The finished model
    if not _is_done(progress, config):
        accelerator.print(f"stopped at step {progress.step}: run the same command to continue")
        del student
        end_processes(accelerator)
        return None
    if config.early_stopping:
        resume(accelerator, config, Path(config.output) / f"checkpoint-{progress.best_step}")
    folder = Path(config.output) / "final"
    state = accelerator.get_state_dict(student)  # whole, on whichever processes it was spread
    del student
    end_processes(accelerator)
    if accelerator.is_main_process:
        student = build_student(config, pairs, voices)
        student.load_state_dict(state)
        finish(student.to(accelerator.device), config, pairs, validation, folder, progress.step)
    return folder


def load_data(config: VoiceEncoderTraining) -> tuple[Pairs, Pairs]:
    """The training and the validation split, decoded or streamed."""
    if config.streaming:
        return tuple(stream_pairs(config.dataset, s, config.cache) for s in SPLITS[:2])
    return tuple(load_pairs(config.dataset, s, config.cache) for s in SPLITS[:2])


def learning_rates_of(config: VoiceEncoderTraining) -> dict[str, float]:
    """The learning rates of single parts, by their names in the student."""
    return {name_in_student(part): rate for part, rate in config.learning_rates.items()}


def name_in_student(part: str) -> str:
    """A part of the model, as the student's parameters name it; heads are the student's own."""
    return part if part in HEADS else f"model.{part}"


def freeze(student: VoiceStudent, parts: Sequence[str]) -> None:
    """Excludes parts from training, and what no step would use.

    Raises:
        ValueError: for a part that the model does not have.
    """
    for part in parts:
        of_part = [p for n, p in student.named_parameters() if begins(n, name_in_student(part))]
        if not of_part:
            raise ValueError(f"frozen: the model has no part {part!r}")
        for parameter in of_part:
            parameter.requires_grad_(False)
    backbone = student.model.voice_encoder
    augments = getattr(backbone.config, "apply_spec_augment", True)
    if hasattr(backbone, "masked_spec_embed") and not augments:
        backbone.masked_spec_embed.requires_grad_(False)  # several processes wait for its gradient


def _is_done(progress: Progress, config: VoiceEncoderTraining) -> bool:
    """Whether all steps are taken, or the validations have not become better for long enough."""
    gave_up = config.early_stopping is not None and progress.worse_since >= config.early_stopping
    return gave_up or progress.step >= config.steps


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
        model = load_pretrained(config, arguments)
    else:
        model = Speech2FaceModel(Speech2FaceConfig(**arguments))
    if not torch.cuda.is_available():
        # On a CPU the backward pass of the fused attention takes a fifth of a step.
        model.voice_encoder.set_attn_implementation("eager")
    if config.filter_bank != "none":
        start_as_filter_bank(model, learns=config.filter_bank == "trained")
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    student = VoiceStudent(
        model,
        None if voices is None else voices.shape[1],
        len(StatedVoices(pairs).names) if config.losses.voice_parameters else None,
        speaker_prototypes(pairs) if config.losses.am_softmax else None,
    )
    freeze(student, config.frozen)
    return student


def load_pretrained(config: VoiceEncoderTraining, arguments: dict[str, Any]) -> nn.Module:
    """A `Speech2FaceModel` to train further, or a new one around a pretrained audio backbone.

    Args:
        config: of the run.
        arguments: of `Speech2FaceConfig`, for a new one.

    Raises:
        ValueError: if a `Speech2FaceModel` predicts another recogniser's embeddings, or the
            configuration says of which parts it should be.
    """
    from transformers import AutoConfig

    from modeling_speech2face import Speech2FaceConfig, Speech2FaceModel

    source, mean = config.pretrained, arguments["face_embedding_mean"]
    if not isinstance(AutoConfig.from_pretrained(source), Speech2FaceConfig):
        return Speech2FaceModel.from_voice_encoder_pretrained(source, **arguments)
    if config.model:
        raise ValueError(f"pretrained: {source} is a whole model: leave model out")
    model = Speech2FaceModel.from_pretrained(source, dtype=torch.float32)
    check_same_teacher(
        pretrained=model.config.face_recogniser, data_set=arguments["face_recogniser"]
    )
    model.config.face_embedding_mean = mean
    model.face_embedding_mean.copy_(torch.tensor(mean))
    return model


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


def speaker_prototypes(pairs: Pairs) -> Tensor:
    """(C, D): the mean of each speaker's centred face embeddings."""
    return torch.from_numpy(pairs.speaker_embeddings() - pairs.embeddings.mean(0))


@dataclass
class LossReferences:
    """What the losses measure by, none of it trained.

    Attributes:
        variance: mean squared norm of the training faces' centred embeddings.
        prototypes: (C, D) of the training speakers, or None if no loss asks for them.
        feature_decoder: a frozen `NormalizedFaceDecoder`, or None.
    """

    variance: float
    prototypes: Tensor | None = None
    feature_decoder: nn.Module | None = None


def load_references(
    config: VoiceEncoderTraining, pairs: Pairs, device: torch.device
) -> LossReferences:
    """What this configuration's losses measure by, on `device`.

    Raises:
        FileNotFoundError: if there is no such `feature_decoder`.
        ValueError: if it decodes another teacher's embeddings.
    """
    references = LossReferences(
        float(np.square(pairs.embeddings - pairs.embeddings.mean(0)).sum(1).mean())
    )
    if config.losses.classifier_distillation:
        references.prototypes = speaker_prototypes(pairs).to(device)
    if config.feature_decoder is not None:
        from modeling_speech2face import NormalizedFaceDecoder

        folder = Path(config.feature_decoder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"no feature_decoder in {folder}: train one with training.train_normalized_decoder "
                "and name its final/normalized_decoder"
            )
        decoder = NormalizedFaceDecoder.from_pretrained(folder, torch_dtype=torch.float32)
        check_same_teacher(feature_decoder=decoder.config.face_recogniser, data_set=pairs.teacher)
        references.feature_decoder = decoder.to(device).eval().requires_grad_(False)
    return references


def weighted_losses(
    config: VoiceEncoderTraining,
    predicted: Tensor,
    heads: dict[str, Tensor],
    batch: dict[str, Tensor],
    references: LossReferences,
) -> dict[str, Tensor]:
    """Each loss whose weight is not 0, times its weight; their sum is minimised.

    Args:
        config: of the run.
        predicted: (B, D), see `VoiceStudent.forward`.
        heads: see there.
        batch: see `VoiceBatches`.
        references: see `load_references`.
    """
    target, speakers, weights = batch["target"], batch["speakers"], config.losses

    def logits(embeddings: Tensor) -> Tensor:  # (B, D) to (B, C), in place of a classifier's
        return weights.classifier_scale * losses.cosines(embeddings, references.prototypes)

    terms = {
        "mse": lambda: losses.mse_loss(predicted, target, references.variance),
        "cosine": lambda: losses.cosine_loss(predicted, target),
        "normalised_l2": lambda: losses.normalised_l2_loss(predicted, target),
        "info_nce": lambda: losses.info_nce_loss(predicted, target, speakers, weights.temperature),
        "distillation": lambda: losses.distillation_loss(heads["voice"], batch["voice"]),
        "voice_parameters": lambda: losses.voice_parameters_loss(
            heads["voice_parameters"], batch["voice_parameters"]
        ),
        "feature_l1": lambda: losses.feature_l1_loss(
            predicted, target, references.feature_decoder.features
        ),
        "classifier_distillation": lambda: losses.classifier_distillation_loss(
            logits(predicted), logits(target), weights.classifier_temperature
        ),
        "am_softmax": lambda: losses.am_softmax_loss(
            heads["speakers"], speakers, weights.am_softmax_scale, weights.am_softmax_margin
        ),
    }
    used = {name: getattr(weights, name) for name in terms if getattr(weights, name)}
    return {name: weight * terms[name]() for name, weight in used.items()}


def finish(
    student: VoiceStudent,
    config: VoiceEncoderTraining,
    pairs: Pairs,
    validation: Pairs,
    folder: Path,
    steps: int,
) -> dict[str, Any]:
    """Calibrates, estimates what a voice leaves open, and writes the model to `folder`.

    Calibrated by `calibration_of` on validation speakers; the residual covariance is estimated
    around that. Prediction and draw together then have the faces' own spread, which is reported.
    """
    model = student.model.float()
    mean = pairs.embeddings.mean(0)
    rows = np.arange(len(validation))
    predicted = predict(student.float(), validation, rows, model.config.clip_seconds)
    model.cpu()
    actual = validation.embeddings - mean
    calibration = calibration_of(predicted, actual)  # (D, D)
    shortest, *_, longest = np.linalg.eigvalsh(calibration)
    last = model.projection[-1]
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(calibration).float() @ last.weight)
        last.bias.copy_(torch.from_numpy(calibration).float() @ last.bias)
    predicted = predicted @ calibration.T.astype(np.float32)
    model.set_residual_covariance(torch.from_numpy(actual - predicted))
    drawn = float(model.residual_covariance.trace()) + float(predicted.var(0).sum())
    figures = figures_of(predicted, rows, pairs, validation, mean) | {
        "calibration_shortest": float(shortest),
        "calibration_longest": float(longest),
        "spread_of_draws": math.sqrt(drawn / float(actual.var(0).sum())),  # 1: as wide as the faces
        "speakers": len(validation.speaker_names),
        "steps": steps,
    }
    model.to(getattr(torch, config.save_dtype)).save_pretrained(folder)
    model.feature_extractor.save_pretrained(folder)
    (folder / "validation.json").write_text(json.dumps(figures, indent=2) + "\n")
    config.keep_beside(folder)
    write_card(folder, config, figures)
    print(f"{folder}: {in_words(figures)}")
    return figures


def calibration_of(predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """The matrix that brings predictions to the lengths with the least squared error.

    Along each principal direction of the predictions, of energy e_k = sum p_k^2, the length is
    brought to t_k = (<p_k, y_k> + e t) / (e_k + e): what that direction asks for, and the more the
    overall t = <p, y> / <p, p> the less there is of it; e is the mean energy. What a voice tells
    for sure, such as a gender, is then not shortened for the sake of what it tells badly.

    Args:
        predicted: (N, D) centred embeddings of validation speakers.
        actual: (N, D) those of their faces.

    Returns:
        (D, D), symmetric; lengths between .05 and 2: a run of a few steps may find no use in a
        voice.
    """
    overall = float((predicted * actual).sum() / np.square(predicted).sum())
    energy, directions = np.linalg.eigh(predicted.T.astype(np.float64) @ predicted)
    products = ((predicted @ directions) * (actual @ directions)).sum(0)
    lengths = (products + energy.mean() * overall) / (energy + energy.mean())
    return (directions * lengths.clip(0.05, 2.0)) @ directions.T


def export(config: VoiceEncoderTraining, checkpoint: str, folder: str) -> None:
    """Writes the model of a checkpoint as the end of the training would."""
    pairs, validation = load_data(config)
    student = build_student(config, pairs, _voices(pairs, config))
    progress = load_weights(student, checkpoint)
    finish(student, config, pairs, validation, Path(folder), progress.step)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = training_parser()
    parser.add_argument("--push-to-hub", metavar="REPO", help="put the finished model there")
    parser.add_argument("--private", action="store_true", help="and let only its owner see it")
    options = parser.parse_args(arguments)
    with refusing(parser):
        from accelerate import PartialState

        config = configuration_of(options, VoiceEncoderTraining)
        if options.export:
            export(config, *options.export)
            return
        if options.push_to_hub:
            options.push_to_hub = check_can_push(options.push_to_hub, options.private)
        folder = train(config)
        if folder and options.push_to_hub and PartialState().is_main_process:
            print(f"pushed to {push(folder, options.push_to_hub, options.private)}")


if __name__ == "__main__":
    main()
