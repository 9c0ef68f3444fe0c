"""Trains the paper's decoder: `accelerate launch -m training.train_normalized_decoder CONFIG.yaml`.

Three things are asked of a decoded face (Cole et al., CVPR 2017, section 4.2; Oh et al., CVPR 2019,
section 3): the texture and the landmarks of the normalized face, and that the teacher, through
which gradients pass, recognises the person whose embedding it was.

Letters: B batch, N pairs, D size of the face embedding, S side of a face in pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.checkpoints import (
    Meter,
    Progress,
    StopRequest,
    accelerator_of,
    average_of,
    averaged,
    batches_to_go,
    end_processes,
    failures_explained,
    load_averaged,
    log_sheet,
    one_goes_first,
    optimizer_of,
    resume,
    run_command,
    save_checkpoint,
    seed_of_step,
    set_learning_rate,
    steps_to_go,
    take_step,
)
from training.configuration import NormalizedDecoderTraining
from training.data import Pairs, centred, rows_of_batch
from training.face_targets import FaceTargets, load_targets
from training.face_teacher import load_teacher, look_again
from training.losses import cosine_loss, landmark_loss, texture_loss

GALLERY = 100  # faces among which a validation looks for the right one
SHEET_FACES = 8  # columns of a sample sheet


def train(config: NormalizedDecoderTraining, stop_at_step: int | None = None) -> Path | None:
    """Trains, continuing from the latest checkpoint in `config.output` if there is one.

    Args:
        config: of the run.
        stop_at_step: stop there with a checkpoint, as an interruption would.

    Returns:
        The folder `final/` of the finished decoder, or None if the run was stopped before its end.
    """
    from tqdm import tqdm

    accelerator = accelerator_of(config)
    # 1. Data, teacher, model, averaged weights, optimiser
    size = face_size(config)
    with one_goes_first(accelerator):
        pairs, targets = load_targets(config.dataset, "train", config.cache, size)
        validation = load_targets(config.dataset, "validation", config.cache, size)
    teacher = load_teacher(pairs.teacher, accelerator.device)
    decoder = build_decoder(config, pairs, targets)
    texture_shape = decoder.texture_shape.clone()
    optimizer = optimizer_of(config, decoder)
    decoder, optimizer = accelerator.prepare(decoder, optimizer)
    average, progress = average_of(config, decoder), Progress()
    accelerator.register_for_checkpointing(average, progress)
    accelerator.init_trackers("tensorboard")
    resume(accelerator, config)
    average.to(accelerator.device)
    loss_of = DecoderLoss(config, teacher, pairs, targets, texture_shape)
    batches = TargetBatches(
        config, pairs, targets, accelerator.process_index, accelerator.num_processes
    )

    # 2. Steps
    bar = tqdm(total=config.steps, initial=progress.step, disable=not accelerator.is_main_process)
    recent: list[dict[str, float]] = []
    meter = Meter(config.batch_size * config.gradient_accumulation * accelerator.num_processes)
    numbers = batches_to_go(progress, config)
    coming = meter.waiting_for(batches(number, accelerator.device) for number in numbers)
    with StopRequest() as stop, failures_explained(config, progress):
        for step in steps_to_go(progress, config, stop_at_step):
            torch.manual_seed(seed_of_step(config.seed, step, accelerator.process_index))
            rate = set_learning_rate(optimizer, config, step)
            decoder.train()
            with meter.step():
                losses, norm = take_step(accelerator, config, decoder, optimizer, coming, loss_of)
                average.step(decoder.parameters())
            recent.append(losses)
            progress.step = step + 1
            bar.update()

            # 3. What a person watches, and what a killed run needs
            if progress.step % config.log_every == 0:
                means = {name: np.mean([r[name] for r in recent]) for name in recent[0]}
                bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
                means |= {"learning_rate": rate, "gradient_norm": norm}
                accelerator.log(means | meter.read(accelerator.device), progress.step)
                recent.clear()
            if accelerator.is_main_process:
                finished = progress.step == config.steps
                model = accelerator.unwrap_model(decoder)
                if progress.step % config.validate_every == 0 or finished:
                    with averaged(model, average):
                        figures = validate(model, teacher, *validation, pairs)
                    accelerator.log(figures, progress.step)
                    bar.write(f"step {progress.step}: {_in_words(figures)}")
                if progress.step % config.sample_every == 0 or finished:
                    with averaged(model, average):
                        sheet = sample_sheet(model, *validation, pairs)
                    log_sheet(accelerator, config, sheet, progress.step)
            last = stop.agreed(accelerator) or progress.step in (config.steps, stop_at_step)
            if progress.step % config.checkpoint_every == 0 or last:
                save_checkpoint(accelerator, config, progress.step)
            if stop.asked:
                break

    # 4. The finished decoder
    decoder = accelerator.unwrap_model(decoder)
    end_processes(accelerator)
    if progress.step < config.steps:
        accelerator.print(f"stopped at step {progress.step}: run the same command to continue")
        return None
    folder = Path(config.output) / "final"
    if accelerator.is_main_process:
        finish(config, decoder, average, folder)
    return folder


def face_size(config: NormalizedDecoderTraining) -> int:
    """S of the decoder that this configuration describes."""
    from modeling_speech2face import NormalizedFaceDecoder

    with torch.device("meta"):  # no weights are made
        return NormalizedFaceDecoder(**config.model).size


def build_decoder(
    config: NormalizedDecoderTraining, pairs: Pairs, targets: FaceTargets
) -> nn.Module:
    """The decoder to train, seeded, around the mean of the training split's landmarks.

    Args:
        config: of the run.
        pairs: of the training split.
        targets: of the training split.
    """
    from modeling_speech2face import NormalizedFaceDecoder

    torch.manual_seed(config.seed)
    decoder = NormalizedFaceDecoder(
        **dict(config.model)
        | {
            "face_recogniser": pairs.teacher,
            "face_embedding_size": pairs.embeddings.shape[1],
            "embedding_scale": float(1 / centred(pairs, pairs).std()),
        }
    )
    decoder.set_mean_landmarks(torch.from_numpy(mean_landmarks(targets)))
    return decoder.to(memory_format=torch.channels_last)  # half again as fast


def mean_landmarks(targets: FaceTargets) -> np.ndarray:
    """(68, 2) pixels: the mean over pairs."""
    return targets.landmarks[targets.of_pair].mean(0)


class TargetBatches:
    """Training batches as a pure function of (seed, number of the batch)."""

    def __init__(
        self,
        config: NormalizedDecoderTraining,
        pairs: Pairs,
        targets: FaceTargets,
        process: int = 0,
        processes: int = 1,
    ):
        self.config, self.targets = config, targets
        self.process, self.processes = process, processes
        self.centred = centred(pairs, pairs)
        self.spread = float(self.centred.std())

    def __call__(self, number: int, device: torch.device) -> dict[str, Tensor]:
        """Batch `number`: embeddings (B, D), and of its first rows, which are somebody's, faces
        (rows, 3, S, S) from 0 to 1 and landmarks (rows, 68, 2).
        """
        config, size = self.config, self.config.batch_size
        number = number * self.processes + self.process
        rows = rows_of_batch(config.seed, number, size, len(self.centred))
        rng = np.random.default_rng([config.seed, 4, number])
        embeddings = self.centred[rows]
        deviation = self.spread * rng.uniform(0, config.embedding_noise, (size, 1))
        embeddings = embeddings + deviation * rng.standard_normal(embeddings.shape)
        blends = round(config.blended * size)
        if blends:
            others = self.centred[rng.integers(len(self.centred), size=blends)]
            share = rng.uniform(0.3, 0.7, (blends, 1))
            embeddings[-blends:] += share * (others - embeddings[-blends:])
        whole = self.targets.of_pair[rows[: size - blends]]
        faces = np.stack([self.targets.faces[row] for row in whole.tolist()])
        return {
            "embeddings": torch.from_numpy(embeddings.astype(np.float32)).to(device),
            "faces": torch.from_numpy(faces).to(device).float() / 255,
            "landmarks": torch.from_numpy(self.targets.landmarks[whole]).to(device),
        }


class DecoderLoss:
    """The weighted sum of the paper's decoder's three losses.

    Args:
        config: of the run.
        teacher: its network, frozen.
        pairs: of the training split, for the embeddings' mean.
        targets: of the training split, for the landmarks' variance.
        texture_shape: (68, 2) pixels, in which the decoder paints.
    """

    def __init__(
        self,
        config: NormalizedDecoderTraining,
        teacher: nn.Module,
        pairs: Pairs,
        targets: FaceTargets,
        texture_shape: Tensor,
    ):
        self.weights, self.teacher = config.losses, teacher
        self.centre = torch.from_numpy(pairs.embeddings.mean(0))
        self.texture_shape = texture_shape
        away = targets.landmarks - mean_landmarks(targets)
        self.variance = float(np.square(away).sum(-1).mean())

    def __call__(self, decoder: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each loss, and their weighted sum as "loss"; see `TargetBatches` for the batch."""
        from modeling_speech2face import warp

        decoded = decoder(batch["embeddings"])
        count, device = len(batch["faces"]), batch["faces"].device
        losses = {}
        if count:
            shape = self.texture_shape.to(device).expand(count, -1, -1)
            # A fourth channel, black at the rim, says where the picture ends.
            inside = F.pad(torch.ones_like(batch["faces"][:, :1, 2:, 2:]), (1, 1, 1, 1))
            known = torch.cat([batch["faces"], inside], dim=1)
            textures, inside = warp(known, batch["landmarks"], shape).split([3, 1], dim=1)
            losses["texture"] = texture_loss(decoded.textures[:count], textures, inside)
            losses["landmarks"] = landmark_loss(
                decoded.landmarks[:count], batch["landmarks"], self.variance
            )
        made = self.teacher(look_again(decoded.faces)) - self.centre.to(device)
        losses["embedding"] = cosine_loss(made, batch["embeddings"])
        weighted = [getattr(self.weights, name) * value for name, value in losses.items()]
        return {"loss": sum(weighted), **losses}


@torch.no_grad()
def validate(
    decoder: nn.Module, teacher: nn.Module, validation: Pairs, targets: FaceTargets, pairs: Pairs
) -> dict[str, float]:
    """How well the teacher recognises validation speakers' faces, decoded from their embeddings.

    Args:
        decoder: in evaluation mode.
        teacher: its network.
        validation: of the validation split.
        targets: of the validation split.
        pairs: of the training split, for the mean.

    Returns:
        Cosine between what was asked for and what the teacher sees, both centred; whether the
        nearest of up to 100 true embeddings is the right one; how far the landmarks are off, in
        pixels.
    """
    rows = np.asarray([rows[0] for rows in validation.pairs_of_speakers()])
    wanted = centred(validation, pairs)[rows].astype(np.float32)
    device = next(decoder.parameters()).device
    seen, off = [], []
    for start in range(0, len(rows), 32):
        decoded = decoder(torch.from_numpy(wanted[start : start + 32]).to(device))
        seen.append(teacher(decoded.faces).cpu().numpy())
        true = targets.landmarks[targets.of_pair[rows[start : start + 32]]]
        off.append(np.linalg.norm(decoded.landmarks.cpu().numpy() - true, axis=-1))
    made = np.concatenate(seen)
    made = made - made.mean(0)
    made, wanted = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (made, wanted))
    gallery = wanted[:GALLERY]
    nearest = (made[:GALLERY] @ gallery.T).argmax(1)
    return {
        "validation/cosine": float((made * wanted).sum(1).mean()),
        f"validation/recall_at_1_of_{len(gallery)}": float(
            (nearest == np.arange(len(gallery))).mean()
        ),
        "validation/landmarks_off_px": float(np.concatenate(off).mean()),
    }


def _in_words(figures: dict[str, float]) -> str:
    return ", ".join(
        f"{name.removeprefix('validation/')} {value:.3f}" for name, value in figures.items()
    )


@torch.no_grad()
def sample_sheet(
    decoder: nn.Module, validation: Pairs, targets: FaceTargets, pairs: Pairs
) -> np.ndarray:
    """Validation faces to decode to, what is decoded, and its texture, as one picture.

    Args:
        decoder: in evaluation mode.
        validation: the validation split.
        targets: its faces.
        pairs: the training split, for its mean.

    Returns:
        (3 S, faces S, 3) uint8.
    """
    first = np.asarray([rows[0] for rows in validation.pairs_of_speakers()[:SHEET_FACES]])
    device = next(decoder.parameters()).device
    embeddings = torch.from_numpy(centred(validation, pairs)[first]).to(device)
    decoded = decoder(embeddings)
    true = np.stack([targets.faces[row] for row in targets.of_pair[first].tolist()])
    rows = [torch.from_numpy(true) / 255, decoded.faces.cpu(), decoded.textures.cpu()]
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)  # (3, 3 S, faces S)
    return (grid.float() * 255).round().byte().permute(1, 2, 0).numpy()


def finish(
    config: NormalizedDecoderTraining, decoder: nn.Module, average: Any, folder: Path
) -> None:
    """Writes the averaged weights to `folder`: normalized_decoder/."""
    average.copy_to(decoder.parameters())
    dtype = getattr(torch, config.save_dtype)
    nn.Module.to(decoder, dtype, memory_format=torch.contiguous_format)  # diffusers' own warns
    decoder.save_pretrained(folder / "normalized_decoder")
    config.keep_beside(folder)
    print(f"{folder}: normalized_decoder")


def export(config: NormalizedDecoderTraining, checkpoint: str, folder: str) -> None:
    """Writes the decoder of a checkpoint as the end of the training would."""
    accelerator = accelerator_of(config)
    pairs, targets = load_targets(config.dataset, "train", config.cache, face_size(config))
    decoder = build_decoder(config, pairs, targets)
    decoder, average = load_averaged(accelerator, config, decoder, checkpoint)
    finish(config, decoder, average, Path(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    run_command(arguments, NormalizedDecoderTraining, train, export)


if __name__ == "__main__":
    main()
