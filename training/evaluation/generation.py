"""What a checkpoint makes: predictions from recordings, draws, and decoded faces.

Everything is made once and kept in a `Store`, and every image has a seed of its own.

Letters: N recordings or images, n draws of one recording, D size of the face embedding, S side of
an image.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from training.data import SAMPLING_RATE
from training.evaluation.store import Store, fingerprint, key_of, seed_of

DECODED_AT_ONCE = 4  # images; more are no faster on a CPU
# A checkpoint without one of these has the fingerprint that it had before they were thought of.
LATER_COMPONENTS = ("normalized_decoder", "face_recogniser")
# Nor with a setting that came later, and stands for what was before.
LATER_SETTINGS = {"texture_share": 1.0, "pooling_type": "attentive_statistics"}
CHANGES_NOTHING = "face_traits"  # it puts into words what has been drawn: nothing here is its work


class Recordings(Protocol):
    """Whatever has recordings: `subjects.Subjects` and `subjects.Voices`."""

    name: str
    fingerprint: str

    def __len__(self) -> int: ...

    def speech(self, index: int) -> np.ndarray:
        """A recording, (samples,) float32 at 16 kHz, -1 to 1."""


class Decoder(Protocol):
    """A function from face embeddings to images.

    Attributes:
        name: what tables call it.
        fingerprint: of all that decides its images but embeddings and seeds.
        draws: whether it imagines what a voice leaves open: then it is given draws, and each image
            has a seed. One that does not is given the prediction itself, and makes one face of it.
    """

    name: str
    fingerprint: str
    draws: bool

    def __call__(self, embeddings: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Images (N, S, S, 3) uint8 of raw embeddings (N, D), each from its seed of (N,)."""


def load_checkpoint(name: str) -> tuple[Any, str]:
    """Loads a `Speech2FacePipeline`, and says which one it is.

    Args:
        name: "demo" for the weights that come with the package, a folder, or a name on the Hub.

    Returns:
        The pipeline, without a progress bar of its own, and its fingerprint.

    Raises:
        FileNotFoundError: if it cannot be had.
    """
    from modeling_speech2face import Speech2FacePipeline

    if name == "demo":
        pipeline = Speech2FacePipeline.from_demo()
    else:
        try:  # nothing is unpickled, wherever it comes from
            pipeline = Speech2FacePipeline.from_pretrained(name, use_safetensors=True)
        except (OSError, ValueError) as error:  # the Hub's own messages run over several lines
            raise FileNotFoundError(
                f"{name} cannot be loaded: give demo, a pipeline folder, see "
                "training.assemble_checkpoint, or a Hub repository that can be reached"
            ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, checkpoint_fingerprint(pipeline)


def checkpoint_fingerprint(pipeline: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of what decides a checkpoint's images."""
    absent = [name for name in LATER_COMPONENTS if getattr(pipeline, name, None) is None]
    absent.append(CHANGES_NOTHING)
    known = {name: value for name, value in pipeline.config.items() if name not in absent}
    names = [name for name in sorted(pipeline.components) if name not in absent]
    return fingerprint(_settings(known), *_contents(pipeline, names))


def fingerprint_of_parts(pipeline: Any, *names: str) -> str:
    """The same of some components: what they made stays valid when another one is exchanged."""
    return fingerprint(*_contents(pipeline, names))


def _contents(pipeline: Any, names: Iterable[str]) -> Iterator[Any]:
    """Names, settings and weights of some of a pipeline's components."""
    components = pipeline.components
    for name in names:
        component = components[name]
        yield name
        yield _settings(getattr(component, "config", None) or component)
        if hasattr(component, "state_dict"):
            for key, weight in sorted(component.state_dict().items()):
                yield key
                yield weight.detach().float().cpu().numpy()


def _settings(config: Any) -> Any:
    """A configuration without what changes no result: versions, places, the form of storage."""
    config = config.to_dict() if hasattr(config, "to_dict") else config
    if not hasattr(config, "items"):
        return config if isinstance(config, (str, int, float, list, tuple)) else None
    return {
        str(key): _settings(value)
        for key, value in config.items()
        if not str(key).startswith("_")
        and not str(key).endswith(("_version", "name_or_path", "dtype"))
        and not (key in LATER_SETTINGS and LATER_SETTINGS[key] == value)
    }


def predict(
    pipeline: Any, recordings: Recordings, seconds: float, store: Store
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts the face embedding of each recording from its beginning.

    Where the voice encoder refuses a recording because it hears no speech, the same clip is
    embedded as it is, so that no recording is left out; `heard` tells.

    Args:
        pipeline: a `Speech2FacePipeline`.
        recordings: `Subjects` or `Voices`.
        seconds: of each recording, from its start; a shorter one is looped as the encoder does.
        store: where the predictions are kept.

    Returns:
        Centred predictions (N, D) float32, and heard (N,) bool.

    Raises:
        ValueError: if a prediction is no number.
    """
    samples = round(seconds * SAMPLING_RATE)

    def make(start: int, stop: int) -> dict[str, np.ndarray]:
        clips = [recordings.speech(index)[:samples] for index in range(start, stop)]
        predictions, heard = zip(*(_embed(pipeline, clip) for clip in clips), strict=True)
        predictions = np.stack(predictions)
        if not np.isfinite(predictions).all():
            raise ValueError(
                f"the voice encoder predicts NaN or infinity for recordings {start} to {stop - 1}: "
                "take an earlier checkpoint of its training"
            )
        return {"predictions": predictions, "heard": np.asarray(heard)}

    key = key_of(
        f"predictions {recordings.name} {seconds:g}s",
        fingerprint_of_parts(pipeline, "voice_encoder", "feature_extractor"),
        recordings.fingerprint,
        samples,
    )
    rows = store.rows(key, len(recordings), make, label=f"listening to {seconds:g} s")
    return np.asarray(rows["predictions"]), np.asarray(rows["heard"])


def _embed(pipeline: Any, clip: np.ndarray) -> tuple[np.ndarray, bool]:
    from modeling_speech2face import NoSpeechError

    encoder = pipeline.voice_encoder
    try:
        embedding = encoder.embed_recording(clip, SAMPLING_RATE, pipeline.feature_extractor)
        return embedding.cpu().numpy(), True
    except NoSpeechError:
        return encoder.embed_clip(clip, SAMPLING_RATE).cpu().numpy(), False


def seeds_of(seed: int, names: Sequence[str], purpose: str, count: int | None = None) -> np.ndarray:
    """A seed for every name, (N,) int64, or `count` of them, (N, count); see `seed_of`."""
    numbers = range(count or 1)
    seeds = [[seed_of(seed, name, purpose, number) for number in numbers] for name in names]
    seeds = np.asarray(seeds, np.int64).reshape(len(names), len(numbers))
    return seeds[:, 0] if count is None else seeds


def draw(pipeline: Any, predictions: np.ndarray, seeds: np.ndarray, n: int = 1) -> np.ndarray:
    """Draws faces that fit each recording, from N(prediction, residual covariance).

    Args:
        pipeline: a `Speech2FacePipeline`.
        predictions: (N, D) centred.
        seeds: (N,) one a recording; its i-th draw depends on nothing but its seed and i.
        n: draws of each.

    Returns:
        (N, n, D) float32, raw as the recogniser gives embeddings: the pipeline's centre is added.
    """
    import torch

    encoder = pipeline.voice_encoder
    mean = encoder.face_embedding_mean.float().cpu().numpy()
    draws = []
    for prediction, seed in zip(predictions, seeds, strict=True):
        generator = torch.Generator().manual_seed(int(seed))
        centre = torch.from_numpy(np.array(prediction, np.float32))
        # One at a time: a larger draw is not the smaller one and more.
        drawn = [encoder.sample_face_embeddings(centre, 1, generator) for _ in range(n)]
        draws.append(torch.cat(drawn).cpu().numpy())
    return np.stack(draws) + mean


@dataclass(frozen=True)
class DiffusionDecoder:
    """The pipeline's UNet as a function from embeddings to images.

    Attributes:
        pipeline: a `Speech2FacePipeline`.
        steps: of denoising.
        guidance_scale: strength of classifier-free guidance.
        fingerprint: of its parts and these settings.
        name: what tables call it.
        draws: see `Decoder`.
    """

    pipeline: Any
    steps: int
    guidance_scale: float
    fingerprint: str
    name: str = "diffusion"
    draws: bool = True

    def __call__(self, embeddings: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Images (N, S, S, 3) uint8 of raw embeddings (N, D), each from its seed of (N,).

        Raises:
            ValueError: if a pixel is no number.
        """
        import torch

        images = self.pipeline(
            face_embedding=np.array(embeddings, np.float32),
            num_images_per_prompt=1,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
            output_type="np",
        ).images
        return _in_bytes(images)


@dataclass(frozen=True)
class NormalizedDecoder:
    """The paper's decoder: of an embedding one face, frontal and neutral.

    Attributes:
        pipeline: a `Speech2FacePipeline` with a `normalized_decoder`.
        fingerprint: of its parts.
        name: what tables call it.
        draws: see `Decoder`.
    """

    pipeline: Any
    fingerprint: str
    name: str = "normalized"
    draws: bool = False

    def __call__(self, embeddings: np.ndarray, seeds: np.ndarray | None = None) -> np.ndarray:
        """Images (N, S, S, 3) uint8 of raw embeddings (N, D); no seed changes them.

        Raises:
            ValueError: if a pixel is no number.
        """
        images = self.pipeline(
            face_embedding=np.array(embeddings, np.float32),
            decoder="normalized",
            num_images_per_prompt=1,
            output_type="np",
        ).images
        return _in_bytes(images)


def _in_bytes(images: np.ndarray) -> np.ndarray:
    """Images with values from 0 to 1 as uint8, of the same shape."""
    if not np.isfinite(images).all():  # as integers they would be black faces, and measured
        raise ValueError("the decoder makes NaN: take an earlier checkpoint of its training")
    return (images * 255).round().astype(np.uint8)


def decoders_of(
    pipeline: Any, steps: int | None = None, guidance_scale: float | None = None
) -> dict[str, Decoder]:
    """Every decoder that a pipeline has, by name.

    Args:
        pipeline: a `Speech2FacePipeline`.
        steps: of denoising, by diffusion; the pipeline's default if None.
        guidance_scale: likewise.
    """
    steps = pipeline.config.num_inference_steps if steps is None else steps
    scale = pipeline.config.guidance_scale if guidance_scale is None else guidance_scale
    centre = "voice_encoder"  # its mean is subtracted from what is decoded
    parts = ("embedding_projection", "unet", "vae", "scheduler")
    key = fingerprint(fingerprint_of_parts(pipeline, centre, *parts), steps, scale)
    decoders: list[Decoder] = [DiffusionDecoder(pipeline, steps, scale, key)]
    if getattr(pipeline, "normalized_decoder", None) is not None:
        key = fingerprint_of_parts(pipeline, centre, "normalized_decoder")
        decoders.append(NormalizedDecoder(pipeline, key))
    return {decoder.name: decoder for decoder in decoders}


def decode(
    decoder: Decoder, embeddings: np.ndarray, seeds: np.ndarray | None, store: Store, key: str
) -> np.ndarray:
    """Decodes embeddings to faces, a few at a time; a run that is killed continues.

    An image depends on its own embedding and seed. In other company its batch is rounded otherwise:
    then a few of 100,000 values differ by one grey level, none by more.

    Args:
        decoder: one of `decoders_of`.
        embeddings: (N, D) raw, as the recogniser gives them.
        seeds: (N,) one an image; a decoder that does not draw needs none.
        store: where the images are kept.
        key: what the images are, in words that people can read, for example "voice, 6 s".

    Returns:
        (N, S, S, 3) uint8, memory-mapped.
    """
    embeddings = np.asarray(embeddings, np.float32)
    # What does not draw makes the same images from any seeds, and finds them kept by any.
    seeds = np.asarray(seeds if decoder.draws else np.zeros(len(embeddings)), np.int64)
    if embeddings.ndim != 2 or seeds.shape != embeddings.shape[:1]:
        raise ValueError(
            f"expected embeddings (N, D) and N seeds, got {embeddings.shape} and {seeds.shape}"
        )
    whole = key_of(f"faces {key} {decoder.name}", decoder.fingerprint, embeddings, seeds)

    def make(start: int, stop: int) -> dict[str, np.ndarray]:
        return {"images": decoder(embeddings[start:stop], seeds[start:stop])}

    label = f"decoding {key}"
    return store.rows(whole, len(embeddings), make, DECODED_AT_ONCE, label)["images"]
