"""What the page shows of a voice: HTML that holds its pictures, so that none becomes a file."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from . import texts
from .gallery import Neighbour
from .marks import with_visible_mark
from .signed_images import signed_png

if TYPE_CHECKING:
    from modeling_speech2face import Speech2FacePipelineOutput

SHOWN_NEAREST = 6


@dataclass
class VoiceResult:
    """How far the faces of one voice are, as HTML.

    Args:
        title: whose, if there are two voices; "" for one.
        wanted: how many faces there will be.
        seed: by which they are drawn.
        marked: the faces that are drawn, with their visible mark.
        figures: the same as HTML.
        rest: what comes with the last face: average, certainty, the cast's nearest, downloads.
    """

    title: str
    wanted: int
    seed: int
    marked: list[Image.Image] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    rest: str = ""

    @property
    def of(self) -> str:
        """Whose, within a description of a picture."""
        return f", {self.title.lower()}" if self.title else ""

    def add(self, output: "Speech2FacePipelineOutput") -> None:
        """Takes over the faces that were drawn since the last time."""
        for face in output.images[len(self.marked) :]:
            self.marked.append(with_visible_mark(face))
            alt = f"Synthetic face {len(self.marked)} of {self.wanted}{self.of}"
            self.figures.append(_figure(data_uri(self.marked[-1]), alt, classes="s2f-face"))

    def finish(self, output, nearest: Sequence[Neighbour], gallery) -> None:
        """Takes over the whole output, and the nearest faces of a `Gallery`."""
        self.add(output)
        output = marked_output(output, self.marked)
        level = 4 if self.title else 3
        self.rest = (
            _summary(output, self.of)
            + _nearest(nearest, texts.nearest(len(gallery), gallery.alike), level, self.of)
            + _downloads(output, f"speech2face-seed-{self.seed}")
        )


def marked_output(
    output: "Speech2FacePipelineOutput", faces: list[Image.Image]
) -> "Speech2FacePipelineOutput":
    """The output with the visible mark on its average and certainty, and with marked `faces`."""
    certainty = output.certainty and with_visible_mark(output.certainty)
    average = with_visible_mark(output.average_face)
    return replace(output, images=faces, average_face=average, certainty=certainty)


def results_page(results: Sequence[VoiceResult], refusal: str = "") -> str:
    """The right side of the page.

    Args:
        results: of one voice or two.
        refusal: a sentence, if it cannot go on.

    Returns:
        HTML.
    """
    alert = f"<p class='s2f-alert' role='alert'>{escape(refusal)}</p>" if refusal else ""
    drawn = sum(len(result.figures) for result in results)
    if refusal and not drawn:
        return alert
    wanted = sum(result.wanted for result in results)
    status = f"{drawn} face{'' if drawn == 1 else 's'} drawn"
    if drawn < wanted:
        status = f"{drawn} of {wanted} faces are drawn"
    return (
        f"{alert}<p class='s2f-note' role='status'>{status}</p>"
        f"<div class='s2f-voices s2f-of-{len(results)}'>{''.join(map(_voice, results))}</div>"
    )


def example_page(result: VoiceResult) -> str:
    """The right side before the visitor has drawn anything: somebody else's faces, or places."""
    note = texts.EXAMPLE if result.figures else texts.EXAMPLE_SOON
    return f"<p class='s2f-note'>{note}</p><div class='s2f-voices'>{_voice(result)}</div>"


def _voice(result: VoiceResult) -> str:
    heading = f"<h3>{escape(result.title)}</h3>" if result.title else ""
    waiting = "<div class='s2f-face s2f-waiting' aria-hidden='true'></div>"
    faces = "".join(result.figures) + waiting * (result.wanted - len(result.figures))
    return (
        f"<section class='s2f-voice' aria-label='Faces{result.of}'>{heading}"
        f"<div class='s2f-faces s2f-count-{result.wanted}'>{faces}</div>{result.rest}</section>"
    )


def _summary(output: "Speech2FacePipelineOutput", of: str) -> str:
    told = f"<p class='s2f-told'>{escape(output.told)}</p>" if output.told else ""
    average = data_uri(output.average_face)
    figures = _figure(average, f"Average face{of}, synthetic", texts.AVERAGE)
    if output.certainty is not None:
        scale = (
            "<span class='s2f-scale' role='img' aria-label='Scale: dark means that faces differ, "
            "bright that they are the same'></span>"
            "<span class='s2f-ends'><span>they differ</span><span>all the same</span></span>"
        )
        alt = f"Map of where the faces agree{of}"
        figures += _figure(data_uri(output.certainty), alt, scale + texts.CERTAINTY)
    return f"<div class='s2f-summary'>{figures}{told}</div>"


def _nearest(nearest: Sequence[Neighbour], note: str, level: int, of: str) -> str:
    faces = "".join(
        _figure(
            # No file format with provenance: this was rendered, not generated from the voice.
            data_uri(with_visible_mark(neighbour.face, "invented"), "JPEG", quality=90),
            f"Invented person, number {place} by similarity{of}",
            f"<strong>{neighbour.similarity:.2f}</strong>".replace("-", "−"),
        )
        for place, neighbour in enumerate(nearest, 1)
    )
    return (
        f"<h{level} class='s2f-part'>Nearest in an invented cast</h{level}>"
        f"<div class='s2f-nearest'>{faces}</div><p class='s2f-note'>{note}</p>"
    )


def _downloads(output: "Speech2FacePipelineOutput", name: str) -> str:
    from modeling_speech2face import contact_sheet, with_scale

    sheet = data_uri(contact_sheet(output))
    links = f"<a class='s2f-link' download='{name}.png' href='{sheet}'>Download the sheet</a>"
    if output.certainty is not None:
        certainty = data_uri(with_scale(output.certainty))
        links += (
            f"<a class='s2f-link s2f-quiet' download='{name}-certainty.png' href='{certainty}'>"
            "Download the certainty</a>"
        )
    return f"<p class='s2f-downloads'>{links}</p>"


def _figure(source: str, alt: str, caption: str = "", classes: str = "") -> str:
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure class='{classes}'><img src='{source}' alt='{escape(alt)}'>{below}</figure>"


def data_uri(image: Image.Image, format: str = "PNG", **options) -> str:
    """A picture as text; a PNG keeps the provenance that the pipeline gave it, and is signed."""
    if format == "PNG":
        content = signed_png(image)
    else:
        file = io.BytesIO()
        image.save(file, format, **options)
        content = file.getvalue()
    data = base64.b64encode(content).decode()
    return f"data:image/{format.lower()};base64,{data}"
