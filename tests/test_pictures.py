"""Pictures of what a voice's faces share: the average, where they agree, and the sheet of both."""

import numpy as np
import torch
from PIL import Image

from modeling_speech2face import (
    Speech2FacePipelineOutput,
    contact_sheet,
    describe,
    read_provenance,
    with_provenance,
    with_scale,
)
from modeling_speech2face.pictures import (
    BRIGHTNESS,
    UNCERTAIN_DEVIATION,
    _font,
    _wrapped,
    average_of_draws,
    in_colour,
)
from tests.tiny import FACE_EMBEDDING_SIZE, tiny_normalized_decoder

TOLD = "The voice fixes: nothing at all; it leaves open: " + ", ".join(["everything"] * 12) + "."


def picture(size: int, value: int = 128, content: str = "a face imagined from a voice"):
    image = Image.effect_noise((size, size), 50).convert("RGB").point(lambda x: x // 2 + value // 2)
    return with_provenance(image, describe("tiny", 0, content))


def output(images: int = 3, certainty: bool = True, told: str | None = TOLD, **kwargs):
    return Speech2FacePipelineOutput(
        images=[picture(16, value, **kwargs) for value in range(0, 50 * images, 50)],
        face_embeddings=torch.zeros(images, 8),
        average_face=picture(56),
        certainty=picture(56) if certainty else None,
        told=told,
    )


def draws(spread: float, count: int = 16) -> torch.Tensor:
    noise = torch.randn(count, FACE_EMBEDDING_SIZE, generator=torch.Generator().manual_seed(0))
    return 0.2 + spread * noise


@torch.no_grad()
def test_the_average_of_equal_draws_is_their_face_and_certain():
    decoder = tiny_normalized_decoder()
    same = draws(0.0)
    average, certainty = average_of_draws(decoder, same)
    torch.testing.assert_close(average, decoder(same[:1]).faces[0], atol=1e-4, rtol=0)
    assert certainty.shape == (56, 56) and certainty.min() > 0.99


@torch.no_grad()
def test_shapes_are_averaged_as_shapes():
    """Of one texture in several shapes the average is that texture, sharp, in the mean shape."""
    decoder = tiny_normalized_decoder()
    for layer in decoder.texture_branch[:2]:
        torch.nn.init.zeros_(layer.weight)  # no draw changes the texture
    decoder.texture_branch[1].bias.normal_(generator=torch.Generator().manual_seed(0), std=3.0)
    torch.nn.init.normal_(decoder.landmark_branch[-1].weight, std=0.02)
    many = draws(1.0)
    average, certainty = average_of_draws(decoder, many)
    faces = decoder(many).faces
    sharp, blurred = (face.diff(dim=-1).square().mean() for face in (average, faces.mean(dim=0)))
    assert sharp > 1.2 * blurred and sharp > 0.8 * faces.diff(dim=-1).square().mean()
    assert certainty.min() < 0.95  # a face that lies elsewhere differs


@torch.no_grad()
def test_wider_draws_are_less_certain_and_larger_faces_are_compared_small():
    decoder = tiny_normalized_decoder()
    near, far = (average_of_draws(decoder, draws(spread))[1] for spread in (0.1, 1.0))
    assert far.mean() < near.mean() < 1
    # What is compared at 56 pixels is what faces of any size differ by, but for finest detail.
    faces = decoder(draws(1.0)).faces
    deviation = faces.var(dim=0).mean(dim=0).sqrt()
    torch.testing.assert_close(
        1 - far.mean(), deviation.mean() / UNCERTAIN_DEVIATION, atol=0.02, rtol=0.2
    )


def test_the_colours_are_ordered_by_their_brightness():
    values = torch.linspace(0, 1, 64).expand(1, 64, 64)
    colours = in_colour(values, torch.full((1, 3, 64, 64), 0.5))  # a face without lines
    brightness = (colours[0, :, 0] * torch.tensor(BRIGHTNESS)[:, None]).sum(dim=0)
    assert (brightness.diff() > 0).all() and brightness[-1] - brightness[0] > 0.6
    # Even steps: none is four times as large as the mean.
    assert brightness.diff().max() < 4 * brightness.diff().mean()


def test_a_face_s_lines_lie_over_the_colours_and_its_light_does_not():
    even = torch.full((1, 64, 64), 0.5)
    plain = in_colour(even, torch.full((1, 3, 64, 64), 0.2))
    torch.testing.assert_close(in_colour(even, torch.full((1, 3, 64, 64), 0.9)), plain)
    lined = torch.full((1, 3, 64, 64), 0.6)
    lined[..., 30:32, :] = 0.1
    darker = plain - in_colour(even, lined)
    assert darker[..., 30:32, :].mean() > 0.1 and darker[..., :20, :].abs().max() < 1e-6


def test_the_scale_stands_below_the_picture_and_leaves_it_alone():
    image = picture(256)
    scaled = with_scale(image)
    assert scaled.width == 256 and 300 < scaled.height < 360
    assert np.array_equal(np.asarray(scaled)[:256], np.asarray(image))
    below = np.asarray(scaled)[256:].astype(int)
    bar = below[16]  # from dark violet to yellow
    assert bar[2].sum() < 200 and bar[-3, :2].min() > 200 and bar[-3, 2] < 100
    words = below[26:].sum(axis=-1) < 200  # black on white
    for part in (words[:, :100], words[:, 156:]):
        assert part.any()
    assert read_provenance(scaled) == read_provenance(image)


def test_the_sheet_shows_labelled_faces_average_and_map():
    out = output()
    sheet = contact_sheet(out)
    assert sheet.width == 5 * (256 + 8) + 8
    pixels = np.asarray(sheet)
    top = 8 + round(256 / 11)
    enlarged = out.images[1].resize((256, 256), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels[top : top + 256, 272:528], np.asarray(enlarged))
    average = out.average_face.resize((256, 256), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels[top : top + 256, 3 * 264 + 8 :][:, :256], np.asarray(average))
    dark = pixels.sum(axis=-1) < 200
    labelled = [dark[:top, 8 + 264 * column :][:, :256].any() for column in range(5)]
    assert labelled == [True, False, False, True, True]  # "faces", "average", "what ... fixes"
    assert dark[top + 256 + 8 :, : 4 * 264].any()  # the sentence
    silent = np.asarray(contact_sheet(output(told=None)))
    assert not (silent[top + 256 + 8 :, : 4 * 264].sum(axis=-1) < 200).any()
    assert "average" in read_provenance(sheet)["content"]


def test_a_sheet_grows_with_its_text_and_does_without_map_and_text():
    one = contact_sheet(output(images=1, told=TOLD * 4))
    few = contact_sheet(output(images=1))
    assert one.width == few.width == 3 * 264 + 8 and one.height > few.height
    bare = contact_sheet(output(images=2, certainty=False, told=None))
    assert bare.size == (3 * 264 + 8, 256 + 3 * 8 + round(256 / 11))


def test_only_a_voice_fixes_anything():
    of_a_voice, of_a_face = (
        np.asarray(contact_sheet(output(told=None, content=content)))[:24, 4 * 264 :]
        for content in ("a face imagined from a voice", "a face decoded from a face's embedding")
    )
    assert not np.array_equal(of_a_voice, of_a_face)


def test_text_is_wrapped_between_words():
    font = _font(18)
    lines = _wrapped(TOLD, font, 300)
    assert " ".join(lines) == TOLD and len(lines) > 2
    assert max(font.getlength(line) for line in lines) <= 300
    assert _wrapped("", font, 300) == []
