"""From a face embedding to a face: the paper's decoder, and the diffusion decoder's two ends.

Letters: B rows of a batch, D size of the face embedding, S side of a face in pixels, p side of a
patch of pixels.
"""

import cmath
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.utils import BaseOutput
from torch import nn

from .spline_warp import warp

SMALLEST_TEXTURE = 14  # pixels a side, before the transposed convolutions; each doubles it
NUM_LANDMARKS = 68  # of iBUG 300-W


class FaceEmbeddingProjection(ModelMixin, ConfigMixin):
    """Turns a centred face embedding into tokens for cross-attention.

    Args:
        face_embedding_size (`int`): D.
        num_tokens (`int`): how many tokens an embedding becomes.
        cross_attention_dim (`int`): the UNet's.
        hidden_size (`int`): width of the MLP.
        face_recogniser (`str`): whose embeddings these are; must be the voice encoder's teacher.
        embedding_scale (`float`): by what an embedding is multiplied first, so that its values have
            a standard deviation near 1; 128 values of norm 0.5 ask for 22.
    """

    @register_to_config
    def __init__(
        self,
        face_embedding_size: int = 128,
        num_tokens: int = 4,
        cross_attention_dim: int = 128,
        hidden_size: int = 256,
        face_recogniser: str = "dlib",
        embedding_scale: float = 22.0,
    ):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(face_embedding_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, num_tokens * cross_attention_dim),
        )
        self.norm = nn.LayerNorm(cross_attention_dim)
        # What stands in for "no face in particular" in classifier-free guidance.
        self.null = nn.Parameter(torch.randn(num_tokens, cross_attention_dim) * 0.02)

    def forward(
        self, face_embeddings: torch.Tensor, is_null: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Projects embeddings to tokens.

        Args:
            face_embeddings (`torch.Tensor` `(B, D)`): centred.
            is_null (`torch.Tensor` `(B,)` of bool, *optional*): rows that become the unconditional
                tokens instead.

        Returns:
            `torch.Tensor` `(B, num_tokens, cross_attention_dim)`.
        """
        tokens = self.layers(face_embeddings * self.config.embedding_scale)
        tokens = self.norm(tokens.unflatten(-1, self.null.shape))
        if is_null is not None:
            tokens = torch.where(is_null[:, None, None], self.null, tokens)
        return tokens

    def unconditional(self, batch_size: int) -> torch.Tensor:
        """The tokens of no face in particular, `(batch_size, num_tokens, cross_attention_dim)`."""
        return self.null.expand(batch_size, -1, -1)


def patch_size_of(in_channels: int) -> int:
    """Side p of the pixel patches that a UNet with `in_channels = 3 p^2` sees.

    Raises:
        ValueError: no such p.
    """
    p = round((in_channels / 3) ** 0.5)
    if 3 * p * p != in_channels:
        raise ValueError(f"expected in_channels = 3 p^2 (3, 12, 27, ...), got {in_channels}.")
    return p


def faces_to_latents(faces: torch.Tensor, p: int) -> torch.Tensor:
    """Folds patches of pixels into channels: `(B, 3, S, S)` to `(B, 3 p^2, S / p, S / p)`."""
    return nn.functional.pixel_unshuffle(faces, p)


def latents_to_faces(latents: torch.Tensor, p: int) -> torch.Tensor:
    """Inverse of `faces_to_latents`: `(B, 3 p^2, S / p, S / p)` to `(B, 3, S, S)`."""
    return nn.functional.pixel_shuffle(latents, p)


def decode_latents(latents: torch.Tensor, vae: nn.Module | None = None) -> torch.Tensor:
    """Faces of what a UNet has denoised: unfolded from patches, or decoded by a VAE.

    Args:
        latents (`torch.Tensor` `(B, channels, height, width)`): as the UNet sees them.
        vae (`AutoencoderKL`, *optional*): whose latents these are, scaled and shifted as its
            configuration says.

    Returns:
        `torch.Tensor` `(B, 3, S, S)`: from about -1 to 1.
    """
    if vae is None:
        return latents_to_faces(latents, patch_size_of(latents.shape[1]))
    latents = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    return vae.decode(latents.to(vae.dtype)).sample.float()


def guidance_embedding(guidance_scales: torch.Tensor, size: int) -> torch.Tensor:
    """What a UNet with `time_cond_proj_dim` is told of the guidance that it shall imitate.

    A sinusoidal embedding of the scale minus 1, times 1000, as in diffusers' latent consistency
    pipelines (Meng et al., arXiv 2210.03142, section 3.1).

    Args:
        guidance_scales (`torch.Tensor` `(B,)`): 1 is no guidance.
        size (`int`): the UNet's `time_cond_proj_dim`.

    Returns:
        `torch.Tensor` `(B, size)`.
    """
    return get_timestep_embedding(guidance_scales - 1, size, downscale_freq_shift=1, scale=1000)


def set_timesteps(scheduler, steps: int, device: torch.device | str | None = None) -> None:
    """Prepares a diffusers scheduler for a number of steps, none of which is wasted.

    Left to itself, `FlowMatchEulerDiscreteScheduler` takes its last step from a thousandth of noise
    to none, which changes nothing.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist(), device=device)
    else:
        scheduler.set_timesteps(steps, device=device)


@dataclass
class NormalizedFaceDecoderOutput(BaseOutput):
    """What `NormalizedFaceDecoder` returns.

    Args:
        faces (`torch.Tensor` `(B, 3, S, S)`): from 0 to 1.
        textures (`torch.Tensor` `(B, 3, S, S)`): the same before the warp, in the mean shape.
        landmarks (`torch.Tensor` `(B, 68, 2)`): pixels (x, y) of the faces.
    """

    faces: torch.Tensor
    textures: torch.Tensor
    landmarks: torch.Tensor


class NormalizedFaceDecoder(ModelMixin, ConfigMixin):
    """The paper's decoder: a face embedding to a frontal, neutral face, in one pass.

    A first layer serves two branches. One moves the mean face's landmarks, the other paints a
    texture in the mean face's shape; a thin-plate spline warps it to the landmarks (Cole et al.,
    "Synthesizing Normalized Faces from Facial Identity Features", CVPR 2017, section 4; Oh et al.,
    CVPR 2019, section 3). The defaults are theirs, but for a first layer that fits any embedding.

    Args:
        face_embedding_size (`int`): D.
        hidden_size (`int`): of the first layer; its output is what the voice encoder's feature loss
            compares.
        landmark_hidden_size (`int`): of the landmarks' branch.
        texture_channels (`list[int]`): at 14x14 and after each transposed convolution; five make
            faces of 224 pixels.
        texture_rank (`int`, *optional*): the texture's dense layer, 98 % of all weights, is the
            product of two of this rank; not factorised if None.
        texture_share (`float`): above 0, at most 1; of the texture's side, what the picture takes.
            Below 1 the texture reaches beyond it, for the warp to bring in below a short chin.
        face_recogniser (`str`): whose embeddings these are; must be the voice encoder's teacher.
        embedding_scale (`float`): by what an embedding is multiplied first, so that its values have
            a standard deviation near 1.

    Example:
        ```python
        >>> import torch
        >>> from modeling_speech2face import NormalizedFaceDecoder
        >>> decoder = NormalizedFaceDecoder(texture_channels=[16, 8, 8], texture_rank=4)
        >>> decoder(torch.zeros(2, 128)).faces.shape
        torch.Size([2, 3, 56, 56])

        ```
    """

    @register_to_config
    def __init__(
        self,
        face_embedding_size: int = 128,
        hidden_size: int = 1000,
        landmark_hidden_size: int = 256,
        texture_channels: Sequence[int] = (256, 128, 64, 32, 32),
        texture_rank: int | None = None,
        texture_share: float = 1.0,
        face_recogniser: str = "dlib",
        embedding_scale: float = 22.0,
    ):
        super().__init__()
        self.first_layer = nn.Sequential(nn.Linear(face_embedding_size, hidden_size), nn.ReLU())
        # The mean shape, shares of the face's side; training sets it. Until then it is a spiral: a
        # spline needs places that differ.
        spiral = [cmath.rect(0.05 + 0.005 * k, 2.4 * k) for k in range(NUM_LANDMARKS)]
        spiral = torch.tensor([(0.5 + z.real, 0.5 + z.imag) for z in spiral])
        self.register_buffer("mean_landmarks", spiral)
        self.landmark_branch = nn.Sequential(
            nn.Linear(hidden_size, landmark_hidden_size),
            nn.ReLU(),
            nn.Linear(landmark_hidden_size, 2 * NUM_LANDMARKS),
        )
        nn.init.zeros_(self.landmark_branch[-1].weight)  # training starts from the mean shape
        nn.init.zeros_(self.landmark_branch[-1].bias)
        area = SMALLEST_TEXTURE**2 * texture_channels[0]
        if texture_rank is None:
            dense = [nn.Linear(hidden_size, area)]
        else:
            dense = [nn.Linear(hidden_size, texture_rank), nn.Linear(texture_rank, area)]
        layers = [*dense, nn.Unflatten(1, (-1, SMALLEST_TEXTURE, SMALLEST_TEXTURE)), nn.ReLU()]
        for narrow, wide in zip(texture_channels[:-1], texture_channels[1:], strict=True):
            layers += [
                nn.ConvTranspose2d(narrow, wide, 5, stride=2, padding=2, output_padding=1),
                nn.ReLU(),
            ]
        self.texture_branch = nn.Sequential(*layers, nn.Conv2d(texture_channels[-1], 3, 1))

    @property
    def size(self) -> int:
        """S, side of the faces in pixels."""
        return SMALLEST_TEXTURE * 2 ** (len(self.config.texture_channels) - 1)

    @property
    def mean_shape(self) -> torch.Tensor:
        """The shape around which faces are decoded, `(68, 2)` pixels (x, y) of the faces."""
        return self.mean_landmarks.float() * self.size

    @property
    def texture_shape(self) -> torch.Tensor:
        """The shape in which textures are painted, `(68, 2)` pixels (x, y) of the textures."""
        return (0.5 + self.config.texture_share * (self.mean_landmarks.float() - 0.5)) * self.size

    def set_mean_landmarks(self, landmarks: torch.Tensor) -> None:
        """Sets the shape around which faces are decoded, `(68, 2)` pixels (x, y) of the faces."""
        self.mean_landmarks.copy_(landmarks / self.size)

    def features(self, face_embeddings: torch.Tensor) -> torch.Tensor:
        """The first layer's output `(B, hidden_size)` of centred embeddings `(B, D)`.

        It is `f_dec` of the paper's first loss (Oh et al., CVPR 2019, equation 1).
        """
        return self.first_layer(face_embeddings * self.config.embedding_scale)

    def branches(self, face_embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a warp makes faces of.

        Args:
            face_embeddings (`torch.Tensor` `(B, D)`): centred.

        Returns:
            Textures `(B, 3, S, S)` in the mean shape, 0 to 1, and landmarks `(B, 68, 2)`, pixels.
        """
        features = self.features(face_embeddings)  # (B, hidden_size)
        moves = self.landmark_branch(features).unflatten(-1, (NUM_LANDMARKS, 2)).float()
        landmarks = self.mean_shape + moves * self.size  # (B, 68, 2)
        return self.texture_branch(features).sigmoid(), landmarks

    def forward(self, face_embeddings: torch.Tensor) -> NormalizedFaceDecoderOutput:
        """Decodes embeddings.

        Args:
            face_embeddings (`torch.Tensor` `(B, D)`): centred.

        Returns:
            `NormalizedFaceDecoderOutput`.
        """
        textures, landmarks = self.branches(face_embeddings)
        return NormalizedFaceDecoderOutput(
            faces=warp(textures, self.texture_shape, landmarks),
            textures=textures,
            landmarks=landmarks,
        )
