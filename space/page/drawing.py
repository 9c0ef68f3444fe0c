"""From a waveform to faces, on whatever machine this is: CPU, GPU, or a Space's ZeroGPU."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from .errors import errors_in_one_sentence
from .gallery import Gallery, Neighbour
from .limits import DRAWING_SECONDS, Refusal, Settings
from .weights import announced_weights, load_pipeline, weights_of

if TYPE_CHECKING:
    from modeling_speech2face import Speech2FacePipeline, Speech2FacePipelineOutput


def is_zero_gpu() -> bool:
    """Whether this is a Space that is lent a GPU for single calls."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


@dataclass
class Drawn:
    """What is drawn of one voice so far.

    Args:
        voice (`int`): which of the voices, from 0.
        output (`Speech2FacePipelineOutput`): as `Speech2FacePipeline.stream` yields it, without
            embeddings: a GPU that was lent takes its tensors with it.
        nearest (`list[Neighbour]`): with the last output of a voice, if they were asked for.
    """

    voice: int
    output: "Speech2FacePipelineOutput"
    nearest: list[Neighbour] = field(default_factory=list)


class Artist:
    """The pipeline and the gallery, loaded once; whoever comes before that waits for them.

    Args:
        pipeline (`Speech2FacePipeline`, *optional*): what draws; else `load` fetches it.
    """

    def __init__(self, pipeline: "Speech2FacePipeline | None" = None):
        self.weights = announced_weights() if pipeline is None else weights_of(pipeline)
        self._loaded = threading.Event()
        # The pipeline's scheduler has a state. Never held while a visitor is waited for: who leaves
        # in the middle would take it along.
        self._one_at_a_time = threading.Lock()
        if pipeline is not None:
            self._take(pipeline)

    def load(self) -> None:
        """Loads the weights, if they are not yet.

        On ZeroGPU before the page is launched, and in the main thread: the GPU's package then takes
        over what lies on "cuda", and the functions that need one.

        Raises:
            CheckpointError: they cannot be loaded.
            ValueError: the gallery belongs to another teacher.
            RuntimeError: a torch without CUDA on ZeroGPU.
        """
        if self._loaded.is_set():
            return
        if is_zero_gpu():
            _check_torch()  # the package itself does not say what it lacks
            import spaces  # noqa: F401  # before torch is asked for a GPU

        self._take(load_pipeline(self.weights.name))

    def _take(self, pipeline: "Speech2FacePipeline") -> None:
        pipeline.set_progress_bar_config(disable=True)
        encoder = pipeline.voice_encoder
        mean = encoder.face_embedding_mean.float().cpu().numpy()
        self._pipeline, self._gallery = pipeline, Gallery(mean, encoder.config.face_recogniser)
        self._draw_somewhere, self._look_up_somewhere = _on_gpu(self._draw), _on_gpu(self._look_up)
        self._loaded.set()

    @property
    def sampling_rate(self) -> int:
        """Of the waveforms, in Hz."""
        self._loaded.wait()
        return self._pipeline.feature_extractor.sampling_rate

    @property
    def gallery(self) -> Gallery:
        """The faces of the cast."""
        self._loaded.wait()
        return self._gallery

    def draw(
        self, waveforms: Sequence[np.ndarray], settings: Settings, nearest: int = 0
    ) -> Iterator[Drawn]:
        """Draws the faces of one voice or several, and hands out each at once.

        Args:
            waveforms: of each voice, mono `(samples,)`, -1 to 1.
            settings (`Settings`): as checked.
            nearest (`int`): how many faces of the gallery to find for each.

        Yields:
            `Drawn`: after each face; and at the end of each voice, all that belongs to it.

        Raises:
            gr.Error: in a sentence: nobody speaks, or it takes longer than a click may.
        """
        self._loaded.wait()
        drawing = self._draw_somewhere(waveforms, settings, nearest)
        while True:
            with self._one_at_a_time:
                drawn = next(drawing, None)
            if drawn is None:
                return
            yield drawn

    def nearest(self, waveform: np.ndarray, count: int) -> list[Neighbour]:
        """The `count` faces of the gallery that are nearest to what a voice (samples,) predicts.

        Raises:
            gr.Error: in a sentence: nobody speaks.
        """
        self._loaded.wait()
        with self._one_at_a_time:
            return self._look_up_somewhere(waveform, count)

    def _draw(self, waveforms, settings: Settings, nearest: int) -> Iterator[Drawn]:
        import torch

        ends = time.monotonic() + DRAWING_SECONDS
        # Here, as ZeroGPU tells no visitor of any other error than gradio's.
        with errors_in_one_sentence():
            for voice, waveform in enumerate(waveforms):
                for output in self._pipeline.stream(
                    waveform,
                    self._pipeline.feature_extractor.sampling_rate,
                    settings.decoder,
                    settings.exaggeration,
                    settings.num_images,
                    settings.num_inference_steps,
                    settings.guidance_scale,
                    torch.Generator().manual_seed(settings.seed),
                ):
                    is_last = output.average_face is not None
                    found = self._look_up(waveform, nearest) if is_last and nearest else []
                    yield Drawn(voice, replace(output, face_embeddings=None), found)
                    is_done = is_last and voice == len(waveforms) - 1
                    if not is_done and time.monotonic() > ends:
                        raise Refusal(
                            f"This took longer than the {DRAWING_SECONDS} s that a click may: ask "
                            "for fewer faces or steps, or come back when fewer people are here."
                        )

    def _look_up(self, waveform: np.ndarray, count: int) -> list[Neighbour]:
        import torch

        encoder, extractor = self._pipeline.voice_encoder, self._pipeline.feature_extractor
        with errors_in_one_sentence(), torch.no_grad():
            prediction = encoder.embed_recording(waveform, extractor.sampling_rate, extractor)
        return self._gallery.nearest(prediction.float().cpu().numpy(), count)


def _on_gpu(function):
    """Gives a function a GPU for as long as it runs, on ZeroGPU; anywhere else it stays as it is.

    The package `spaces` is there on ZeroGPU and needed nowhere else.
    """
    if not is_zero_gpu():
        return function
    import spaces

    return spaces.GPU(function, duration=DRAWING_SECONDS)


def _check_torch() -> None:
    import torch

    if torch.version.cuda is None:
        raise RuntimeError(
            f"this Space has ZeroGPU, and torch {torch.__version__} cannot use it: change "
            "requirements.txt and python_version as the Space's README.md says."
        )
