"""Generated pictures as they leave the page, or as the API returns them: signed."""

import functools
import io

from PIL import Image

from modeling_speech2face import load_signing_key, signed

signing_key = functools.cache(load_signing_key)  # the Space's own, or that of its secrets


def signed_png(image: Image.Image) -> bytes:
    """The content of a PNG file, with the provenance that the pipeline gave the picture."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # six times as fast as 6, a fifth larger
    return signed(file.getvalue(), signing_key())
