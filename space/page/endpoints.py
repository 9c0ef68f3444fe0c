"""What happens on the server when somebody clicks, or calls the page from code."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import gradio as gr
import numpy as np
from PIL import Image

from . import texts
from .drawing import Artist
from .errors import errors_in_one_sentence, sentence_of
from .limits import MAX_NEAREST, Refusal, Settings, checked_settings, whole_number
from .marks import with_visible_mark
from .results import SHOWN_NEAREST, VoiceResult, example_page, marked_output, results_page
from .signed_images import signed_png
from .uploads import EXAMPLES, Uploads, checked_path, path_of, read_voice, wav_of

EXAMPLE_SECONDS = 0.2  # between two looks whether it is drawn


class Page(gr.Blocks):
    """Blocks that refuse, in one sentence, what no component can take.

    `endpoints` are the functions behind it, once they are there.
    """

    endpoints: "Endpoints"

    async def preprocess_data(self, block_fn, inputs, *args, **kwargs):
        """As gradio's, which would fetch what lies at an address, and try to delete a folder."""
        with errors_in_one_sentence():
            for path in _paths_in(inputs):
                checked_path(path)
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except gr.Error:
            raise
        except Exception:
            sentence = "The request cannot be read: upload the recording here, and see the API."
            raise gr.Error(sentence, print_exception=False) from None


def _paths_in(value) -> Iterator[str]:
    """The paths of all files that a request names, at any depth."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _paths_in(inner)


class Endpoints:
    """The functions behind the page and its API.

    Args:
        artist (`Artist`): what draws.
    """

    def __init__(self, artist: Artist):
        self.artist = artist
        self.uploads = Uploads()
        self._example: str | None = None  # "" if it could not be drawn

    def draw_example(self) -> None:
        """Draws what the page shows before the first click; that also warms everything up."""
        try:
            settings = checked_settings()
            result = VoiceResult("", settings.num_images, settings.seed)
            waveform = read_voice(next(iter(EXAMPLES)), self.artist.sampling_rate)
            for drawn in self.artist.draw([waveform], settings):
                result.add(drawn.output)
            self._example = example_page(result)
        except Exception as error:  # the page serves without one
            sentence_of(error)  # logs it
            self._example = ""

    async def example(self) -> AsyncIterator[str]:
        """What the page shows to whoever opens it: the example, or first that it will come."""
        if self._example is None:
            settings = checked_settings()
            yield example_page(VoiceResult("", settings.num_images, settings.seed))
        while self._example is None:  # without a thread: gradio has 40 for all visitors
            await asyncio.sleep(EXAMPLE_SECONDS)
        yield self._example

    def show(
        self,
        consent,
        voice,
        second_voice,
        num_images,
        seed,
        decoder,
        steps,
        guidance_scale,
        exaggeration,
        request: gr.Request,
    ) -> Iterator[str]:
        """The page's button: faces of one voice or two, one after the other, as HTML."""
        results: list[VoiceResult] = []
        try:
            _check_consent(consent)
            settings = checked_settings(
                num_images, seed, decoder, steps, guidance_scale, exaggeration
            )
            voices = [voice] if second_voice is None else [voice, second_voice]
            titles = [""] if len(voices) == 1 else ["First voice", "Second voice"]
            wanted = settings.num_images
            results = [VoiceResult(title, wanted, settings.seed) for title in titles]
            yield results_page(results)  # reading may have to wait until all is loaded
            waveforms = [self._heard(each, request) for each in voices]
            for drawn in self.artist.draw(waveforms, settings, SHOWN_NEAREST):
                result = results[drawn.voice]
                if drawn.output.average_face is None:
                    result.add(drawn.output)
                else:
                    result.finish(drawn.output, drawn.nearest, self.artist.gallery)
                yield results_page(results)
        except Exception as error:
            yield results_page(results, sentence_of(error))

    def generate(
        self,
        voice,
        consent=False,
        num_images=4,
        seed=0,
        decoder="diffusion",
        steps=None,
        guidance_scale=None,
        exaggeration=1.0,
    ) -> Iterator[tuple[list[str], str | None, str | None, str, str | None]]:
        """Draws faces that a listener could expect behind a voice; they are of nobody.

        Args:
            voice: a recording or a film with sound, up to 20 MB; its first two minutes are used.
            consent: True: this is your own voice or its owner lets you use it, and no child's.
            num_images: how many faces, 1 to 8.
            seed: the same seed and voice give the same faces.
            decoder: "diffusion" for varied faces, "normalized" for the paper's, average-looking.
            steps: denoising steps, 1 to 30; None for the checkpoint's. Diffusion only.
            guidance_scale: 1 to 5, more follows the voice more closely; None for the checkpoint's.
            exaggeration: 0.25 to 2.5, away from the mean face or towards it.

        Yields:
            The faces so far; and with the last, their average, where they agree, what the voice
            tells in words, and one sheet of all. Every picture carries its provenance.
        """
        from modeling_speech2face import contact_sheet

        with errors_in_one_sentence(), self._used_once(consent, voice) as waveform:
            settings: Settings = checked_settings(
                num_images, seed, decoder, steps, guidance_scale, exaggeration
            )
            faces: list[Image.Image] = []
            files: list[str] = []
            for drawn in self.artist.draw([waveform], settings):
                output = drawn.output
                faces += [with_visible_mark(face) for face in output.images[len(faces) :]]
                files += [self._signed(face, "face") for face in faces[len(files) :]]
                if output.average_face is None:
                    yield list(files), None, None, "", None
            output = marked_output(output, faces)
            average = self._signed(output.average_face, "average")
            certainty = output.certainty and self._signed(output.certainty, "certainty")
            sheet = self._signed(contact_sheet(output), "sheet")
            yield files, average, certainty, output.told or "", sheet

    def retrieve(
        self, voice, consent=False, count=SHOWN_NEAREST
    ) -> tuple[list[tuple[Image.Image, str]], list[float]]:
        """Finds the faces of an invented cast that are nearest to what a voice predicts.

        These people do not exist, so none of them can be who is speaking. The gallery belongs to
        the page and cannot be replaced.

        Args:
            voice: a recording or a film with sound, up to 20 MB; its first two minutes are used.
            consent: True: this is your own voice or its owner lets you use it, and no child's.
            count: how many faces, 1 to 12.

        Returns:
            The faces with their similarities, the nearest first; and the similarities as numbers:
            cosines of centred embeddings, 1 for the same face.
        """
        with errors_in_one_sentence(), self._used_once(consent, voice) as waveform:
            count = whole_number("The number of faces", count, 1, MAX_NEAREST)
            nearest = self.artist.nearest(waveform, count)
            pictures = [
                (with_visible_mark(near.face, "invented"), f"similarity {near.similarity:.2f}")
                for near in nearest
            ]
            return pictures, [round(near.similarity, 4) for near in nearest]

    def sound_of_film(self, consent, film, request: gr.Request) -> str:
        """The sound track of a film, for the recorder; the film itself is deleted at once."""
        with errors_in_one_sentence(), self._used_once(consent, film) as waveform:
            sound = wav_of(waveform, self.artist.sampling_rate)
            path = self.uploads.store("voice.wav", sound)
            self.uploads.keep(path, request.session_hash)
            return str(path)

    def _signed(self, picture: Image.Image, name: str) -> str:
        """The path of a signed file of a generated picture; there never was one without."""
        return str(self.uploads.store(f"{name}.png", signed_png(picture)))

    def forget(self, request: gr.Request) -> None:
        """A page was closed: its recordings are deleted."""
        self.uploads.forget(request.session_hash)

    def _heard(self, voice, request: gr.Request) -> np.ndarray:
        path = path_of(voice)
        try:
            return read_voice(path, self.artist.sampling_rate)
        finally:
            self.uploads.keep(path, request.session_hash)

    @contextmanager
    def _used_once(self, consent, file) -> Iterator[np.ndarray]:
        """The waveform of an upload, which is deleted when it was read, and when it cannot be."""
        _check_consent(consent)
        path = path_of(file)
        try:
            waveform = read_voice(path, self.artist.sampling_rate)
        finally:
            self.uploads.release(path)
        yield waveform


def _check_consent(consent) -> None:
    if consent is not True:
        raise Refusal(texts.NO_CONSENT)
