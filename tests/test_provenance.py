"""Provenance: in every file that a generated image is saved to, whichever way."""

import copy
import io

import numpy as np
import pytest
from PIL import Image

from modeling_speech2face import (
    GeneratedImage,
    describe,
    read_provenance,
    save_image,
    with_provenance,
)

PROVENANCE = describe("somebody/checkpoint", seed=7)


def plain_image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def image() -> GeneratedImage:
    return with_provenance(plain_image(), PROVENANCE)


def test_it_says_what_made_it_from_what_and_that_it_shows_nobody(image):
    provenance = read_provenance(image)
    assert provenance == PROVENANCE
    assert provenance["checkpoint"] == "somebody/checkpoint" and provenance["seed"] == 7
    assert "Speech2Face" in provenance["generator"] and provenance["version"]
    assert "nobody" in provenance["disclaimer"] and "identify" in provenance["disclaimer"]


def test_plain_save_writes_it_as_png_text_that_people_can_read(image, tmp_path):
    image.save(tmp_path / "a.png")
    reopened = Image.open(tmp_path / "a.png")
    assert read_provenance(tmp_path / "a.png") == PROVENANCE
    assert "nobody" in reopened.text["Disclaimer"] and "Speech2Face" in reopened.text["Software"]
    assert "seed 7" in reopened.text["Source"]
    assert np.array_equal(np.asarray(reopened), np.asarray(image))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_every_format_carries_it(image, form):
    file = io.BytesIO()
    image.save(file, form)
    assert read_provenance(Image.open(file)) == PROVENANCE


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.copy(),
        lambda image: image.resize((32, 32)),
        lambda image: image.crop((2, 2, 9, 9)),
        lambda image: image.convert("L"),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        copy.deepcopy,
    ],
)
def test_changed_images_keep_it(image, change, tmp_path):
    change(image).save(tmp_path / "a.png")
    assert read_provenance(tmp_path / "a.png") == PROVENANCE


def test_the_original_image_is_not_touched():
    original = plain_image()
    with_provenance(original, PROVENANCE)
    assert not isinstance(original, GeneratedImage) and original.info == {}


def test_save_image_needs_provenance(image, tmp_path):
    save_image(image, tmp_path / "a.png")
    save_image(plain_image(), tmp_path / "b.png", PROVENANCE)
    assert read_provenance(tmp_path / "a.png") == read_provenance(tmp_path / "b.png") == PROVENANCE
    with pytest.raises(ValueError, match="no provenance"):
        save_image(plain_image(), tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def test_other_images_have_none(tmp_path):
    plain_image().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no provenance of Speech2Face"):
        read_provenance(tmp_path / "a.png")
