"""What comes out of the pipeline: faces, what several of one voice share, and pictures of both.

Letters: V voices, n images a voice, N = V n images, D size of a face embedding, S side of an image.
"""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

from .modeling_face_decoder import NormalizedFaceDecoder
from .provenance import read_provenance, with_provenance
from .spline_warp import warp

COMFORTABLE_SIZE = 256  # pixels, to which a small face is enlarged for people
# A pixel whose standard deviation among the faces reaches this (of a range of 1) tells nothing.
UNCERTAIN_DEVIATION = 0.2
CERTAINTY_SIZE = 56  # pixels, at which normalized faces are compared: what differs is not fine
# From "differs between faces" to "the same in all": lighter step by step, and never red against
# green, so that it can be read in grey and by those who do not see all colours (after viridis).
CERTAINTY_COLOURS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
LINES = 0.9  # how strongly a face's fine lines are drawn over the colours


@dataclass
class Speech2FacePipelineOutput(BaseOutput):
    """What `Speech2FacePipeline` returns; for a list of voices, `images` are in their order.

    Args:
        images (list of N `PIL.Image.Image`, or array `(N, S, S, 3)`, or tensor `(N, 3, S, S)`):
            the faces.
        face_embeddings (`torch.Tensor` `(N, D)`): the centred embeddings that were decoded, as
            exaggerated as they were.
        average_face (`PIL.Image.Image`, or array `(S, S, 3)`, or tensor `(3, S, S)`): what a
            voice's faces share. Where the pipeline has the normalized decoder, it is the mean of
            the shapes and textures of 16 draws of the voice, with that decoder's S, whatever
            `images` are; else, and without a voice, the mean of the images. A list of V for a list
            of voices.
        certainty (`PIL.Image.Image` in colour, or array or tensor `(S, S)` from 0 to 1): where the
            same faces agree: 1 - min(1, s / 0.2), s being a pixel's standard deviation among them,
            over the three colours and its neighbours. The picture shows it in colours under the
            lines of the average face. None for a single image that is all there is; a list of V
            for a list of voices.
        told (`str`): what the voice tells of a face and what it leaves open, in a sentence; see
            `FaceTraitProbe.tell`. None without a voice or where the pipeline has no `face_traits`;
            a list of V for a list of voices.
    """

    images: list | np.ndarray | torch.Tensor
    face_embeddings: torch.Tensor
    average_face: Image.Image | np.ndarray | torch.Tensor | list
    certainty: Image.Image | np.ndarray | torch.Tensor | list | None
    told: str | list[str] | None = None


def certainty_of(faces: torch.Tensor) -> torch.Tensor:
    """Where images of the same voice agree: faces (V, n, 3, S, S) to (V, S, S), 0 to 1."""
    variance = faces.var(dim=1).mean(dim=1)  # (V, S, S), unbiased, over the three colours
    smooth = _blurred(variance[:, None], 1)[:, 0]  # few images estimate roughly; neighbours help
    return 1 - (smooth.sqrt() / UNCERTAIN_DEVIATION).clamp(max=1)


def average_of_draws(
    decoder: NormalizedFaceDecoder, draws: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The average of normalized faces, and where they agree.

    Textures are averaged in the mean shape, where eyes lie on eyes and lips on lips, and the result
    is warped to the average of the shapes: a face as sharp as each of them.

    Args:
        decoder (`NormalizedFaceDecoder`): the paper's.
        draws (`torch.Tensor` `(n, D)`): centred embeddings.

    Returns:
        Average face `(3, S, S)` and certainty `(S, S)`, 0 to 1, on the CPU.
    """
    reduced = max(1, decoder.size // CERTAINTY_SIZE)
    average, small, landmarks = 0, [], []
    for draw in draws.to(decoder.device, decoder.dtype).split(1):  # a CPU gains nothing by batches
        texture, places = decoder.branches(draw)
        average = average + texture.float() / len(draws)
        small.append(F.avg_pool2d(texture.float(), reduced))
        landmarks.append(places)
    landmarks = torch.cat(landmarks)  # (n, 68, 2)
    average = warp(average, decoder.texture_shape, landmarks.mean(dim=0, keepdim=True))
    faces = warp(torch.cat(small), decoder.texture_shape / reduced, landmarks / reduced)
    certainty = F.interpolate(certainty_of(faces[None])[None], decoder.size, mode="bilinear")
    return average[0].cpu(), certainty[0, 0].cpu()


def in_colour(certainty: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Maps (V, S, S) in colour under the fine lines of faces (V, 3, S, S); (V, 3, S, S), 0 to 1.

    The lines alone, without the light and dark of larger areas, leave the colours as they are in
    the scale.
    """
    positions = np.linspace(0, 1, len(CERTAINTY_COLOURS))
    channels = np.array(CERTAINTY_COLOURS).T / 255
    colours = [np.interp(certainty.numpy(), positions, channel) for channel in channels]
    colours = torch.from_numpy(np.stack(colours, axis=1)).float()
    grey = (faces * faces.new_tensor(BRIGHTNESS)[:, None, None]).sum(dim=1, keepdim=True)
    lines = grey - _blurred(_blurred(grey, grey.shape[-1] // 32), grey.shape[-1] // 32)
    return (colours * (1 + LINES * lines)).clamp(0, 1)


def _blurred(images: torch.Tensor, radius: int) -> torch.Tensor:
    """Means of squares of 2 radius + 1 pixels, of images (B, C, S, S)."""
    return F.avg_pool2d(images, 2 * radius + 1, 1, radius, count_include_pad=False)


def with_scale(certainty: Image.Image) -> Image.Image:
    """The picture of a certainty with a bar below it that says what its colours mean.

    Args:
        certainty (`PIL.Image.Image`): from the pipeline, enlarged or not; its provenance is kept.

    Returns:
        `PIL.Image.Image`, as wide and a third higher.
    """
    width, top = certainty.width, certainty.height
    unit = width / COMFORTABLE_SIZE  # pixels; text of 256 pixels' width, in proportion
    picture = certainty.resize((width, top + round(72 * unit)))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, top, *picture.size), fill="white")
    values = torch.linspace(0, 1, width).expand(1, round(16 * unit), width)
    bar = in_colour(values, torch.ones(1, 3, *values.shape[1:]))[0].permute(1, 2, 0)
    picture.paste(certainty, (0, 0))
    bar = Image.fromarray((bar.numpy() * 255).round().astype(np.uint8))
    picture.paste(bar, (0, top + round(8 * unit)))
    most = round(100 * UNCERTAIN_DEVIATION)
    rows = (
        ("differs between faces", "", "the same in all"),
        (f"{most} % or more", f"{most / 2:g} %", "0 %"),
        ("", "standard deviation, % of the range", ""),
    )
    for row, texts in enumerate(rows):
        y = top + (26 + 15 * row) * unit
        for text, share, anchor in zip(texts, (0, 0.5, 1), ("la", "ma", "ra"), strict=True):
            draw.text((share * width, y), text, "black", _font(12.5 * unit), anchor)
    return picture


def contact_sheet(output: Speech2FacePipelineOutput, scale: int | None = None) -> Image.Image:
    """One picture of all faces of one voice, their average, where they agree, and what it tells.

    Args:
        output (`Speech2FacePipelineOutput`): of a single voice, with PIL images.
        scale (`int`, *optional*): by what each side of a face is enlarged; see `enlarge`.

    Returns:
        `PIL.Image.Image`, with the provenance of the first image.
    """
    provenance = read_provenance(output.images[0])
    faces = [enlarge(image, scale) for image in output.images]
    width, height = faces[0].size
    gap = 2 * max(4, width // 64)  # pixels
    step, font = width + gap, _font(width / 14)
    line = round(width / 11)  # pixels, of text
    average = output.average_face.resize((width, height), Image.Resampling.BICUBIC)
    labelled = {"faces" if len(faces) > 1 else "face": 0, "average": len(faces)}
    tiles = [*faces, average]
    if output.certainty is not None:
        of_a_voice = "from a voice" in provenance["content"]
        labelled["what the voice fixes" if of_a_voice else "where they agree"] = len(tiles)
        tiles.append(with_scale(output.certainty.resize((width, height), Image.Resampling.BICUBIC)))
    lines = _wrapped(output.told or "", font, (len(faces) + 1) * step - gap)
    below = max(tiles[-1].height, height + gap + line * len(lines))
    sheet = Image.new("RGB", (len(tiles) * step + gap, gap + line + below + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for label, column in labelled.items():
        draw.text((gap + column * step, gap // 2), label, "black", font)
    for column, tile in enumerate(tiles):
        sheet.paste(tile, (gap + column * step, gap + line))
    for row, text in enumerate(lines):
        draw.text((gap, gap + line + height + gap + row * line), text, "black", font)
    provenance["content"] += "; several, their average, and where they agree"
    return with_provenance(sheet, provenance)


def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(max(1, size))  # Pillow's own


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines of a text that are no wider than so many pixels, unless a word is."""
    lines = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def enlarge(image: Image.Image, scale: int | None = None) -> Image.Image:
    """The image `scale` times as wide and as high; it gains no detail by that.

    Without a scale it becomes as large as fits into 256 pixels, and stays as it is beyond.
    """
    scale = scale or max(1, COMFORTABLE_SIZE // image.width)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
