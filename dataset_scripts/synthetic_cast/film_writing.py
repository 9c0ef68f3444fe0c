"""Writes a film with PyAV: pictures at given times and sound, in any of some codecs."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

SAMPLING_RATE = 16000  # Hz, of the sound that comes in
MP3_DELAY = 1105  # samples by which encoder and decoder are late; AVI cannot say so


@dataclass(frozen=True)
class Encoding:
    """How a film is written.

    Attributes:
        suffix: of the file: ".mp4", ".mkv", ".webm" or ".avi".
        video_codec: "libx264", "mpeg4" or "libvpx-vp9".
        quality: the codec's own scale: crf (H.264, VP9) or quantiser (MPEG-4); higher is rougher.
        audio_codec: "aac", "libopus" or "libmp3lame".
        audio_rate: Hz.
        audio_channels: 1 or 2.
        audio_bit_rate: bits a second.
    """

    suffix: str
    video_codec: str
    quality: int
    audio_codec: str
    audio_rate: int
    audio_channels: int
    audio_bit_rate: int


def write_film(
    path: Path,
    encoding: Encoding,
    pictures: Iterable[np.ndarray],
    times_s: np.ndarray,
    rate: Fraction,
    sound: np.ndarray,
) -> None:
    """Writes pictures and sound as a video file.

    Args:
        path: of the file.
        encoding: how.
        pictures: (height, width, 3) uint8 RGB each, as many as there are times.
        times_s: (frames,) when each picture is shown, from 0, seconds.
        rate: frames a second, nominally.
        sound: (samples,) float32 mono at 16 kHz; sample 0 is heard with the first picture.
    """
    import av

    delay = MP3_DELAY if encoding.suffix == ".avi" and encoding.audio_codec == "libmp3lame" else 0
    is_constant = bool(np.allclose(np.diff(times_s), 1 / float(rate), atol=1e-6))
    time_base = 1 / rate if is_constant else Fraction(1, 1000)
    with av.open(str(path), "w", format=_FORMATS[encoding.suffix]) as container:
        container.flags |= 0x400  # AVFMT_FLAG_BITEXACT: no date, no version in the file
        video = container.add_stream(encoding.video_codec, rate=rate)
        video.options = _video_options(encoding)
        video.codec_context.thread_count = 1
        video.codec_context.flags |= 1 << 23  # AV_CODEC_FLAG_BITEXACT
        audio = _add_audio(container, encoding)
        started = False
        for picture, time_s in zip(pictures, times_s, strict=True):
            if not started:
                video.height, video.width = picture.shape[:2]
                video.pix_fmt = "yuv420p"
                video.codec_context.time_base = time_base
                started = True
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.time_base = time_base
            frame.pts = round(Fraction(float(time_s)) / time_base)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for frame in (*_audio_frames(sound, encoding, delay), None):
            for packet in audio.encode(frame):
                if delay:  # else the muxer moves the pictures, that nothing begin before 0
                    packet.pts += delay
                    packet.dts += delay
                container.mux(packet)


_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}


def _video_options(encoding: Encoding) -> dict[str, str]:
    quality = str(encoding.quality)
    if encoding.video_codec == "libx264":
        # x264's macroblock tree reads what nobody wrote: with it, bytes differ from run to run.
        return {"crf": quality, "preset": "veryfast", "x264-params": "mbtree=0"}
    if encoding.video_codec == "libvpx-vp9":
        return {"crf": quality, "b": "0", "deadline": "good", "cpu-used": "5"}
    return {"qmin": quality, "qmax": quality}


def _add_audio(container, encoding: Encoding):
    audio = container.add_stream(encoding.audio_codec, rate=encoding.audio_rate)
    audio.layout = "stereo" if encoding.audio_channels == 2 else "mono"
    audio.bit_rate = encoding.audio_bit_rate
    audio.codec_context.flags |= 1 << 23
    return audio


def _audio_frames(sound: np.ndarray, encoding: Encoding, delay: int):
    """Yield the sound in the encoder's sampling rate and channels, without its first `delay`."""
    import av
    from scipy.signal import resample_poly

    ratio = Fraction(encoding.audio_rate, SAMPLING_RATE)
    wave = resample_poly(sound, ratio.numerator, ratio.denominator).astype(np.float32)
    wave = np.clip(wave, -1, 1)[delay:]
    layout = "stereo" if encoding.audio_channels == 2 else "mono"
    size = 1024
    for start in range(0, len(wave), size):
        block = np.tile(wave[None, start : start + size], (encoding.audio_channels, 1))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", layout)
        frame.sample_rate = encoding.audio_rate
        frame.time_base = Fraction(1, encoding.audio_rate)
        frame.pts = start
        yield frame
