"""The whole way: a voice in, faces out.

Letters: V voices, n images a voice, N = V n images, D size of a face embedding, S side of an image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import snapshot_download
from PIL import Image

from .audio import load_audio, resample
from .feature_extraction_speech2face import Speech2FaceFeatureExtractor
from .modeling_face_decoder import FaceEmbeddingProjection, latents_to_faces, patch_size_of
from .modeling_speech2face import Speech2FaceModel
from .provenance import describe, read_provenance, with_provenance

HUB_OPTIONS = ("revision", "token", "cache_dir", "force_download", "local_files_only")
DEMO_CHECKPOINT = Path(__file__).parent / "demo_checkpoint"

# A pixel whose standard deviation among the images reaches this (of a range of 1) tells nothing.
UNCERTAIN_DEVIATION = 0.25
# From "differs between the images" to "the same in all": dark violet, blue, green, yellow.
CERTAINTY_COLOURS = ((30, 8, 60), (46, 70, 140), (32, 145, 140), (120, 205, 80), (250, 230, 60))


@dataclass
class Speech2FacePipelineOutput(BaseOutput):
    """What `Speech2FacePipeline` returns; for a list of voices, `images` are in their order.

    Args:
        images (list of N `PIL.Image.Image`, or array `(N, S, S, 3)`, or tensor `(N, 3, S, S)`):
            the faces.
        face_embeddings (`torch.Tensor` `(N, D)`): the centred embeddings that were decoded.
        average_face (`PIL.Image.Image`, or array `(S, S, 3)`, or tensor `(3, S, S)`): the mean of
            a voice's images; a list of V for a list of voices.
        certainty (`PIL.Image.Image` in colour, or array or tensor `(S, S)` from 0 to 1): where a
            voice's images agree: 1 - min(1, s / 0.25), s being a pixel's standard deviation among
            the images, over the three colours and its neighbours. None for a single image; a list
            of V for a list of voices.
    """

    images: list | np.ndarray | torch.Tensor
    face_embeddings: torch.Tensor
    average_face: Image.Image | np.ndarray | torch.Tensor | list
    certainty: Image.Image | np.ndarray | torch.Tensor | list | None


class Speech2FacePipeline(DiffusionPipeline):
    """Imagines faces that a listener could expect behind a voice. They are faces of nobody.

    Args:
        voice_encoder (`Speech2FaceModel`): voice to face embedding.
        feature_extractor (`Speech2FaceFeatureExtractor`): waveform to its input.
        embedding_projection (`FaceEmbeddingProjection`): face embedding to cross-attention tokens.
        unet (`UNet2DConditionModel`): denoises faces, whole or folded into patches, or latents.
        scheduler (`SchedulerMixin`): the step's mathematics.
        vae (`AutoencoderKL`, *optional*): decodes latents, where the UNet works in latent space.
        num_inference_steps (`int`): default number of denoising steps.
        guidance_scale (`float`): default strength of classifier-free guidance; 1 is none.

    Raises:
        ValueError: voice encoder and projection were made with different face recognisers.

    Example:
        ```python
        >>> import torch
        >>> from modeling_speech2face import Speech2FacePipeline
        >>> pipe = Speech2FacePipeline.from_demo()
        >>> generator = torch.Generator().manual_seed(0)
        >>> out = pipe("samples/librispeech-2414.flac", generator=generator)
        >>> len(out.images)
        4

        ```
    """

    _optional_components = ["vae"]

    def __init__(
        self,
        voice_encoder: Speech2FaceModel,
        feature_extractor: Speech2FaceFeatureExtractor,
        embedding_projection: FaceEmbeddingProjection,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        vae: AutoencoderKL | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 2.0,
    ):
        super().__init__()
        _check_teachers(voice_encoder.config, embedding_projection.config)
        self.register_modules(
            voice_encoder=voice_encoder,
            feature_extractor=feature_extractor,
            embedding_projection=embedding_projection,
            unet=unet,
            scheduler=scheduler,
            vae=vae,
        )
        self.register_to_config(
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> "Speech2FacePipeline":
        """Loads a pipeline from a folder or a Hub repository, as any `DiffusionPipeline`.

        Weights that are stored in half precision are loaded in float32 unless `dtype` says
        otherwise: a CPU is slower and coarser in half precision, and the parts must agree.
        """
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.float32)
        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            return super().from_pretrained(name, **kwargs)
        # diffusers downloads no pipeline whose parts are classes of another package.
        options = {option: kwargs.pop(option) for option in HUB_OPTIONS if option in kwargs}
        folder = snapshot_download(name, allow_patterns=["*.json", "*.safetensors"], **options)
        pipeline = super().from_pretrained(folder, **kwargs)
        pipeline.register_to_config(_name_or_path=name)
        return pipeline

    @classmethod
    def from_demo(cls) -> "Speech2FacePipeline":
        """Loads the weights that come with the package, in float32.

        Raises:
            FileNotFoundError: the package was installed without them.
        """
        if not (DEMO_CHECKPOINT / "model_index.json").is_file():
            raise FileNotFoundError(
                "this installation has no demo checkpoint: name another with from_pretrained or "
                "--checkpoint."
            )
        return cls.from_pretrained(str(DEMO_CHECKPOINT))

    @torch.no_grad()
    def __call__(
        self,
        voice: str | Path | bytes | np.ndarray | torch.Tensor | list | None = None,
        sampling_rate: int | None = None,
        face_embedding: np.ndarray | torch.Tensor | None = None,
        num_images_per_prompt: int = 4,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
    ) -> Speech2FacePipelineOutput | tuple:
        """Imagines faces for one voice or several.

        Args:
            voice: path, content of a media file, or mono waveform `(samples,)` with its
                `sampling_rate`; or a list of V of these.
            sampling_rate (`int`): of waveforms, in Hz.
            face_embedding (array or tensor `(D,)` or `(V, D)`): a face's own embedding as the face
                recogniser gives it, instead of a voice; it is decoded without drawing.
            num_images_per_prompt (`int`): n; from a voice, each image has its own draw.
            num_inference_steps (`int`): denoising steps; the pipeline's default if None.
            guidance_scale (`float`): at least 1; the pipeline's default if None.
            generator (`torch.Generator` or list of V): for exact repetition. The i-th image of a
                voice depends on nothing but the generator's state, the voice and i.
            output_type (`str`): "pil", "np" or "pt".
            return_dict (`bool`): False returns a tuple.
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": ...}) after every
                step; may return a dict with new latents.

        Returns:
            `Speech2FacePipelineOutput`.

        Raises:
            AudioError: the recording cannot be read.
            NoSpeechError: silence, no speech, or less than a second of it.
            ValueError: arguments that contradict each other.
        """
        # 1. Arguments
        if (voice is None) == (face_embedding is None):
            raise ValueError("pass either a voice or a face_embedding, and not both.")
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'output_type must be "pil", "np" or "pt", got {output_type!r}.')
        if num_images_per_prompt < 1:
            raise ValueError(
                f"num_images_per_prompt must be at least 1, got {num_images_per_prompt}."
            )
        steps = (
            self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        )
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        if steps < 1 or not 1 <= scale < math.inf:
            raise ValueError(
                "num_inference_steps and guidance_scale must be at least 1, and finite."
            )

        # 2. Embeddings, and a draw of them for every image
        if voice is not None:
            is_list = isinstance(voice, (list, tuple))
            predictions = self._embed_voices(voice if is_list else [voice], sampling_rate)
        else:
            is_list = np.ndim(face_embedding) == 2
            predictions = self._centre(face_embedding)  # (V, D)
        seeds, generators = _image_generators(generator, len(predictions), num_images_per_prompt)
        face_embeddings = predictions.repeat_interleave(num_images_per_prompt, dim=0)  # (N, D)
        if voice is not None:
            draws = [
                self.voice_encoder.sample_face_embeddings(prediction, 1, image_generator)
                for prediction, image_generator in zip(face_embeddings, generators, strict=True)
            ]
            face_embeddings = torch.cat(draws)  # (N, D)

        # 3. Decode, by denoising
        latents = self._denoise(face_embeddings, steps, scale, generators, callback_on_step_end)
        faces = self._decode_latents(latents).cpu()  # (N, 3, S, S), 0 to 1

        # 4. What a voice's images share
        by_voice = faces.unflatten(0, (len(predictions), num_images_per_prompt))
        averages = by_voice.mean(dim=1)  # (V, 3, S, S)
        certainties = certainty_of(by_voice) if num_images_per_prompt > 1 else None  # (V, S, S)

        # 5. Output
        images = self._output(faces, output_type, seeds, "a face imagined from a voice")
        average_face = self._output(averages, output_type, seeds, "the average of several faces")
        certainty = None
        if certainties is not None:
            certainty = self._output(certainties, output_type, seeds, "where several faces agree")
        if not is_list:
            average_face = average_face[0]
            certainty = None if certainty is None else certainty[0]
        if not return_dict:
            return images, face_embeddings, average_face, certainty
        return Speech2FacePipelineOutput(images, face_embeddings, average_face, certainty)

    def _embed_voices(self, voices: list, sampling_rate: int | None) -> torch.Tensor:
        """Centred predictions (V, D) of voices in any form."""
        if len(voices) == 0:
            raise ValueError("the list of voices is empty: pass at least one.")
        own_rate = self.feature_extractor.sampling_rate
        predictions = []
        for voice in voices:
            if isinstance(voice, (np.ndarray, torch.Tensor)):
                voice = voice.detach().cpu() if isinstance(voice, torch.Tensor) else voice
                waveform = resample(voice, sampling_rate, own_rate)
            elif isinstance(voice, (str, Path, bytes, bytearray)) or hasattr(voice, "read"):
                waveform = load_audio(voice, own_rate)
            else:
                raise ValueError(
                    "a voice must be a path, bytes, an array or a tensor, got "
                    f"{type(voice).__name__}."
                )
            predictions.append(
                self.voice_encoder.embed_recording(waveform, own_rate, self.feature_extractor)
            )
        return torch.stack(predictions)

    def _centre(self, face_embedding) -> torch.Tensor:
        """A recogniser's own embeddings, (D,) or (V, D), to centred ones (V, D)."""
        mean = self.voice_encoder.face_embedding_mean.float()
        raw = torch.as_tensor(face_embedding, dtype=torch.float32, device=mean.device)
        if raw.ndim not in (1, 2) or raw.shape[-1] != mean.shape[0]:
            raise ValueError(
                f"face_embedding must have {mean.shape[0]} values, got shape {tuple(raw.shape)}."
            )
        if not torch.isfinite(raw).all():
            raise ValueError("face_embedding contains NaN or infinite values.")
        return torch.atleast_2d(raw) - mean

    def _denoise(self, face_embeddings, steps, scale, generators, callback) -> torch.Tensor:
        """Latents of the faces with these embeddings (N, D)."""
        unet, device = self.unet, self.unet.device
        tokens = self.embedding_projection(face_embeddings.to(self.embedding_projection.dtype))
        guided = scale > 1
        if guided:  # the halves of one batch: no face in particular, and this face
            tokens = torch.cat([self.embedding_projection.unconditional(len(tokens)), tokens])
        self.scheduler.set_timesteps(steps, device=device)
        size = unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (len(face_embeddings), unet.config.in_channels, height, width)
        latents = randn_tensor(shape, generator=generators, device=device, dtype=torch.float32)
        latents = latents * getattr(self.scheduler, "init_noise_sigma", 1.0)
        # Stochastic schedulers take the generators; the others do not know the argument.
        known = signature(self.scheduler.step).parameters
        step_kwargs = {"generator": generators} if "generator" in known else {}

        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            model_input = torch.cat([latents, latents]) if guided else latents
            if hasattr(self.scheduler, "scale_model_input"):
                model_input = self.scheduler.scale_model_input(model_input, timestep)
            prediction = unet(
                model_input.to(unet.dtype), timestep, encoder_hidden_states=tokens.to(unet.dtype)
            ).sample.float()
            if guided:
                unconditional, conditional = prediction.chunk(2)
                prediction = unconditional + scale * (conditional - unconditional)
            latents = self.scheduler.step(prediction, timestep, latents, **step_kwargs).prev_sample
            if callback is not None:
                changed = callback(self, step, timestep, {"latents": latents})
                latents = (changed or {}).get("latents", latents)
        return latents

    def _decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to faces (N, 3, S, S), 0 to 1."""
        if self.vae is not None:
            latents = latents / self.vae.config.scaling_factor
            faces = self.vae.decode(latents.to(self.vae.dtype)).sample.float()
        else:
            faces = latents_to_faces(latents, patch_size_of(self.unet.config.in_channels))
        return (faces / 2 + 0.5).clamp(0, 1)

    def _output(
        self, images: torch.Tensor, output_type: str, seeds: list[int], content: str
    ) -> list | np.ndarray | torch.Tensor:
        """Faces (N, 3, S, S) or maps (N, S, S), 0 to 1, in the form that was asked for."""
        if output_type == "pt":
            return images
        arrays = images.numpy() if images.ndim == 3 else images.permute(0, 2, 3, 1).numpy()
        if output_type == "np":
            return arrays
        if images.ndim == 3:
            arrays = in_colour(arrays)
        checkpoint = _name_of(self.config.get("_name_or_path"))
        per_voice = len(seeds) // len(arrays)  # seeds stand in the order of the faces
        return [
            with_provenance(
                Image.fromarray((array * 255).round().astype(np.uint8)),
                describe(checkpoint, seeds[index * per_voice], content),
            )
            for index, array in enumerate(arrays)
        ]


def certainty_of(faces: torch.Tensor) -> torch.Tensor:
    """Where images of the same voice agree: faces (V, n, 3, S, S) to (V, S, S), 0 to 1."""
    variance = faces.var(dim=1).mean(dim=1)  # (V, S, S), unbiased, over the three colours
    smooth = torch.nn.functional.avg_pool2d(
        variance[:, None], kernel_size=3, stride=1, padding=1, count_include_pad=False
    )[:, 0]  # few images make a rough estimate; neighbours steady it
    return 1 - (smooth.sqrt() / UNCERTAIN_DEVIATION).clamp(max=1)


def in_colour(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 of any shape to colours of shape (..., 3), 0 to 1."""
    positions = np.linspace(0, 1, len(CERTAINTY_COLOURS))
    channels = np.array(CERTAINTY_COLOURS).T / 255
    return np.stack([np.interp(values, positions, channel) for channel in channels], axis=-1)


def contact_sheet(output: Speech2FacePipelineOutput, scale: int = 4) -> Image.Image:
    """One picture of all faces of one voice, their average and the certainty.

    Args:
        output (`Speech2FacePipelineOutput`): of a single voice, with PIL images.
        scale (`int`): by what each side is enlarged.

    Returns:
        `PIL.Image.Image`, with the provenance of the first image.
    """
    tiles = [*output.images, output.average_face]
    tiles += [output.certainty] if output.certainty is not None else []
    tiles = [enlarge(tile, scale) for tile in tiles]
    gap, (width, height) = 2 * scale, tiles[0].size
    sheet = Image.new("RGB", (len(tiles) * (width + gap) + gap, height + 2 * gap), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (gap + index * (width + gap), gap))
    provenance = read_provenance(output.images[0]) | {
        "content": "faces imagined from a voice, their average, and where they agree"
    }
    return with_provenance(sheet, provenance)


def enlarge(image: Image.Image, scale: int = 4) -> Image.Image:
    """The image `scale` times as wide and as high; it gains no detail by that."""
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


def _image_generators(generator, voices: int, images: int) -> tuple[list[int], list]:
    """A generator for every image, and the seeds of their voices' generators.

    An image's generator depends only on that of its voice and its own index, so that neither the
    number of images nor the other voices change it. One generator for several voices starts anew
    for each: what then differs between the voices' images comes from the voices.
    """
    if isinstance(generator, list) and len(generator) != voices:
        raise ValueError(f"expected a generator for each of {voices} voices, got {len(generator)}.")
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    seeds, generators = [], []
    start = None if isinstance(generator, list) else generator.get_state()
    for index in range(voices):
        source = generator[index] if start is None else generator.set_state(start)
        for _ in range(images):
            seed = torch.randint(2**63 - 1, (), generator=source, device=source.device)
            seeds.append(source.initial_seed())
            generators.append(torch.Generator().manual_seed(int(seed)))
    return seeds, generators


def _check_teachers(encoder_config, projection_config) -> None:
    if encoder_config.face_recogniser != projection_config.face_recogniser:
        raise ValueError(
            f"the voice encoder predicts embeddings of {encoder_config.face_recogniser!r}, the "
            f"decoder expects those of {projection_config.face_recogniser!r}: use two that were "
            "trained with the same face recogniser."
        )
    if encoder_config.face_embedding_size != projection_config.face_embedding_size:
        raise ValueError(
            f"the voice encoder predicts {encoder_config.face_embedding_size} values, the decoder "
            f"expects {projection_config.face_embedding_size}: use two that belong together."
        )


def _name_of(checkpoint: str | None) -> str:
    """What to call a checkpoint: a Hub repository's id, or a folder's name without its path."""
    if not checkpoint:
        return "unnamed"
    path = Path(checkpoint)
    if path == DEMO_CHECKPOINT:
        return "speech2face demo"
    return path.resolve().name if path.is_dir() else str(checkpoint)
