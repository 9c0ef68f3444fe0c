"""The mark that everybody sees on a picture of this page; what a machine reads, it keeps."""

from PIL import Image, ImageDraw, ImageFont

SHOWN_SIDE = 256  # pixels, to which smaller pictures are enlarged
MARK = "synthetic"
MARK_SIZE = 18  # pixels, of its letters at that side


def with_visible_mark(image: Image.Image, mark: str = MARK) -> Image.Image:
    """Enlarges a picture and writes into a corner that nobody was photographed.

    Args:
        image (`PIL.Image.Image`): square, of any size; its provenance is kept.
        mark (`str`): what is written.

    Returns:
        `PIL.Image.Image`: 256x256 pixels, RGB.
    """
    side = SHOWN_SIDE
    marked = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    font = ImageFont.load_default(size=MARK_SIZE)
    left, top, right, bottom = font.getbbox(mark)
    width, height = right - left + 16, bottom - top + 12
    draw = ImageDraw.Draw(marked, "RGBA")
    box = (side - width - 6, side - height - 6, side - 6, side - 6)
    draw.rounded_rectangle(box, radius=height // 2, fill=(0, 0, 0, 165))
    draw.text((box[0] + 8 - left, box[1] + 6 - top), mark, (255, 255, 255, 255), font)
    return marked
