"""Teaches a decoder to do in one pass what guidance does in two, so that a step costs half.

`accelerate launch -m training.distill_face_decoder CONFIG.yaml`

The first stage of Meng et al., "On Distillation of Guided Diffusion Models", arXiv 2210.03142: the
student is told the strength of guidance, and learns to predict what the finished decoder's two
passes predict together.

Letters: B batch, C channels, h height and width of what the UNet sees, D size of the embedding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.checkpoints import accelerator_of, load_averaged, run_command
from training.configuration import FaceDecoderDistillation
from training.data import check_same_teacher
from training.diffusion import FaceDecoder, NoiseSchedule, with_guidance
from training.latents import load_vae
from training.train_face_decoder import finish, fit, load_training_pairs, ready_to_learn


def train(config: FaceDecoderDistillation, stop_at_step: int | None = None) -> Path | None:
    """Distils, continuing from the latest checkpoint in `config.output` if there is one.

    Args:
        config: of the run.
        stop_at_step: stop there with a checkpoint, as an interruption would.

    Returns:
        The folder `final/` of the student, or None if the run was stopped before its end.
    """
    accelerator = accelerator_of(config)
    pairs = load_training_pairs(accelerator, config)
    guided, sampler, vae = load_decoder(config, accelerator.device)
    check_same_teacher(decoder=guided.projection.config.face_recogniser, data_set=pairs.teacher)
    student = build_student(config, guided)
    loss_of = DistillationLoss(config, guided, NoiseSchedule(sampler.config))
    return fit(accelerator, config, student, loss_of, pairs, sampler, vae, stop_at_step)


def load_decoder(
    config: FaceDecoderDistillation, device: torch.device
) -> tuple[FaceDecoder, Any, nn.Module | None]:
    """The finished decoder, frozen, its sampler, and its VAE if it has one.

    Raises:
        FileNotFoundError: if there is no such decoder.
        ValueError: if it is distilled already.
    """
    import diffusers

    from modeling_speech2face import FaceEmbeddingProjection

    folder = Path(config.decoder)
    if not (folder / "unet" / "config.json").is_file():
        raise FileNotFoundError(f"no decoder in {folder}: train it first, or export a checkpoint")
    read = {"torch_dtype": torch.float32}
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", **read)
    if unet.config.time_cond_proj_dim is not None:
        raise ValueError(f"{folder} is distilled already: name the decoder that it was made from")
    projection = FaceEmbeddingProjection.from_pretrained(folder / "embedding_projection", **read)
    decoder = FaceDecoder(ready_to_learn(unet), projection).to(device).eval().requires_grad_(False)
    scheduler = diffusers.DDPMScheduler.load_config(folder / "scheduler")
    kind = getattr(diffusers, scheduler["_class_name"])
    vae = load_vae(str(folder / "vae"), device) if (folder / "vae").is_dir() else None
    return decoder, kind.from_config(scheduler), vae


def build_student(config: FaceDecoderDistillation, guided: FaceDecoder) -> FaceDecoder:
    """A copy of the decoder whose UNet is also told the guidance scale, and ignores it at first."""
    from diffusers import UNet2DConditionModel

    from modeling_speech2face import FaceEmbeddingProjection

    told = {"time_cond_proj_dim": config.guidance_embedding_size}
    unet = UNet2DConditionModel.from_config(guided.unet.config, **told)
    left_out = unet.load_state_dict(guided.unet.state_dict(), strict=False)
    assert left_out == (["time_embedding.cond_proj.weight"], [])
    nn.init.zeros_(unet.time_embedding.cond_proj.weight)
    projection = FaceEmbeddingProjection.from_config(guided.projection.config)
    projection.load_state_dict(guided.projection.state_dict())
    return FaceDecoder(ready_to_learn(unet), projection)


class DistillationLoss:
    """Squared difference of the student's one pass and the guided decoder's two.

    Args:
        config: of the run.
        guided: the finished decoder, frozen.
        schedule: of the noise that it has learnt.
    """

    def __init__(
        self, config: FaceDecoderDistillation, guided: FaceDecoder, schedule: NoiseSchedule
    ):
        self.config, self.guided, self.schedule = config, guided, schedule

    def __call__(
        self, student: nn.Module, batch: dict[str, Tensor], step: int = 0
    ) -> dict[str, Tensor]:
        """ "loss", the mean over latents at noises and guidance scales drawn for each row.

        Source: arXiv 2210.03142, equation 5, in the space of what is predicted: of v and of a flow,
        that weighs the clean face by its SNR + 1, as much as the paper's truncated SNR does.
        """
        latents, embeddings = batch["latents"], batch["embeddings"]
        latents = latents.contiguous(memory_format=torch.channels_last)  # (B, C, h, h)
        timesteps = self.schedule.timesteps(len(latents)).to(latents.device)
        noisy = self.schedule.noised(latents, torch.randn_like(latents), timesteps)
        low, high = self.config.guidance_scales
        scales = (low + (high - low) * torch.rand(len(latents))).to(latents.device)  # (B,)
        is_null = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
        with torch.no_grad():
            with_face = self.guided(noisy, timesteps, embeddings, is_null)
            without = self.guided(noisy, timesteps, embeddings, ~is_null)
        wanted = with_guidance(with_face, without, scales[:, None, None, None])
        predicted = student(noisy, timesteps, embeddings, is_null, scales).float()
        return {"loss": F.mse_loss(predicted, wanted)}


def export(config: FaceDecoderDistillation, checkpoint: str, folder: str) -> None:
    """Writes the student of a checkpoint as the end of the training would."""
    accelerator = accelerator_of(config)
    guided, sampler, vae = load_decoder(config, accelerator.device)
    student = build_student(config, guided)
    student, average = load_averaged(accelerator, config, student, checkpoint)
    finish(config, student, average, sampler, vae, Path(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    run_command(arguments, FaceDecoderDistillation, train, export)


if __name__ == "__main__":
    main()
