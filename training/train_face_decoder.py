"""Trains the diffusion decoder: `accelerate launch -m training.train_face_decoder CONFIG.yaml`.

Letters: B batch, D size of the face embedding, S side of the image in pixels, p side of a patch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.checkpoints import (
    Progress,
    StopRequest,
    average_of,
    averaged,
    log_sheet,
    parameter_groups,
    resume,
    run_command,
    save_checkpoint,
    seed_of_step,
    set_learning_rate,
    steps_to_go,
)
from training.configuration import FaceDecoderTraining
from training.data import Pairs, centred, load_pairs, rows_of_batch

SHEET_FACES = 8  # columns of a sample sheet


class FaceDecoder(nn.Module):
    """Projection and UNet as one module: noisy latents and an embedding in, the target out.

    Args:
        unet: a `UNet2DConditionModel`.
        projection: a `FaceEmbeddingProjection`.
    """

    def __init__(self, unet: nn.Module, projection: nn.Module):
        super().__init__()
        self.unet = unet
        self.projection = projection

    def forward(
        self, noisy: Tensor, timesteps: Tensor, embeddings: Tensor, is_null: Tensor
    ) -> Tensor:
        """(B, 3pp, S/p, S/p), (B,), centred (B, D), (B,) bool -> (B, 3pp, S/p, S/p)."""
        tokens = self.projection(embeddings, is_null)
        return self.unet(noisy, timesteps, encoder_hidden_states=tokens, return_dict=False)[0]


def train(config: FaceDecoderTraining, stop_at_step: int | None = None) -> Path | None:
    """Trains, continuing from the latest checkpoint in `config.output` if there is one.

    Args:
        config: of the run.
        stop_at_step: stop there with a checkpoint, as an interruption would.

    Returns:
        The folder `final/` of the finished decoder, or None if the run was stopped before its end.
    """
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from tqdm import tqdm

    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation,
        log_with="tensorboard",
        project_dir=config.output,
    )
    # 1. Data, model, averaged weights, optimiser
    with accelerator.main_process_first():
        pairs = load_pairs(config.dataset, "train", config.cache, config.pixels)
        validation = load_pairs(config.dataset, "validation", config.cache, config.pixels)
    decoder = build_decoder(config, pairs)
    noise_scheduler = DDPMScheduler(**config.scheduler)
    optimizer = torch.optim.AdamW(parameter_groups(decoder, config.weight_decay), betas=(0.9, 0.99))
    decoder, optimizer = accelerator.prepare(decoder, optimizer)
    average, progress = average_of(config, decoder), Progress()
    accelerator.register_for_checkpointing(average, progress)
    accelerator.init_trackers("tensorboard")
    resume(accelerator, config)
    average.to(accelerator.device)
    batches = FaceBatches(config, pairs, accelerator.process_index, accelerator.num_processes)

    # 2. Steps
    bar = tqdm(total=config.steps, initial=progress.step, disable=not accelerator.is_main_process)
    recent: list[float] = []
    with StopRequest() as stop:
        for step in steps_to_go(progress, config, stop_at_step):
            torch.manual_seed(seed_of_step(config.seed, step, accelerator.process_index))
            rate = set_learning_rate(optimizer, config, step)
            decoder.train()
            for part in range(config.gradient_accumulation):
                batch = batches(step * config.gradient_accumulation + part, accelerator.device)
                with accelerator.accumulate(decoder):
                    loss = diffusion_loss(config, decoder, noise_scheduler, batch, step)
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(decoder.parameters(), config.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
            average.step(decoder.parameters())
            recent.append(loss.item())
            progress.step = step + 1
            bar.update()

            # 3. What a person watches, and what a killed run needs
            if progress.step % config.log_every == 0:
                bar.set_postfix(loss=f"{np.mean(recent):.4f}")
                accelerator.log({"loss": np.mean(recent), "learning_rate": rate}, progress.step)
                recent.clear()
            if progress.step % config.sample_every == 0 and accelerator.is_main_process:
                sheet = sample_sheet(config, decoder, average, pairs, validation)
                log_sheet(accelerator, config, sheet, progress.step)
            last = stop.asked or progress.step in (config.steps, stop_at_step)
            if progress.step % config.checkpoint_every == 0 or last:
                save_checkpoint(accelerator, config, progress.step)
            if stop.asked:
                break

    # 4. The finished decoder
    accelerator.end_training()
    if progress.step < config.steps:
        print(f"stopped at step {progress.step}: run the same command to continue")
        return None
    folder = Path(config.output) / "final"
    if accelerator.is_main_process:
        finish(config, accelerator.unwrap_model(decoder), average, folder)
    return folder


def build_decoder(config: FaceDecoderTraining, pairs: Pairs) -> FaceDecoder:
    """The decoder to train, seeded; its embeddings are brought to a standard deviation of 1."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    from modeling_speech2face import FaceEmbeddingProjection, patch_size_of

    torch.manual_seed(config.seed)
    unet = UNet2DConditionModel(**config.unet)
    if unet.config.sample_size * patch_size_of(unet.config.in_channels) != config.pixels:
        raise ValueError(
            f"unet.sample_size {unet.config.sample_size} with {unet.config.in_channels} channels "
            f"does not make {config.pixels} pixels: set sample_size = pixels / sqrt(channels / 3)"
        )
    if not torch.cuda.is_available():
        # On a CPU the backward pass of the fused attention costs more than all other matrices.
        unet.set_attn_processor(AttnProcessor())
    projection = FaceEmbeddingProjection(
        **dict(config.projection)
        | {
            "face_recogniser": pairs.teacher,
            "face_embedding_size": pairs.embeddings.shape[1],
            "cross_attention_dim": unet.config.cross_attention_dim,
            "embedding_scale": float(1 / centred(pairs, pairs).std()),
        }
    )
    return FaceDecoder(unet.to(memory_format=torch.channels_last), projection)


class FaceBatches:
    """Training batches as a pure function of (seed, number of the batch)."""

    def __init__(
        self, config: FaceDecoderTraining, pairs: Pairs, process: int = 0, processes: int = 1
    ):
        self.config, self.pairs = config, pairs
        self.process, self.processes = process, processes
        self.centred = centred(pairs, pairs)
        self.spread = float(self.centred.std())

    def __call__(self, number: int, device: torch.device) -> dict[str, Tensor]:
        """Batch `number`: faces (B, 3, S, S) from -1 to 1, embeddings (B, D), is_null (B,)."""
        config, size = self.config, self.config.batch_size
        number = number * self.processes + self.process
        rows = rows_of_batch(config.seed, number, size, len(self.pairs))
        rng = np.random.default_rng([config.seed, 3, number])
        faces = self.pairs.faces[np.sort(rows)].astype(np.float32) / 127.5 - 1
        mirrored = rng.random(size) < config.flip
        faces[mirrored] = faces[mirrored, :, :, ::-1]
        deviation = self.spread * rng.uniform(0, config.embedding_noise, (size, 1))
        embeddings = self.centred[np.sort(rows)]
        embeddings = embeddings + deviation * rng.standard_normal(embeddings.shape)
        return {
            "faces": torch.from_numpy(faces).to(device),
            "embeddings": torch.from_numpy(embeddings.astype(np.float32)).to(device),
            "is_null": torch.from_numpy(rng.random(size) < config.condition_dropout).to(device),
        }


def diffusion_loss(
    config: FaceDecoderTraining,
    decoder: nn.Module,
    scheduler: Any,
    batch: dict[str, Tensor],
    step: int = 0,
) -> Tensor:
    """The denoising loss with min-SNR weights (Hang et al., arXiv 2303.09556, equation 4).

    From `config.snr_gamma_steps` on, all timesteps weigh alike.

    Timesteps are stratified over the batch: one in each of B equal parts, which lowers the noise of
    the gradient at no cost (Kingma et al., arXiv 2107.00630, appendix I.1).
    """
    from modeling_speech2face import faces_to_latents, patch_size_of

    faces = batch["faces"]  # (B, 3, S, S)
    count, total = len(faces), scheduler.config.num_train_timesteps
    channels = scheduler_channels(decoder)
    latents = faces_to_latents(faces, patch_size_of(channels))
    latents = latents.contiguous(memory_format=torch.channels_last)
    noise = torch.randn_like(latents)
    strata = (torch.arange(count) + torch.rand(count)) / count  # (B,), 0 to 1
    timesteps = (strata * total).long().clamp(max=total - 1).to(faces.device)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    predicted = decoder(noisy, timesteps, batch["embeddings"], batch["is_null"]).float()
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    else:
        target = noise
    error = F.mse_loss(predicted, target, reduction="none").mean((1, 2, 3))  # (B,)
    if config.snr_gamma_steps is not None and step >= config.snr_gamma_steps:
        return error.mean()
    return (snr_weights(scheduler, timesteps, config.snr_gamma) * error).mean()


def scheduler_channels(decoder: nn.Module) -> int:
    """Channels of the latents that the decoder's UNet sees."""
    return getattr(decoder, "module", decoder).unet.config.in_channels


def snr_weights(scheduler: Any, timesteps: Tensor, gamma: float) -> Tensor:
    """min(SNR, gamma) / (SNR + 1) for v-prediction, min(SNR, gamma) / SNR for noise, (B,)."""
    from diffusers.training_utils import compute_snr

    snr = compute_snr(scheduler, timesteps)  # (B,)
    clipped = snr.clamp(max=gamma)
    if scheduler.config.prediction_type == "v_prediction":
        return clipped / (snr + 1)
    return clipped / snr.clamp(min=1e-8)


def build_sampler(config: FaceDecoderTraining) -> Any:
    """The scheduler that the pipeline samples with, over the noise schedule that was trained."""
    import diffusers

    kind = getattr(diffusers, config.sampler, None)
    if kind is None:
        raise ValueError(
            f"diffusers has no scheduler {config.sampler!r}: see its list of schedulers"
        )
    noise_scheduler = diffusers.DDPMScheduler(**config.scheduler)
    return kind.from_config(noise_scheduler.config, **config.sampler_config)


@torch.no_grad()
def decode(
    decoder: FaceDecoder,
    sampler: Any,
    embeddings: Tensor,
    steps: int,
    guidance_scale: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples faces for centred embeddings.

    Args:
        decoder: trained.
        sampler: a diffusers scheduler.
        embeddings: (B, D), centred.
        steps: of the sampler.
        guidance_scale: 1 is no guidance.
        generator: on the CPU.

    Returns:
        (B, 3, S, S), -1 to 1.
    """
    from modeling_speech2face import latents_to_faces, patch_size_of

    unet, count = decoder.unet, len(embeddings)
    channels, side = unet.config.in_channels, unet.config.sample_size
    sampler.set_timesteps(steps)
    latents = torch.randn((count, channels, side, side), generator=generator)
    latents = latents.to(embeddings.device) * sampler.init_noise_sigma
    guided = guidance_scale != 1
    rows = torch.cat([embeddings, embeddings]) if guided else embeddings
    is_null = torch.arange(len(rows), device=rows.device) >= count
    for timestep in sampler.timesteps:
        noisy = sampler.scale_model_input(latents, timestep)
        noisy = torch.cat([noisy, noisy]) if guided else noisy
        predicted = decoder(noisy, timestep.expand(len(rows)), rows, is_null).float()
        if guided:
            with_face, without = predicted.chunk(2)
            predicted = without + guidance_scale * (with_face - without)
        latents = sampler.step(predicted, timestep, latents, return_dict=False)[0]
    return latents_to_faces(latents, patch_size_of(channels)).clamp(-1, 1)


def sample_sheet(
    config: FaceDecoderTraining, decoder: nn.Module, average: Any, pairs: Pairs, validation: Pairs
) -> np.ndarray:
    """Validation faces, and below each two faces decoded from its embedding, as one picture.

    Args:
        config: of the run.
        decoder: in training; its averaged weights are used and the others put back.
        average: the `EMAModel`.
        pairs: the training split, for its mean.
        validation: the validation split.

    Returns:
        (3 S, faces S, 3) uint8.
    """
    first = np.asarray([rows[0] for rows in validation.pairs_of_speakers()[:SHEET_FACES]])
    device = next(decoder.parameters()).device
    embeddings = torch.from_numpy(centred(validation, pairs)[first]).to(device)
    rows = [torch.from_numpy(np.asarray(validation.faces[first])).float() / 127.5 - 1]
    with averaged(decoder, average):
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            sampler = build_sampler(config)
            faces = decode(
                decoder, sampler, embeddings, config.sample_steps, config.guidance_scale, generator
            )
            rows.append(faces.cpu())
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)  # (3, 3 S, faces S)
    return ((grid + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def finish(config: FaceDecoderTraining, decoder: FaceDecoder, average: Any, folder: Path) -> None:
    """Writes the averaged weights to `folder`: unet/, embedding_projection/, scheduler/."""
    average.copy_to(decoder.parameters())
    dtype = getattr(torch, config.save_dtype)
    decoder.float().to(dtype).to(memory_format=torch.contiguous_format)
    decoder.unet.save_pretrained(folder / "unet")
    decoder.projection.save_pretrained(folder / "embedding_projection")
    build_sampler(config).save_pretrained(folder / "scheduler")
    print(f"{folder}: unet, embedding_projection, scheduler")


def export(config: FaceDecoderTraining, checkpoint: str, folder: str) -> None:
    """Writes the decoder of a checkpoint as the end of the training would."""
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="no")
    pairs = load_pairs(config.dataset, "train", config.cache, config.pixels)
    decoder = build_decoder(config, pairs)
    optimizer = torch.optim.AdamW(parameter_groups(decoder, config.weight_decay), betas=(0.9, 0.99))
    decoder, optimizer = accelerator.prepare(decoder, optimizer)
    average = average_of(config, decoder)
    accelerator.register_for_checkpointing(average, Progress())
    resume(accelerator, config, checkpoint)
    finish(config, accelerator.unwrap_model(decoder), average, Path(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    run_command(arguments, FaceDecoderTraining, train, export)


if __name__ == "__main__":
    main()
