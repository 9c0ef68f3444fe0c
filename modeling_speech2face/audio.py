"""Any media file to a mono waveform."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np

MAX_SECONDS = 600.0  # what is read of a recording; bounds memory to 40 MB at 16 kHz
MIN_SAMPLING_RATE = 4000  # Hz; below it there is no speech, and a small file lasts for hours
FFMPEG_OPTIONS = {"protocol_whitelist": "none"}  # a playlist must not open other files or hosts


class AudioError(ValueError):
    """The source cannot be read as sound; the message says why in one sentence."""


class AudioCutWarning(UserWarning):
    """Only the start of a recording is used, because it is longer than what may be read."""


def load_audio(
    source: str | Path | bytes | BinaryIO,
    sampling_rate: int = 16000,
    max_seconds: float = MAX_SECONDS,
) -> np.ndarray:
    """Decodes the first audio stream of an audio or video file, in any format FFmpeg reads.

    Args:
        source: path, content of a file, or an open binary file that can seek.
        sampling_rate (`int`): of the result, in Hz.
        max_seconds (`float`): what is longer is cut there, with a warning.

    Returns:
        `np.ndarray` `(samples,)`: mono, float32, -1 to 1.

    Raises:
        AudioError: missing, a folder, empty, corrupt, without sound, with NaN samples, or with
            less than 4000 Hz.

    Example:
        ```python
        >>> from modeling_speech2face import load_audio
        >>> load_audio("samples/librispeech-2414.flac").dtype
        dtype('float32')

        ```
    """
    if isinstance(source, (str, Path)):
        name = str(source)
        # Opened here, so that FFmpeg never takes a name for a URL or a device.
        with _open(Path(source)) as file:
            return _decode(file, name, sampling_rate, max_seconds)
    file = io.BytesIO(source) if isinstance(source, (bytes, bytearray)) else source
    return _decode(file, "the recording", sampling_rate, max_seconds)


def _open(path: Path) -> BinaryIO:
    if path.is_dir():
        raise AudioError(f"{path} is a folder: name a file in it.")
    if not path.exists():
        raise AudioError(f"{path} does not exist: check the path.")
    if not path.is_file():
        raise AudioError(f"{path} is not a regular file: name an audio or video file.")
    try:
        return path.open("rb")
    except OSError as error:
        raise AudioError(f"{path} cannot be opened: {error.strerror}.") from error


def _decode(file: BinaryIO, name: str, sampling_rate: int, max_seconds: float) -> np.ndarray:
    import av

    if file.seek(0, io.SEEK_END) == 0:
        raise AudioError(f"{name} is empty: record or download it again.")
    file.seek(0)
    try:
        with av.open(file, options=FFMPEG_OPTIONS) as container:
            if not container.streams.audio:
                raise AudioError(f"{name} has no sound: use a file with an audio stream.")
            frames = container.decode(container.streams.audio[0])
            waveform, is_longer = _to_mono(frames, sampling_rate, max_seconds)
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise AudioError(
            f"{name} cannot be decoded: it is damaged or not an audio or video file."
        ) from error
    if waveform.size == 0:
        raise AudioError(f"{name} holds no sound: record it again.")
    if not np.isfinite(waveform).all():
        raise AudioError(f"{name} contains samples that are not numbers: export it again.")
    if is_longer:
        message = f"only the first {max_seconds:g} s of {name} are used."
        warnings.warn(message, AudioCutWarning, stacklevel=3)
    return waveform


def _to_mono(frames, sampling_rate: int, max_seconds: float) -> tuple[np.ndarray, bool]:
    """Mixes and resamples decoded frames; also says whether there was more than `max_seconds`."""
    import av

    most = round(max_seconds * sampling_rate)

    def flush(resampler) -> list[np.ndarray]:
        rest = resampler.resample(None) if resampler else []
        return [_average_of_channels(piece) for piece in rest]

    pieces, count = [], 0
    resampler, form = None, None
    for frame in frames:
        if form != (frame.format.name, frame.layout.name, frame.sample_rate):
            # Some streams change their form on the way; a resampler takes only one.
            pieces += flush(resampler)
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            if frame.sample_rate < MIN_SAMPLING_RATE:
                raise AudioError(
                    f"the sound has {frame.sample_rate} samples a second, but speech needs at "
                    f"least {MIN_SAMPLING_RATE}: record it at 16000 Hz."
                )
            # Packed: PyAV cannot read planar sound of eight channels or more.
            resampler = av.AudioResampler(format="flt", rate=sampling_rate)
        frame.pts = None  # gaps in time stamps are not silence
        new = [_average_of_channels(piece) for piece in resampler.resample(frame)]
        pieces += new
        count += sum(piece.size for piece in new)
        if count > most:
            break
    pieces += flush(resampler)
    if not pieces:
        return np.zeros(0, dtype=np.float32), False
    waveform = np.concatenate(pieces)
    return np.ascontiguousarray(waveform[:most]), waveform.size > most


def _average_of_channels(frame) -> np.ndarray:
    """A packed frame to (samples,); FFmpeg's own mixing makes what channels share too loud."""
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1)


def resample(waveform: np.ndarray, sampling_rate: int, new_sampling_rate: int) -> np.ndarray:
    """Brings a mono waveform to another sampling rate.

    Args:
        waveform (array or tensor `(samples,)`): mono; floats from -1 to 1, or integers over the
            range of their type.
        sampling_rate (`int`): of `waveform`, in Hz.
        new_sampling_rate (`int`): of the result, in Hz.

    Returns:
        `np.ndarray` `(samples * new_sampling_rate / sampling_rate,)`: float32, -1 to 1.

    Raises:
        AudioError: not mono, empty, with NaN samples, or with a sampling rate below 4000 Hz.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or waveform.size == 0:
        raise AudioError(
            f"expected a mono waveform of shape (samples,), got shape {waveform.shape}: average "
            "its channels first."
        )
    if not sampling_rate or sampling_rate <= 0:
        raise AudioError("a waveform needs its sampling_rate: pass it in Hz.")
    if np.issubdtype(waveform.dtype, np.integer):
        limits = np.iinfo(waveform.dtype)
        zero = 0 if limits.min else (limits.max + 1) // 2  # unsigned: silence is in the middle
        waveform = (waveform - float(zero)) / ((limits.max - limits.min + 1) / 2)
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    if not np.isfinite(waveform).all():
        raise AudioError("the waveform contains samples that are not numbers: repair it first.")
    if sampling_rate == new_sampling_rate:
        return waveform
    import av

    frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
    frame.sample_rate = round(sampling_rate)
    return _to_mono([frame], new_sampling_rate, max_seconds=float(waveform.size))[0]
