"""From waveforms to the input of the voice encoder."""

import math
from numbers import Real

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin


class Speech2FaceFeatureExtractor(FeatureExtractionMixin):
    """Loops short speech to the length of a clip, normalises it, and pads a batch with a mask.

    Args:
        sampling_rate (`int`): the only sampling rate that is accepted, in Hz.
        clip_seconds (`float`): speech shorter than this is repeated until it is that long, as in
            section 4 of the paper (https://arxiv.org/abs/1905.09773).
        do_normalize (`bool`): whether each waveform is brought to zero mean and unit variance.

    Raises:
        ValueError: a sampling rate or a length that is no number above 0.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        sampling_rate: int = 16000,
        clip_seconds: float = 6.0,
        do_normalize: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in (("sampling_rate", sampling_rate), ("clip_seconds", clip_seconds)):
            if not isinstance(value, Real) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0, got {value!r}.")
        self.sampling_rate = sampling_rate
        self.clip_seconds = clip_seconds
        self.do_normalize = do_normalize

    @property
    def clip_samples(self) -> int:
        """Length of a clip in samples."""
        return round(self.clip_seconds * self.sampling_rate)

    def __call__(
        self,
        raw_speech: np.ndarray | list,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Prepares one waveform or a batch of them.

        Args:
            raw_speech: mono waveform `(samples,)` as array, tensor or list of floats; or a batch: a
                list of such waveforms or an array `(batch, samples)`.
            sampling_rate (`int`): of `raw_speech`, in Hz; must be the extractor's own.
            return_tensors (`str`): "pt" or "np".

        Returns:
            `BatchFeature` with `input_values` `(batch, samples)`, float32, and `attention_mask`
            `(batch, samples)`, 1 where there is speech and 0 where there is padding.

        Raises:
            ValueError: another sampling rate, or a waveform that is empty, not mono or not finite.
        """
        if sampling_rate != self.sampling_rate:
            raise ValueError(
                f"expected sampling_rate={self.sampling_rate} Hz, got {sampling_rate}; resample "
                "the waveform first, for example with modeling_speech2face.resample."
            )
        waveforms = [self._prepare(waveform) for waveform in _as_batch(raw_speech)]
        lengths = np.array([waveform.size for waveform in waveforms])
        input_values = np.zeros((len(waveforms), lengths.max()), dtype=np.float32)
        for row, waveform in zip(input_values, waveforms, strict=True):
            row[: waveform.size] = waveform
        attention_mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        return BatchFeature(
            {"input_values": input_values, "attention_mask": attention_mask},
            tensor_type=return_tensors,
        )

    def _prepare(self, waveform) -> np.ndarray:
        waveform = np.asarray(waveform, dtype=np.float32)
        if waveform.ndim != 1 or waveform.size == 0:
            raise ValueError(
                f"expected a mono waveform of shape (samples,), got shape {waveform.shape}; "
                "average its channels first."
            )
        if not np.isfinite(waveform).all():
            raise ValueError("the waveform contains NaN or infinite samples; repair it first.")
        if waveform.size < self.clip_samples:
            waveform = np.resize(waveform, self.clip_samples)  # np.resize repeats
        if self.do_normalize:
            waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        return waveform


def _as_batch(raw_speech) -> list:
    """A list of waveforms, whether one or several came in."""
    if isinstance(raw_speech, (list, tuple)):
        several = len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
        return list(raw_speech) if several else [raw_speech]
    return list(raw_speech) if raw_speech.ndim == 2 else [raw_speech]
