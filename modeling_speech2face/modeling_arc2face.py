"""Somebody else's decoder: Arc2Face, which draws a face from an ArcFace embedding.

Arc2Face (Paraperas Papantoniou et al., "Arc2Face: A Foundation Model for ID-Consistent Human
Faces", ECCV 2024, https://arxiv.org/abs/2403.11641) is a Stable Diffusion 1.5 whose UNet and text
encoder were trained on: one word of a fixed prompt is replaced by the embedding of a face.

Letters: B rows of a batch, D size of the face embedding, T tokens of a prompt, H width of the text
encoder.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ConfigMixin,
    DPMSolverMultistepScheduler,
    ModelMixin,
    UNet2DConditionModel,
)
from diffusers.configuration_utils import register_to_config
from safetensors import SafetensorError
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .modeling_speech2face import Speech2FaceModel

RECOGNISER = "arcface-arc2face"  # what data sets and voice encoders call Arc2Face's ArcFace
PROMPT = "photo of a id person"
FACE_WORD = "id"  # whose token the embedding replaces


class Arc2FaceProjection(ModelMixin, ConfigMixin):
    """Turns a centred ArcFace embedding into the prompt that Arc2Face's UNet was trained with.

    The recogniser's mean is added again, the sum is brought to unit length, padded with zeros to H
    and put in the place of one token's embedding; the rest is CLIP's text encoder.

    Args:
        text_config (`dict`): arguments of the text encoder's `CLIPTextConfig`.
        prompt_ids (`list[int]` of length T): the prompt's tokens, padded.
        empty_prompt_ids (`list[int]` of length T): those of no words, for guidance.
        face_position (`int`): which of the prompt's tokens the face replaces.
        face_embedding_size (`int`): D, at most H.
        face_recogniser (`str`): whose embeddings these are; must be the voice encoder's teacher.

    Example:
        ```python
        >>> import torch
        >>> from modeling_speech2face import Arc2FaceProjection
        >>> text_config = {"hidden_size": 768, "intermediate_size": 64, "num_hidden_layers": 1,
        ...                "max_position_embeddings": 4, "vocab_size": 10}
        >>> projection = Arc2FaceProjection(text_config, [0, 5, 9, 9], [0, 9, 9, 9], 1)
        >>> projection(torch.randn(2, 512)).shape
        torch.Size([2, 4, 768])

        ```
    """

    @register_to_config
    def __init__(
        self,
        text_config: dict,
        prompt_ids: list[int],
        empty_prompt_ids: list[int],
        face_position: int,
        face_embedding_size: int = 512,
        face_recogniser: str = RECOGNISER,
    ):
        super().__init__()
        self.text_encoder = CLIPTextModel(CLIPTextConfig(**text_config))
        self.register_buffer("face_embedding_mean", torch.zeros(face_embedding_size))

    def forward(
        self, face_embeddings: torch.Tensor, is_null: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Projects embeddings to tokens.

        Args:
            face_embeddings (`torch.Tensor` `(B, D)`): centred.
            is_null (`torch.Tensor` `(B,)` of bool, *optional*): rows that become the unconditional
                tokens instead.

        Returns:
            `torch.Tensor` `(B, T, H)`.
        """
        faces = face_embeddings.float() + self.face_embedding_mean.float()
        width = self.text_encoder.config.hidden_size
        faces = F.pad(F.normalize(faces, dim=-1), (0, width - faces.shape[-1]))  # (B, H)

        def put_faces(module, inputs, embedded):  # (B, T, H)
            embedded = embedded.clone()
            embedded[:, self.config.face_position] = faces.to(embedded.dtype)
            return embedded

        # The text encoder takes no embedded tokens; where it embeds its own, the faces are put in.
        hook = self.text_encoder.get_input_embeddings().register_forward_hook(put_faces)
        try:
            tokens = self._encode(self.config.prompt_ids, len(faces))
        finally:
            hook.remove()
        if is_null is not None:
            tokens = torch.where(is_null[:, None, None], self.unconditional(len(faces)), tokens)
        return tokens

    def unconditional(self, batch_size: int) -> torch.Tensor:
        """The empty prompt's tokens, `(batch_size, T, H)`."""
        return self._encode(self.config.empty_prompt_ids, 1).expand(batch_size, -1, -1)

    def _encode(self, ids: list[int], batch_size: int) -> torch.Tensor:
        """The same prompt `batch_size` times, encoded, (batch_size, T, H)."""
        ids = torch.tensor([ids] * batch_size, device=self.device)
        return self.text_encoder(input_ids=ids).last_hidden_state


def arc2face_components(
    voice_encoder: Speech2FaceModel,
    pretrained_model_name_or_path: str | Path,
    base: str | Path,
    torch_dtype: torch.dtype,
    revision: str | None = None,
    **options,
) -> dict:
    """Everything behind the voice encoder; see `Speech2FacePipeline.from_arc2face`."""
    name, config = str(pretrained_model_name_or_path), voice_encoder.config
    if config.face_recogniser != RECOGNISER:
        raise ValueError(
            f"Arc2Face draws embeddings of {RECOGNISER!r}, but this voice encoder predicts those "
            f"of {config.face_recogniser!r}: train one on a data set of that face recogniser."
        )
    encoder = _part(CLIPTextModel, name, "encoder", dtype=torch_dtype, revision=revision, **options)
    weights = {"torch_dtype": torch_dtype, **options}
    unet = _part(UNet2DConditionModel, name, "arc2face", revision=revision, **weights)
    vae = _part(AutoencoderKL, str(base), "vae", **weights)
    options.pop("use_safetensors", None)  # neither of these has weights
    tokenizer = _part(CLIPTokenizer, str(base), "tokenizer", **options)
    scheduler = _part(DPMSolverMultistepScheduler, str(base), "scheduler", **options)

    face_word = tokenizer.encode(FACE_WORD, add_special_tokens=False)
    if len(face_word) != 1:  # nor has a folder without tokenizer, from which an empty one is read
        raise ValueError(
            f"the tokenizer of {base} has no single token for {FACE_WORD!r}, as CLIP's has: name a "
            "Stable Diffusion 1.5 as base."
        )
    prompt_ids, empty_prompt_ids = (
        tokenizer(
            text, padding="max_length", max_length=encoder.config.max_position_embeddings
        ).input_ids
        for text in (PROMPT, "")
    )
    projection = Arc2FaceProjection(
        text_config=encoder.config.to_diff_dict(),
        prompt_ids=prompt_ids,
        empty_prompt_ids=empty_prompt_ids,
        face_position=prompt_ids.index(face_word[0]),
        face_embedding_size=config.face_embedding_size,
    )
    projection.text_encoder = encoder  # with its weights, in its precision
    projection.face_embedding_mean.copy_(voice_encoder.face_embedding_mean)
    return {
        "embedding_projection": projection.eval(),
        "unet": unet,
        "scheduler": scheduler,
        "vae": vae,
    }


def _part(part_class, repository: str, subfolder: str, **options):
    """A part of a repository or folder, which forgets the folder's path."""
    try:
        part = part_class.from_pretrained(repository, subfolder=subfolder, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"no {part_class.__name__} can be loaded from {subfolder!r} of {repository}: name a "
            "folder laid out as Arc2Face or its base is, or a Hub repository that can be reached."
        ) from error
    if Path(repository).is_dir() and isinstance(part, ConfigMixin):
        part.register_to_config(_name_or_path="")  # a path of this machine is nobody's business
    return part
