"""Trains the diffusion decoder: `accelerate launch -m training.train_face_decoder CONFIG.yaml`.

Letters: B batch, D size of the face embedding, S side of a face in pixels, C channels, h height and
width of what the UNet sees.
"""

from collections.abc import Callable, Sequence
from functools import partial
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
from training.configuration import DiffusionTraining, FaceDecoderTraining
from training.data import Pairs, centred, load_pairs, rows_of_batch
from training.diffusion import FaceDecoder, NoiseSchedule, build_sampler, decode
from training.face_teacher import load_teacher, look_again
from training.latents import FoldedPixels, VaeLatents, load_vae, pixels_of
from training.losses import cosine_loss

SHEET_FACES = 8  # columns of a sample sheet

Losses = Callable[[nn.Module, dict[str, Tensor], int], dict[str, Tensor]]


def train(config: FaceDecoderTraining, stop_at_step: int | None = None) -> Path | None:
    """Trains, continuing from the latest checkpoint in `config.output` if there is one.

    Args:
        config: of the run.
        stop_at_step: stop there with a checkpoint, as an interruption would.

    Returns:
        The folder `final/` of the finished decoder, or None if the run was stopped before its end.
    """
    accelerator = accelerator_of(config)
    pairs = load_training_pairs(accelerator, config)
    vae = load_vae(config.vae, accelerator.device)
    decoder = build_decoder(config, pairs, vae)
    sampler = build_sampler(config.scheduler, config.sampler, config.sampler_config)
    loss_of = DiffusionLoss(config, pairs, vae, accelerator.device)
    return fit(accelerator, config, decoder, loss_of, pairs, sampler, vae, stop_at_step)


def load_training_pairs(accelerator: Any, config: DiffusionTraining) -> Pairs:
    """The training split, decoded."""
    with one_goes_first(accelerator):
        return load_pairs(config.dataset, "train", config.cache, config.pixels)


def fit(
    accelerator: Any,
    config: DiffusionTraining,
    decoder: FaceDecoder,
    loss_of: Losses,
    pairs: Pairs,
    sampler: Any,
    vae: nn.Module | None,
    stop_at_step: int | None = None,
) -> Path | None:
    """The training loop of a diffusion decoder, whatever it learns.

    Args:
        accelerator: of the run.
        config: of the run.
        decoder: to train.
        loss_of: takes the decoder, a batch (see `FaceBatches`) and the step; returns the losses by
            name, of which "loss" is what is minimised.
        pairs: of the training split.
        sampler: the scheduler of the sample sheets and of the pipeline.
        vae: whose latents the decoder makes, if it does not make pixels.
        stop_at_step: as for `train`.

    Returns:
        As `train`.
    """
    from tqdm import tqdm

    # 1. Batches, averaged weights, optimiser
    with one_goes_first(accelerator):
        validation = load_pairs(config.dataset, "validation", config.cache, config.pixels)
        channels = decoder.unet.config.in_channels
        latents = FoldedPixels(pairs, channels) if vae is None else VaeLatents(pairs, vae)
        batches = FaceBatches(
            config, pairs, latents, accelerator.process_index, accelerator.num_processes
        )
    optimizer = optimizer_of(config, decoder)
    decoder, optimizer = accelerator.prepare(decoder, optimizer)
    average, progress = average_of(config, decoder), Progress()
    accelerator.register_for_checkpointing(average, progress)
    accelerator.init_trackers("tensorboard")
    resume(accelerator, config)
    average.to(accelerator.device)

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
            loss_of_step = partial(loss_of, step=step)
            with meter.step():
                losses, norm = take_step(
                    accelerator, config, decoder, optimizer, coming, loss_of_step
                )
                average.step(decoder.parameters())
            recent.append(losses)
            progress.step = step + 1
            bar.update()

            # 3. What a person watches, and what a killed run needs
            if progress.step % config.log_every == 0:
                means = {name: np.mean([r[name] for r in recent]) for name in recent[0]}
                bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
                means |= {"learning_rate": rate, "gradient_norm": norm}
                accelerator.log(means | meter.read(accelerator.device), progress.step)
                recent.clear()
            if progress.step % config.sample_every == 0 and accelerator.is_main_process:
                model = accelerator.unwrap_model(decoder)
                with averaged(model, average):
                    sheet = sample_sheet(config, model, sampler, pairs, validation, vae)
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
        finish(config, decoder, average, sampler, vae, folder)
    return folder


def build_decoder(
    config: FaceDecoderTraining, pairs: Pairs, vae: nn.Module | None = None
) -> FaceDecoder:
    """The decoder to train, seeded; its embeddings are brought to a standard deviation of 1.

    Raises:
        ValueError: if its UNet does not make `config.pixels` pixels.
    """
    from diffusers import UNet2DConditionModel

    from modeling_speech2face import FaceEmbeddingProjection

    torch.manual_seed(config.seed)
    unet = UNet2DConditionModel(**config.unet)
    pixels = pixels_of(unet, vae)
    if pixels != config.pixels:
        raise ValueError(
            f"unet.sample_size {unet.config.sample_size} with {unet.config.in_channels} channels "
            f"does not make {config.pixels} pixels, but {pixels}: set sample_size = "
            "pixels / sqrt(channels / 3), or with a VAE, pixels / pixels of a latent"
        )
    projection = FaceEmbeddingProjection(
        **dict(config.projection)
        | {
            "face_recogniser": pairs.teacher,
            "face_embedding_size": pairs.embeddings.shape[1],
            "cross_attention_dim": unet.config.cross_attention_dim,
            "embedding_scale": float(1 / centred(pairs, pairs).std()),
        }
    )
    return FaceDecoder(ready_to_learn(unet), projection)


def ready_to_learn(unet: nn.Module) -> nn.Module:
    """A UNet in the memory layout and with the attention that learn fastest."""
    from diffusers.models.attention_processor import AttnProcessor

    if not torch.cuda.is_available():
        # On a CPU the backward pass of the fused attention costs more than all other matrices.
        unet.set_attn_processor(AttnProcessor())
    return unet.to(memory_format=torch.channels_last)


class FaceBatches:
    """Training batches as a pure function of (seed, number of the batch)."""

    def __init__(
        self,
        config: DiffusionTraining,
        pairs: Pairs,
        latents: FoldedPixels | VaeLatents,
        process: int = 0,
        processes: int = 1,
    ):
        self.config, self.latents = config, latents
        self.process, self.processes = process, processes
        self.centred = centred(pairs, pairs)
        self.spread = float(self.centred.std())

    def __call__(self, number: int, device: torch.device) -> dict[str, Tensor]:
        """Batch `number`: latents (B, C, h, h), and centred embeddings (B, D)."""
        config, size = self.config, self.config.batch_size
        number = number * self.processes + self.process
        rows = np.sort(rows_of_batch(config.seed, number, size, len(self.centred)))
        rng = np.random.default_rng([config.seed, 3, number])
        mirrored = rng.random(size) < config.flip
        deviation = self.spread * rng.uniform(0, config.embedding_noise, (size, 1))
        embeddings = self.centred[rows]
        embeddings = embeddings + deviation * rng.standard_normal(embeddings.shape)
        return {
            "latents": self.latents(rows, mirrored, rng).to(device),
            "embeddings": torch.from_numpy(embeddings.astype(np.float32)).to(device),
        }


class DiffusionLoss:
    """The denoising loss with min-SNR weights, and what the teacher says of the predicted face.

    From `config.snr_gamma_steps` on, all timesteps weigh alike.

    Args:
        config: of the run.
        pairs: of the training split, for its teacher and the embeddings' mean.
        vae: whose latents are denoised, if they are not pixels.
        device: where the teacher shall be.
    """

    def __init__(
        self,
        config: FaceDecoderTraining,
        pairs: Pairs,
        vae: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ):
        self.config, self.vae = config, vae
        self.schedule = NoiseSchedule(config.scheduler)
        self.teacher = load_teacher(pairs.teacher, device) if config.embedding_loss else None
        self.centre = torch.from_numpy(pairs.embeddings.mean(0)).to(device)

    def __call__(
        self, decoder: nn.Module, batch: dict[str, Tensor], step: int = 0
    ) -> dict[str, Tensor]:
        """The losses by name: "loss", and with a teacher its parts, "denoising" and "embedding"."""
        config, schedule = self.config, self.schedule
        latents = batch["latents"].contiguous(memory_format=torch.channels_last)  # (B, C, h, h)
        noise, count = torch.randn_like(latents), len(latents)
        timesteps = schedule.timesteps(count).to(latents.device)
        is_null = (torch.rand(count) < config.condition_dropout).to(latents.device)
        noisy = schedule.noised(latents, noise, timesteps)
        predicted = decoder(noisy, timesteps, batch["embeddings"], is_null).float()
        target = schedule.target(latents, noise, timesteps)
        error = F.mse_loss(predicted, target, reduction="none").mean((1, 2, 3))  # (B,)
        if config.snr_gamma_steps is None or step < config.snr_gamma_steps:
            error = schedule.weights(timesteps, config.snr_gamma) * error
        if self.teacher is None:
            return {"loss": error.mean()}
        signal = schedule.signal(timesteps)
        seen = torch.nonzero((signal >= config.embedding_loss_signal) & ~is_null).flatten().cpu()
        rows = config.embedding_loss_rows if step >= config.embedding_loss_from else 0
        seen = seen[torch.randperm(len(seen))[:rows]].to(latents.device)
        clean = schedule.clean(noisy[seen], predicted[seen], timesteps[seen])
        embedding = self.embedding_loss(clean, batch["embeddings"][seen], signal[seen])
        loss = error.mean() + config.embedding_loss * embedding
        return {"loss": loss, "denoising": error.mean(), "embedding": embedding}

    def embedding_loss(self, clean: Tensor, wanted: Tensor, signal: Tensor) -> Tensor:
        """One minus the cosine of what the teacher sees in faces and what was asked for.

        Args:
            clean: (rows, C, h, h) predicted latents without noise.
            wanted: (rows, D), centred.
            signal: (rows,) share of signal in what was denoised, by which each row weighs: from
                much noise only an average face can be predicted, who is nobody.

        Returns:
            Scalar, 0 without any row. Source: the third loss of Cole et al., CVPR 2017, section
            4.2, which Oh et al., CVPR 2019, train their decoder by.
        """
        from modeling_speech2face import decode_latents

        if not len(clean):
            return clean.sum()
        faces = decode_latents(clean, self.vae) / 2 + 0.5  # not clamped: gradients pass
        return cosine_loss(self.teacher(look_again(faces)) - self.centre, wanted, signal)


@torch.no_grad()
def sample_sheet(
    config: DiffusionTraining,
    decoder: FaceDecoder,
    sampler: Any,
    pairs: Pairs,
    validation: Pairs,
    vae: nn.Module | None = None,
) -> np.ndarray:
    """Validation faces, and below each two faces decoded from its embedding, as one picture.

    Args:
        config: of the run.
        decoder: in evaluation mode.
        sampler: a diffusers scheduler.
        pairs: the training split, for its mean.
        validation: the validation split.
        vae: whose latents the decoder makes, if it does not make pixels.

    Returns:
        (3 S, faces S, 3) uint8.
    """
    first = np.asarray([rows[0] for rows in validation.pairs_of_speakers()[:SHEET_FACES]])
    device = next(decoder.parameters()).device
    embeddings = torch.from_numpy(centred(validation, pairs)[first]).to(device)
    rows = [torch.from_numpy(np.asarray(validation.faces[first])).float() / 127.5 - 1]
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        scale, steps = config.guidance_scale, config.sample_steps
        rows.append(decode(decoder, sampler, embeddings, steps, scale, generator, vae).cpu())
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)  # (3, 3 S, faces S)
    return ((grid + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def finish(
    config: DiffusionTraining,
    decoder: FaceDecoder,
    average: Any,
    sampler: Any,
    vae: nn.Module | None,
    folder: Path,
) -> None:
    """Writes the averaged weights and all that they need to `folder`.

    unet/, embedding_projection/, scheduler/, and where there is one, vae/.
    """
    average.copy_to(decoder.parameters())
    dtype = getattr(torch, config.save_dtype)
    decoder.float().to(dtype).to(memory_format=torch.contiguous_format)
    decoder.unet.save_pretrained(folder / "unet")
    decoder.projection.save_pretrained(folder / "embedding_projection")
    sampler.save_pretrained(folder / "scheduler")
    if vae is not None:
        vae.to(dtype).save_pretrained(folder / "vae")
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    config.keep_beside(folder)


def export(config: FaceDecoderTraining, checkpoint: str, folder: str) -> None:
    """Writes the decoder of a checkpoint as the end of the training would."""
    accelerator = accelerator_of(config)
    pairs = load_training_pairs(accelerator, config)
    vae = load_vae(config.vae, accelerator.device)
    decoder = build_decoder(config, pairs, vae)
    sampler = build_sampler(config.scheduler, config.sampler, config.sampler_config)
    decoder, average = load_averaged(accelerator, config, decoder, checkpoint)
    finish(config, decoder, average, sampler, vae, Path(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    run_command(arguments, FaceDecoderTraining, train, export)


if __name__ == "__main__":
    main()
