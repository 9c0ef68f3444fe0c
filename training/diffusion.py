"""What each training of a diffusion decoder rests on: the decoder, and how noise comes and goes.

Letters: B batch, D size of the face embedding, C channels, h height and width of the latents, S
side of a face in pixels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

FLOW = "flow"  # the prediction type of rectified flow, in a configuration


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
        self,
        noisy: Tensor,
        timesteps: Tensor,
        embeddings: Tensor,
        is_null: Tensor,
        guidance_scales: Tensor | None = None,
    ) -> Tensor:
        """(B, C, h, h), (B,), centred (B, D), (B,) bool, (B,) -> (B, C, h, h).

        Guidance scales are for a UNet that was made to be told them (`time_cond_proj_dim`).
        """
        from modeling_speech2face import guidance_embedding

        told = None
        if guidance_scales is not None:
            told = guidance_embedding(guidance_scales, self.unet.config.time_cond_proj_dim)
        tokens = self.projection(embeddings, is_null)
        return self.unet(
            noisy, timesteps, encoder_hidden_states=tokens, timestep_cond=told, return_dict=False
        )[0]


class NoiseSchedule:
    """How faces become noise: noisy = alpha clean + sigma noise, and what is predicted of it.

    With `prediction_type: flow`, alpha = 1 - sigma, the timestep is sigma in thousandths, and the
    velocity noise - clean is predicted (rectified flow: Liu et al., arXiv 2209.03003; its timesteps
    are drawn as in Esser et al., arXiv 2403.03206, section 3.1). Otherwise alpha and sigma are a
    `DDPMScheduler`'s, and v = alpha noise - sigma clean is predicted (Salimans and Ho, arXiv
    2202.00512, section 4), or the noise.

    Args:
        config: arguments of `DDPMScheduler`; of a flow only `num_train_timesteps` is known. A saved
            sampler's configuration does as well.

    Raises:
        ValueError: for another prediction type.
    """

    def __init__(self, config: Mapping[str, Any]):
        from diffusers import DDPMScheduler

        kind = config.get("prediction_type", "epsilon")
        if config.get("_class_name") == "FlowMatchEulerDiscreteScheduler":
            kind = FLOW
        self.prediction_type = FLOW if kind == "flow_prediction" else kind
        if self.prediction_type not in (FLOW, "v_prediction", "epsilon"):
            raise ValueError(f"prediction_type must be flow, v_prediction or epsilon, got {kind!r}")
        self.num_train_timesteps = config.get("num_train_timesteps", 1000)
        if self.prediction_type != FLOW:
            self.alphas_cumprod = DDPMScheduler.from_config(config).alphas_cumprod

    def timesteps(self, count: int) -> Tensor:
        """Timesteps (count,) to learn at, on the CPU: integers, or of a flow, real numbers.

        They are stratified: one in each of `count` equal parts of their distribution, which lowers
        the noise of the gradient at no cost (Kingma et al., arXiv 2107.00630, appendix I.1), and
        shuffled: the rows of a batch may be sorted, and a face that always stood at one place would
        always be learnt at one noise. The distribution is uniform; of a flow it is logit-normal:
        most are learnt where it is hard, halfway.
        """
        share = (torch.randperm(count) + torch.rand(count)) / count  # (count,), 0 to 1
        if self.prediction_type == FLOW:
            return self.num_train_timesteps * torch.special.ndtri(share).sigmoid()
        return (share * self.num_train_timesteps).long().clamp(max=self.num_train_timesteps - 1)

    def levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of timesteps (B,), each (B, 1, 1, 1)."""
        timesteps = timesteps[:, None, None, None]
        if self.prediction_type == FLOW:
            sigmas = timesteps / self.num_train_timesteps
            return 1 - sigmas, sigmas
        squared = self.alphas_cumprod.to(timesteps.device)[timesteps]
        return squared.sqrt(), (1 - squared).sqrt()

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents (B, C, h, h)."""
        alphas, sigmas = self.levels(timesteps)
        return alphas * clean + sigmas * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a decoder should predict, (B, C, h, h)."""
        alphas, sigmas = self.levels(timesteps)
        if self.prediction_type == FLOW:
            return noise - clean
        return alphas * noise - sigmas * clean if self.prediction_type == "v_prediction" else noise

    def clean(self, noisy: Tensor, predicted: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latents (B, C, h, h) that a prediction stands for."""
        alphas, sigmas = self.levels(timesteps)
        if self.prediction_type == FLOW:
            return noisy - sigmas * predicted
        if self.prediction_type == "v_prediction":
            return alphas * noisy - sigmas * predicted
        return (noisy - sigmas * predicted) / alphas

    def signal(self, timesteps: Tensor) -> Tensor:
        """Share of the signal in the power of what is seen, SNR / (1 + SNR), (B,) from 0 to 1."""
        alphas, sigmas = (level.flatten() for level in self.levels(timesteps))
        return alphas**2 / (alphas**2 + sigmas**2)

    def weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Min-SNR weights (B,) of the loss (Hang et al., arXiv 2303.09556, equation 4).

        min(SNR, gamma) / (SNR + 1) for v, min(SNR, gamma) / SNR for noise. A flow's are all 1: its
        timesteps are already drawn where they count.
        """
        if self.prediction_type == FLOW:
            return torch.ones_like(timesteps)
        alphas, sigmas = (level.flatten() for level in self.levels(timesteps))
        snr = (alphas / sigmas) ** 2  # (B,)
        in_all = snr + 1 if self.prediction_type == "v_prediction" else snr.clamp(min=1e-8)
        return snr.clamp(max=gamma) / in_all


def build_sampler(
    scheduler: Mapping[str, Any], sampler: str, sampler_config: Mapping[str, Any]
) -> Any:
    """The diffusers scheduler that samples over the noise schedule that was trained.

    Args:
        scheduler: as for `NoiseSchedule`.
        sampler: name of the class. A flow is sampled by `FlowMatchEulerDiscreteScheduler`, or by
            the multistep solvers, which are told that it is one.
        sampler_config: its arguments beside what the noise schedule gives.

    Raises:
        ValueError: if diffusers has no such scheduler, or it cannot sample a flow.
    """
    import diffusers

    kind = getattr(diffusers, sampler, None)
    if kind is None:
        raise ValueError(f"diffusers has no scheduler {sampler!r}: see its list of schedulers")
    noise = NoiseSchedule(scheduler)
    if noise.prediction_type != FLOW:
        known = diffusers.DDPMScheduler.from_config(scheduler).config
        return kind.from_config(known, **sampler_config)
    known = {
        "num_train_timesteps": noise.num_train_timesteps,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
    }
    if kind is diffusers.FlowMatchEulerDiscreteScheduler:
        known = {"num_train_timesteps": noise.num_train_timesteps}
    elif "use_flow_sigmas" not in kind().config:
        raise ValueError(f"{sampler} cannot sample a flow: take FlowMatchEulerDiscreteScheduler")
    return kind(**known | dict(sampler_config))


@torch.no_grad()
def decode(
    decoder: FaceDecoder,
    sampler: Any,
    embeddings: Tensor,
    steps: int,
    guidance_scale: float,
    generator: torch.Generator | None = None,
    vae: nn.Module | None = None,
) -> Tensor:
    """Samples faces for centred embeddings.

    Args:
        decoder: trained; one that is told the guidance scale takes one pass a step, not two.
        sampler: a diffusers scheduler.
        embeddings: (B, D), centred.
        steps: of the sampler.
        guidance_scale: 1 is no guidance.
        generator: on the CPU.
        vae: `AutoencoderKL` whose latents the decoder makes; it makes pixels if None.

    Returns:
        (B, 3, S, S), -1 to 1.
    """
    from modeling_speech2face import decode_latents, set_timesteps

    unet, count = decoder.unet, len(embeddings)
    channels, side = unet.config.in_channels, unet.config.sample_size
    set_timesteps(sampler, steps, embeddings.device)
    latents = torch.randn((count, channels, side, side), generator=generator)
    latents = latents.to(embeddings.device) * getattr(sampler, "init_noise_sigma", 1.0)
    scales = None
    if unet.config.time_cond_proj_dim is not None:
        scales = embeddings.new_full((count,), guidance_scale)
    guided = guidance_scale != 1 and scales is None
    rows = torch.cat([embeddings, embeddings]) if guided else embeddings
    is_null = torch.arange(len(rows), device=rows.device) >= count
    for timestep in sampler.timesteps:
        noisy = torch.cat([latents, latents]) if guided else latents
        if hasattr(sampler, "scale_model_input"):
            noisy = sampler.scale_model_input(noisy, timestep)
        predicted = decoder(noisy, timestep.expand(len(rows)), rows, is_null, scales).float()
        if guided:
            predicted = with_guidance(*predicted.chunk(2), guidance_scale)
        latents = sampler.step(predicted, timestep, latents, return_dict=False)[0]
    return decode_latents(latents, vae).clamp(-1, 1)


def with_guidance(with_face: Tensor, without: Tensor, scales: float | Tensor) -> Tensor:
    """Classifier-free guidance: what a face adds to a prediction, `scales` times as strong.

    Source: Ho and Salimans, arXiv 2207.12598, where the scale is w + 1.
    """
    return without + scales * (with_face - without)
