"""From a waveform to faces, on whatever machine this is: CPU, GPU, or a Space's ZeroGPU."""

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np

from modeling_speech2face import Speech2FacePipeline, Speech2FacePipelineOutput

from .gallery import Gallery, Neighbour
from .limits import DRAWING_SECONDS, Refusal, Settings


def on_gpu(function):
    """Gives a function a GPU for as long as it runs, on ZeroGPU; anywhere else it stays as it is.

    The package `spaces` is there on ZeroGPU and needed nowhere else.
    """
    if find_spec("spaces") is None:
        return function
    import spaces

    return spaces.GPU(function)


class Artist:
    """The pipeline and the gallery, loaded once.

    Args:
        pipeline (`Speech2FacePipeline`, *optional*): what draws; by default that of
            `load_pipeline`.
    """

    def __init__(self, pipeline: Speech2FacePipeline | None = None):
        self.pipeline = pipeline or load_pipeline()
        self.pipeline.set_progress_bar_config(disable=True)
        encoder = self.pipeline.voice_encoder
        mean = encoder.face_embedding_mean.float().cpu().numpy()
        self.gallery = Gallery(mean, encoder.config.face_recogniser)
        self.draw, self.nearest = on_gpu(self._draw), on_gpu(self._nearest)

    @property
    def sampling_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.pipeline.feature_extractor.sampling_rate

    def _draw(
        self, waveform: np.ndarray, settings: Settings
    ) -> Iterator[Speech2FacePipelineOutput]:
        """Draws the faces of a voice, and hands out each at once.

        Args:
            waveform (array `(samples,)`): mono, -1 to 1.
            settings (`Settings`): as checked.

        Yields:
            `Speech2FacePipelineOutput`, as `Speech2FacePipeline.stream` does.

        Raises:
            NoSpeechError: nobody speaks.
            Refusal: it takes longer than one visitor may have.
        """
        import torch

        started = time.monotonic()
        for output in self.pipeline.stream(
            waveform,
            self.sampling_rate,
            settings.decoder,
            settings.exaggeration,
            settings.num_images,
            settings.num_inference_steps,
            settings.guidance_scale,
            torch.Generator().manual_seed(settings.seed),
        ):
            yield output
            if output.average_face is None and time.monotonic() - started > DRAWING_SECONDS:
                raise Refusal(
                    f"This took longer than {DRAWING_SECONDS} s: ask for fewer faces or steps, or "
                    "come back when fewer people are here."
                )

    def _nearest(self, waveform: np.ndarray, count: int) -> list[Neighbour]:
        """The `count` faces of the gallery that are nearest to what a voice (samples,) predicts."""
        import torch

        with torch.no_grad():
            prediction = self.pipeline.voice_encoder.embed_recording(
                waveform, self.sampling_rate, self.pipeline.feature_extractor
            )
        return self.gallery.nearest(prediction.float().cpu().numpy(), count)


def load_pipeline() -> Speech2FacePipeline:
    """The checkpoint that SPEECH2FACE_CHECKPOINT names, or the bundled one; on a GPU if any."""
    import torch

    checkpoint = os.environ.get("SPEECH2FACE_CHECKPOINT")  # a folder or a repository on the Hub
    if checkpoint:
        pipeline = Speech2FacePipeline.from_pretrained(checkpoint)
    else:
        pipeline = Speech2FacePipeline.from_demo()
    return pipeline.to("cuda") if torch.cuda.is_available() else pipeline
