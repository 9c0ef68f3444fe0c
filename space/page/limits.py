"""What one visitor may ask for, so that the others are served, too."""

import math
from dataclasses import dataclass

MAX_FILE_SIZE = "20mb"
MAX_SECONDS = 120  # of speech; what is longer is cut there
MAX_FACES = 8
MAX_NEAREST = 12  # faces of the gallery
MAX_STEPS = 30
MAX_GUIDANCE = 5.0
EXAGGERATION = (0.25, 2.5)
MAX_SEED = 2**32 - 1
DRAWING_SECONDS = 60  # of work for one click, with one voice or two
KEPT_SECONDS = 600  # for which files are kept at most
SWEEP_SECONDS = 60  # between two looks for files that are older than that
MAX_WAITING = 40  # visitors in the queue; further ones are told to come back
DECODERS = ("diffusion", "normalized")


class Refusal(ValueError):
    """What cannot be done, in one sentence that says what to do instead."""


@dataclass(frozen=True)
class Settings:
    """How faces are drawn; made by `checked_settings`."""

    num_images: int = 4
    seed: int = 0
    decoder: str = "diffusion"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    exaggeration: float = 1.0


def checked_settings(
    num_images=4,
    seed=0,
    decoder="diffusion",
    num_inference_steps=None,
    guidance_scale=None,
    exaggeration=1.0,
) -> Settings:
    """Settings that the pipeline can follow in good time.

    Args:
        num_images: how many faces, 1 to 8.
        seed: a whole number from 0 to 2^32 - 1.
        decoder: "diffusion" or "normalized", the paper's, which takes no steps and no guidance.
        num_inference_steps: 1 to 30; the checkpoint's own number if None.
        guidance_scale: 1 to 5; the checkpoint's own if None.
        exaggeration: 0.25 to 2.5.

    Returns:
        `Settings`, without steps and guidance for the decoder that has none.

    Raises:
        Refusal: anything else, whatever its type; a request may hold any JSON.
    """
    if decoder not in DECODERS:
        raise Refusal(f"The decoder must be one of {', '.join(DECODERS)}.")
    is_diffusion = decoder == "diffusion"
    steps = scale = None
    if is_diffusion and num_inference_steps is not None:
        steps = whole_number("The number of steps", num_inference_steps, 1, MAX_STEPS)
    if is_diffusion and guidance_scale is not None:
        scale = _number("The guidance scale", guidance_scale, 1, MAX_GUIDANCE)
    return Settings(
        whole_number("The number of faces", num_images, 1, MAX_FACES),
        whole_number("The seed", seed, 0, MAX_SEED),
        decoder,
        steps,
        scale,
        _number("The exaggeration", exaggeration, *EXAGGERATION),
    )


def whole_number(name: str, value, least: int, most: int) -> int:
    """The value as an `int`, if it is a whole number in these limits; else a `Refusal`."""
    wanted = f"{name} must be a whole number from {least} to {most}."
    if not _is_number(value) or not least <= value <= most or value != int(value):
        raise Refusal(wanted)
    return int(value)


def _number(name: str, value, least: float, most: float) -> float:
    if not _is_number(value) or not least <= value <= most:
        raise Refusal(f"{name} must be a number from {least:g} to {most:g}.")
    return float(value)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
