"""Any media file to a mono waveform.

A file is a stranger's: small ones may unfold to hours or gigabytes, and what they claim may be
absurd. So reading stops at `MAX_SECONDS` of sound or at `MAX_WORK`, whichever comes first, and says
so; a process takes at most some 150 MB, whatever the file (`python -m tests.fuzz_audio`). Pictures
and films in a file are not decoded, other files and hosts that it names are not opened, and nothing
is written.
"""

import functools
import io
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np

MAX_SECONDS = 600.0  # what is read of a recording; bounds memory to 40 MB at 16 kHz
MIN_SAMPLING_RATE = 4000  # Hz; below it there is no speech, and a small file lasts for hours
MAX_SAMPLING_RATE = 768_000  # Hz; beyond it no sound is recorded, and a resampler takes gigabytes
MAX_CHANNELS = 64  # which FFmpeg's resampler takes
MAX_WORK = 5 * 10**8  # decoded samples of all channels, 5 s of a core; 10 min at 96 kHz in 8
FRAME_WORK = 4000  # samples in whose time a frame is handled, however few it holds
MAX_FRAME = 2**22  # samples of a channel; more are a header's claim, for which memory is taken


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
        AudioError: missing, a folder or a device, empty, corrupt, without sound, with NaN samples,
            with less than 4000 Hz or more than 768000, or with more than 64 channels.

    Warns:
        AudioCutWarning: there is more than `max_seconds`, or it takes too much work to decode.

    Example:
        ```python
        >>> from modeling_speech2face import load_audio
        >>> load_audio("samples/librispeech-2414.flac").dtype
        dtype('float32')

        ```
    """
    if isinstance(source, (str, Path)):
        # Opened here, so that FFmpeg never takes a name for a URL or a device.
        with _open(Path(source)) as file:
            return _decode(file, _named(source), sampling_rate, max_seconds)
    file = io.BytesIO(source) if isinstance(source, (bytes, bytearray)) else source
    return _decode(file, "the recording", sampling_rate, max_seconds)


def _open(path: Path) -> BinaryIO:
    name = _named(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(f"{name} does not exist: check the path.") from error
    except (OSError, ValueError) as error:  # also a path with a NUL
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{name} cannot be opened ({reason}): name another file.") from error
    if stat.S_ISDIR(mode):
        raise AudioError(f"{name} is a folder: name a file in it.")
    raise AudioError(f"{name} is not a regular file: name an audio or video file.")


def _named(path: str | Path) -> str:
    """A path for a message of one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(path))


@functools.cache
def _options() -> dict[str, str]:
    """FFmpeg's: no playlist opens other files or hosts, and no picture is decoded to look at it."""
    import av

    decoders = []
    for name in sorted(av.codecs_available):
        try:
            if av.Codec(name, "r").type == "audio":
                decoders.append(name)
        except av.codec.codec.UnknownCodecError:  # it only encodes
            pass
    return {"protocol_whitelist": "none", "codec_whitelist": ",".join(decoders)}


class _Source:
    """A file that PyAV reads: a damaged header sends it to places that are none."""

    def __init__(self, file: BinaryIO):
        self.file, self.read, self.tell = file, file.read, file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1  # FFmpeg's sign; of an exception PyAV would print the traceback


def _decode(file: BinaryIO, name: str, sampling_rate: int, max_seconds: float) -> np.ndarray:
    import av

    if file.seek(0, io.SEEK_END) == 0:
        raise AudioError(f"{name} is empty: record or download it again.")
    file.seek(0)
    try:
        # Titles in another encoding than UTF-8 are no fault of the sound.
        with av.open(_Source(file), options=_options(), metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise AudioError(f"{name} has no sound: use a file with an audio stream.")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise AudioError(f"{name} has a sound of unknown coding: export it as WAV or FLAC.")
            stream.codec_context.options = {"max_samples": str(MAX_FRAME)}
            frames = container.decode(stream)
            waveform, is_longer = _to_mono(frames, sampling_rate, max_seconds)
    except AudioError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:  # the latter two are the file object's
        raise AudioError(
            f"{name} cannot be decoded, it is damaged or not an audio or video file: export it "
            "again."
        ) from error
    if waveform.size == 0:
        raise AudioError(f"{name} holds no sound: record it again.")
    if not np.isfinite(waveform).all():
        raise AudioError(f"{name} contains samples that are not numbers: export it again.")
    if is_longer:
        message = f"only the first {waveform.size / sampling_rate:g} s of {name} are used."
        warnings.warn(message, AudioCutWarning, stacklevel=3)
    return waveform


def _to_mono(frames, sampling_rate: int, max_seconds: float) -> tuple[np.ndarray, bool]:
    """Mixes and resamples decoded frames; also says whether there was more than may be read."""
    import av

    most = round(max_seconds * sampling_rate)

    def flush(resampler) -> list[np.ndarray]:
        rest = resampler.resample(None) if resampler else []
        return [_average_of_channels(piece) for piece in rest]

    pieces, count, work = [], 0, 0
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
            if frame.sample_rate > MAX_SAMPLING_RATE:
                raise AudioError(
                    f"the sound claims {frame.sample_rate} samples a second, more than "
                    f"{MAX_SAMPLING_RATE}: export it again at 48000 Hz."
                )
            if frame.layout.nb_channels > MAX_CHANNELS:
                raise AudioError(
                    f"the sound has {frame.layout.nb_channels} channels, more than "
                    f"{MAX_CHANNELS}: mix it to one."
                )
            # Packed: PyAV cannot read planar sound of eight channels or more.
            resampler = av.AudioResampler(format="flt", rate=sampling_rate)
        frame.pts = None  # gaps in time stamps are not silence
        new = [_average_of_channels(piece) for piece in resampler.resample(frame)]
        pieces += new
        count += sum(piece.size for piece in new)
        work += FRAME_WORK + frame.samples * frame.layout.nb_channels
        if count > most or work > MAX_WORK:
            break
    pieces += flush(resampler)
    if not pieces:
        return np.zeros(0, dtype=np.float32), False
    waveform = np.concatenate(pieces)
    return np.ascontiguousarray(waveform[:most]), waveform.size > most or work > MAX_WORK


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
        AudioError: not mono, empty, with NaN samples, or with a sampling rate below 4000 Hz or
            above 768000.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or waveform.size == 0:
        raise AudioError(
            f"expected a mono waveform of shape (samples,), got shape {waveform.shape}: average "
            "its channels first."
        )
    if not sampling_rate or not sampling_rate > 0:  # nor NaN
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
    frame.sample_rate = round(min(sampling_rate, 2 * MAX_SAMPLING_RATE))  # an int of C
    return _to_mono([frame], new_sampling_rate, max_seconds=float(waveform.size))[0]
