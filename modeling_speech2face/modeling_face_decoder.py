"""From a face embedding to the tokens that condition the decoder, and from pixels to latents.

Letters: B rows of a batch, D size of the face embedding, p side of a patch of pixels.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


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
