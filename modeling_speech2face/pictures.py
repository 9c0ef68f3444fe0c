"""What comes out of the pipeline: faces, what several of one voice share, and pictures of both.

Letters: V voices, n images a voice, N = V n images, D size of a face embedding, S side of an image.
"""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from .provenance import read_provenance, with_provenance

COMFORTABLE_SIZE = 256  # pixels, to which a small face is enlarged for people
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
        face_embeddings (`torch.Tensor` `(N, D)`): the centred embeddings that were decoded, as
            exaggerated as they were.
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


def contact_sheet(output: Speech2FacePipelineOutput, scale: int | None = None) -> Image.Image:
    """One picture of all faces of one voice, their average and the certainty.

    Args:
        output (`Speech2FacePipelineOutput`): of a single voice, with PIL images.
        scale (`int`, *optional*): by what each side is enlarged; see `enlarge`.

    Returns:
        `PIL.Image.Image`, with the provenance of the first image.
    """
    tiles = [*output.images, output.average_face]
    tiles += [output.certainty] if output.certainty is not None else []
    tiles = [enlarge(tile, scale) for tile in tiles]
    width, height = tiles[0].size
    gap = 2 * max(4, width // 64)  # pixels
    sheet = Image.new("RGB", (len(tiles) * (width + gap) + gap, height + 2 * gap), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (gap + index * (width + gap), gap))
    provenance = read_provenance(output.images[0])
    provenance["content"] += "; several, their average, and where they agree"
    return with_provenance(sheet, provenance)


def enlarge(image: Image.Image, scale: int | None = None) -> Image.Image:
    """The image `scale` times as wide and as high; it gains no detail by that.

    Without a scale it becomes as large as fits into 256 pixels, and stays as it is beyond.
    """
    scale = scale or max(1, COMFORTABLE_SIZE // image.width)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
