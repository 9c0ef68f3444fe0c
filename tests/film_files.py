"""Small video files of any kind, written for a test."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SAMPLING_RATE = 16000


def tone(seconds: float, rate: int = SAMPLING_RATE, hertz: float = 300.0) -> np.ndarray:
    """(samples,) a soft tone."""
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def flat_pictures(greys: Sequence[int], height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Pictures of one grey each."""
    return [np.full((height, width, 3), grey, np.uint8) for grey in greys]


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray] = (),
    fps: float = 25,
    times_s: Sequence[float] | None = None,
    sounds: Sequence[np.ndarray | None] = (),
    rate: int = SAMPLING_RATE,
    layout: str = "mono",
    sound_start_s: float = 0.0,
    codec: str = "mpeg4",
    audio_codec: str | None = None,
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    pixel_shape: Fraction | None = None,
    options: dict | None = None,
) -> Path:
    """Writes pictures (H, W, 3) and streams of sound (samples,), each placed by its time stamps."""
    lossy = "aac" if path.suffix in (".mp4", ".mov", ".ts") else "pcm_s16le"
    with av.open(str(path), "w") as container:
        stream = None
        if len(pictures):
            rational = Fraction(fps).limit_denominator(1001)
            stream = container.add_stream(codec, rate=rational, options=options or {})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = pix_fmt
            stream.codec_context.time_base = Fraction(1, 24000)
            stream.codec_context.bit_rate = 4_000_000
            if pixel_shape is not None:
                stream.codec_context.sample_aspect_ratio = pixel_shape
            if rotation:
                stream.set_display_rotation(rotation)
        voices = [container.add_stream(audio_codec or lossy, rate=rate) for _ in sounds]
        for voice in voices:
            voice.layout = layout
        for k, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            time_s = k / fps if times_s is None else times_s[k]
            frame.pts, frame.time_base = round(time_s * 24000), Fraction(1, 24000)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
        for voice, sound in zip(voices, sounds, strict=True):
            _write_sound(container, voice, sound, rate, layout, sound_start_s)
    return path


def _write_sound(container, stream, sound, rate: int, layout: str, start_s: float) -> None:
    samples = np.clip(np.asarray(sound) * 32767, -32768, 32767).astype(np.int16)
    channels = av.AudioLayout(layout).nb_channels
    for first in range(0, len(samples), 1024):
        part = np.repeat(samples[first : first + 1024], channels)[None]  # packed
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = first + round(start_s * rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def as_frames(pictures: Sequence[np.ndarray], first: int = 0):
    """Pictures (H, W, 3) as `read_frames` gives them, without a file."""
    from dataset_scripts.video import Limits, VideoFrame, VideoInfo

    info = VideoInfo(0, (1,), 0.0, None, 64, 48, 1.0, float("inf"))
    for k, picture in enumerate(pictures, start=first):
        decoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        yield VideoFrame(k, k / 25, False, decoded, info, Limits())
