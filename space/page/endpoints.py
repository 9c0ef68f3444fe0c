"""What happens on the server when somebody clicks, or calls the page from code."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from modeling_speech2face import AudioError, NoSpeechError, contact_sheet

from . import texts
from .drawing import Artist
from .limits import MAX_NEAREST, Refusal, Settings, checked_settings, whole_number
from .marks import with_visible_mark
from .results import SHOWN_NEAREST, VoiceResult, example_page, marked_output, results_page
from .uploads import EXAMPLES, GONE, Uploads, path_of, read_voice

UNEXPECTED = "Something went wrong on the server: try again, or with another recording."

logger = logging.getLogger(__name__)


def sentence_of(error: Exception) -> str:
    """What a visitor reads of an error; of one that nobody foresaw, the log has where it was.

    Neither the message nor any value of it is logged: they might tell of a recording.
    """
    if isinstance(error, gr.Error):
        return error.message
    if isinstance(error, (Refusal, AudioError, NoSpeechError)):
        sentence = str(error)
        return sentence[:1].upper() + sentence[1:]
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("unexpected %s\n%s", type(error).__name__, where)
    return UNEXPECTED


@contextmanager
def errors_in_one_sentence():
    """Turns whatever is raised within into a `gr.Error`, which gradio shows and does not log."""
    try:
        yield
    except Exception as error:
        raise gr.Error(sentence_of(error), print_exception=False) from None


class Page(gr.Blocks):
    """Blocks that refuse, in one sentence, what no component can take."""

    async def preprocess_data(self, block_fn, inputs, *args, **kwargs):
        """As gradio's, which would fetch what lies at an address, and try to delete a folder."""
        with errors_in_one_sentence():
            for path in _paths_in(inputs):
                if "://" in path:
                    raise Refusal("Nothing is fetched from elsewhere: upload the recording here.")
                if not Path(path).is_file():
                    raise Refusal(GONE)
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

    def example(self) -> str:
        """What the page shows before the first click; drawing it also warms everything up."""
        settings = checked_settings()
        result = VoiceResult("", settings.num_images, settings.seed)
        waveform = read_voice(next(iter(EXAMPLES)), self.artist.sampling_rate)
        for output in self.artist.draw(waveform, settings):
            result.add(output)
        return example_page(result)

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
            waveforms = [self._heard(each, request) for each in voices]
            titles = [""] if len(voices) == 1 else ["First voice", "Second voice"]
            wanted = settings.num_images
            results = [VoiceResult(title, wanted, settings.seed) for title in titles]
            yield results_page(results)
            for waveform, result in zip(waveforms, results, strict=True):
                for output in self.artist.draw(waveform, settings):
                    if output.average_face is None:
                        result.add(output)
                    else:
                        nearest = self.artist.nearest(waveform, SHOWN_NEAREST)
                        result.finish(output, nearest, self.artist.gallery)
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
    ) -> Iterator[tuple[list[Image.Image], Image.Image | None, Image.Image | None, str, object]]:
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
        with errors_in_one_sentence(), self._used_once(consent, voice) as waveform:
            settings: Settings = checked_settings(
                num_images, seed, decoder, steps, guidance_scale, exaggeration
            )
            faces: list[Image.Image] = []
            for output in self.artist.draw(waveform, settings):
                faces += [with_visible_mark(face) for face in output.images[len(faces) :]]
                if output.average_face is None:
                    yield list(faces), None, None, "", None
            output = marked_output(output, faces)
            told, sheet = output.told or "", contact_sheet(output)
            yield faces, output.average_face, output.certainty, told, sheet

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

    def sound_of_film(self, consent, film) -> tuple[int, np.ndarray]:
        """The sound track of a film, for the recorder; the film itself is deleted at once."""
        with errors_in_one_sentence(), self._used_once(consent, film) as waveform:
            samples = (waveform.clip(-1, 1) * 32767).astype(np.int16)
            return self.artist.sampling_rate, samples

    def forget(self, request: gr.Request) -> None:
        """A page was closed: its recordings are deleted."""
        self.uploads.forget(request.session_hash)

    def _heard(self, voice, request: gr.Request) -> np.ndarray:
        path = path_of(voice)
        self.uploads.keep(path, request.session_hash)
        return read_voice(path, self.artist.sampling_rate)

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
