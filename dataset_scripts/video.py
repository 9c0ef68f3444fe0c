"""A video file as a row of upright pictures at 25 a second, and the speech that goes with them.

Time runs from the start of the file as a player shows it: pictures and sound are placed by their
time stamps, wherever each stream begins. H, W: height and width of a picture.
"""

import contextlib
import math
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset_scripts.records import FRAMES_PER_SECOND, SAMPLING_RATE, VideoRefused

WORKING_LINES = 720  # the shorter side of larger pictures is brought to this
MAX_HOLD_S = 1.0  # a picture stands for no more than this; a longer gap has no pictures
MAX_SOUND_DRIFT_S = 0.04  # a frame of sound farther than this from the end of the last is a gap
MIN_AUDIO_RATE = 4000  # Hz; below it there is no speech, and a small file lasts for hours
MAX_CHANNELS = 64
SEEK_MARGIN_S = 3.0  # stretches that begin earlier are read from the start of the file
_ATTACHED_PICTURE = 0x0400  # FFmpeg's disposition of cover art
_GREY_FIRST_FORMATS = {
    *("gray", "yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"),
    *("yuv411p", "yuv410p", "yuv440p", "nv12", "nv21"),
}  # 8-bit formats whose first plane is the grey picture


@dataclass(frozen=True)
class Limits:
    """What one video may cost.

    Attributes:
        max_duration_s: of the stretch that is used, seconds.
        max_pixels: of a frame, as it is coded.
        max_seconds_of_work: by the clock on the wall, for all that is done with a video.
        max_undecodable_share: of a stream's packets; a worse file is refused, a better one is used
            without its damaged places.
    """

    max_duration_s: float = 3600.0
    max_pixels: int = 8192 * 4320
    max_seconds_of_work: float = 1800.0
    max_undecodable_share: float = 0.3


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a file before it is decoded.

    Attributes:
        video_stream: index of the stream of pictures.
        audio_streams: indices of the streams of sound, the default one first.
        zero_s: time stamp at which the file begins, seconds.
        duration_s: what the container claims, seconds; None if it claims nothing.
        width, height: of a frame as it is coded, pixels, before it is turned upright.
        pixel_shape: width of a coded pixel, in its heights.
        deadline: `time.monotonic()` at which the video is given up.
    """

    video_stream: int
    audio_streams: tuple[int, ...]
    zero_s: float
    duration_s: float | None
    width: int
    height: int
    pixel_shape: float
    deadline: float = field(compare=False)

    def check_deadline(self) -> None:
        """Raises `VideoRefused` once the video has taken longer than it may."""
        _check_deadline(self.deadline)


class VideoFrame:
    """A picture of the 25 that stand for a second.

    Attributes:
        index: of the picture; index / 25 s after the start of the stretch that is read.
        time_s: from the start of the file, seconds.
        is_repeat: whether the file had no new picture since the last one.
    """

    def __init__(self, index: int, time_s: float, is_repeat: bool, decoded, info, limits):
        self.index = index
        self.time_s = time_s
        self.is_repeat = is_repeat
        self._decoded = decoded  # av.VideoFrame, until it is looked at: a large one takes memory
        self._of = (info, limits)
        self._turns = 0  # quarters, counter-clockwise
        self._small_enough = None
        self._grey = None

    @property
    def _picture(self):
        """The picture in 8 bits, with square pixels, of the working size, not yet upright."""
        if self._small_enough is None:
            self._turns = round(self._decoded.rotation / 90) % 4
            self._small_enough = _normalise(self._decoded, *self._of)
            self._decoded = None
        return self._small_enough

    @property
    def grey(self) -> np.ndarray:
        """The picture in grey, (H, W) uint8."""
        if self._grey is None:
            plane = self._picture.planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            self._grey = self._upright(rows[: self._picture.height, : self._picture.width])
        return self._grey

    def rgb(self) -> np.ndarray:
        """The picture in colour, (H, W, 3) uint8."""
        return self._upright(self._picture.to_ndarray(format="rgb24", threads=1))

    def thumbnail(self, width: int, height: int) -> np.ndarray:
        """The whole picture at another size and form, (height, width, 3) uint8 BGR."""
        picture = self._picture
        if self._turns % 2:
            width, height = height, width
        small = picture.to_ndarray(
            width=width, height=height, format="bgr24", interpolation="AREA", threads=1
        )
        return self._upright(small)

    def shrunk(self, lines: int) -> tuple[np.ndarray, float]:
        """The grey picture with its shorter side brought down to `lines`.

        Returns:
            (h, w) uint8, and what a length in it is to be multiplied by to be one in `grey`.
        """
        width, height = self._picture.width, self._picture.height
        scale = min(width, height) / lines
        if scale <= 1:
            return self.grey, 1.0
        # AREA would take twice the time, and a detector looks at several scales anyway.
        small = self._picture.to_ndarray(
            width=max(1, round(width / scale)),
            height=max(1, round(height / scale)),
            format="gray8",
            interpolation="BILINEAR",
            threads=1,
        )
        return self._upright(small), scale

    def _upright(self, pixels: np.ndarray) -> np.ndarray:
        # Without FFmpeg's padding of the rows: dlib's detector overlooks faces in a padded picture.
        return np.ascontiguousarray(np.rot90(pixels, self._turns))


def probe(path: str | Path, limits: Limits | None = None) -> VideoInfo:
    """Opens a file and says what is in it, whatever its name ends in.

    Args:
        path: of the file.
        limits: what the video may cost; its time of work begins now.

    Raises:
        VideoRefused: unreadable, without pictures or sound, or with too large frames.
    """
    limits = limits or Limits()
    deadline = time.monotonic() + limits.max_seconds_of_work
    with _container(path, limits.max_pixels, deadline) as container:
        info = _describe(container, deadline)
    if not info.width:  # FFmpeg says nothing of frames beyond the limit
        with _container(path, 4 * limits.max_pixels, deadline) as container:
            info = _describe(container, deadline)
    _check_size(info.width, info.height, limits)
    return info


def _describe(container, deadline: float) -> VideoInfo:
    pictures = _stream_of_pictures(container)
    sounds = [s for s in container.streams.audio if _is_sound(s)]
    if not sounds:
        raise VideoRefused("no_audio", "the file has no stream of sound that can be decoded")
    best = container.streams.best("audio")
    sounds.sort(key=lambda s: (best is None or s.index != best.index, s.index))
    duration = container.duration
    return VideoInfo(
        video_stream=pictures.index,
        audio_streams=tuple(s.index for s in sounds),
        zero_s=_start_s(container, [pictures, *sounds]),
        duration_s=duration / 1e6 if duration and duration > 0 else None,  # microseconds
        width=pictures.codec_context.width,
        height=pictures.codec_context.height,
        pixel_shape=float(pictures.sample_aspect_ratio or 1),
        deadline=deadline,
    )


def check_duration(path: str | Path, info: VideoInfo, limits: Limits) -> None:
    """Refuses a file that is longer than the limit, not one whose header merely says so.

    Raises:
        VideoRefused: too long.
    """
    if info.duration_s is None or info.duration_s <= limits.max_duration_s:
        return  # if the header claims too little, reading the sound will tell
    with _container(path, limits.max_pixels, info.deadline) as container:
        streams = [container.streams[i] for i in (info.video_stream, info.audio_streams[0])]
        limit = limits.max_duration_s + info.zero_s
        _seek(container, limit)
        for packet in _packets(container, streams, info):
            if packet.pts is not None and packet.pts * packet.time_base > limit:
                raise _too_long(limits)


def read_frames(
    path: str | Path,
    info: VideoInfo,
    start_s: float = 0.0,
    end_s: float | None = None,
    limits: Limits | None = None,
) -> Iterator[VideoFrame]:
    """Decodes the pictures of a stretch, on a timeline of 25 a second.

    Each moment shows the picture whose time stamp is nearest. Where the file has no picture for
    more than a second, moments are left out.

    Args:
        path: of the file.
        info: as `probe` gives it.
        start_s: of the stretch, seconds; picture 0 is there.
        end_s: of the stretch, seconds; None is the end of the file, or of `limits`.
        limits: what the video may cost.

    Raises:
        VideoRefused: too slow, too large, or too little of it can be decoded.
    """
    limits = limits or Limits()
    end_s = start_s + limits.max_duration_s if end_s is None else end_s
    count = round((end_s - start_s) * FRAMES_PER_SECOND)
    pictures = _decoded_pictures(path, info, start_s, limits)
    for index, picture, is_repeat in _nearest_pictures(pictures, start_s, count):
        time_s = start_s + index / FRAMES_PER_SECOND
        yield VideoFrame(index, time_s, is_repeat, picture, info, limits)


def read_speech(
    path: str | Path,
    info: VideoInfo,
    start_s: float = 0.0,
    end_s: float | None = None,
    limits: Limits | None = None,
    stream: int | None = None,
) -> np.ndarray:
    """Decodes the sound of a stretch; its first sample is at the time of picture 0.

    Args:
        path: of the file.
        info: as `probe` gives it.
        start_s: of the stretch, seconds.
        end_s: of the stretch, seconds; None is the end of the file.
        limits: what the video may cost.
        stream: index of the stream; None is the default one.

    Returns:
        (samples,) float32, mono, 16 kHz, -1 to 1; where the file has no sound there is silence.

    Raises:
        VideoRefused: without sound, too long, too slow, or too little of it can be decoded.
    """
    limits = limits or Limits()
    wanted_s = limits.max_duration_s if end_s is None else end_s - start_s
    stream = info.audio_streams[0] if stream is None else stream
    most = round(wanted_s * SAMPLING_RATE)
    waveform = np.zeros(most, np.float32)  # takes memory only where something is written
    end = furthest = read = 0  # where the last piece and all pieces end; samples that were read
    for time_s, samples in _decoded_sound(path, info, start_s, stream, limits):
        first = round((time_s - start_s) * SAMPLING_RATE)
        if read and abs(first - end) < MAX_SOUND_DRIFT_S * SAMPLING_RATE:
            first = end  # time stamps are rounded; sound has no gap there
        end = first + samples.size
        part = samples[max(0, -first) : max(0, most - first)]
        if part.size and end > 0:
            waveform[max(0, first) : max(0, first) + part.size] = part
            furthest = max(furthest, max(0, first) + part.size)
            read += part.size
        if end > most + SAMPLING_RATE or read > most + SAMPLING_RATE:
            if end_s is None:
                raise _too_long(limits)
            break
    if not furthest:
        raise VideoRefused("no_audio", "no sound can be decoded from the stretch that is asked for")
    waveform = waveform[:furthest]
    np.nan_to_num(waveform, copy=False)
    return np.clip(waveform, -1, 1, out=waveform)


@contextlib.contextmanager
def _container(path: str | Path, max_pixels: int, deadline: float):
    """The file, opened by FFmpeg; whatever FFmpeg finds wrong becomes a refusal."""
    import av

    # Opened here, so that FFmpeg never takes a name for a URL, a device or a list of files.
    with _open_file(Path(path)) as file:
        options = {"protocol_whitelist": "none", "max_pixels": str(max_pixels)}
        try:
            container = av.open(
                _TimedFile(file, deadline),
                options=options,
                buffer_size=1 << 17,
                metadata_errors="replace",
            )
        except (av.FFmpegError, ValueError, OSError, MemoryError) as error:
            raise VideoRefused(
                "unreadable", "the content is damaged or is not that of a video file"
            ) from error
        with container:
            yield container


class _TimedFile:
    """A file that ends the work when its time is up, even while FFmpeg searches it for a packet."""

    def __init__(self, file, deadline: float):
        self.name, self.seek, self.tell = file.name, file.seek, file.tell
        self._read = file.read
        self._deadline = deadline

    def read(self, size: int) -> bytes:
        _check_deadline(self._deadline)
        return self._read(size)


def _check_deadline(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise VideoRefused("too_slow", "the video took longer to read than the limit allows")


def _open_file(path: Path):
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe would block for ever, a device never end
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
            raise VideoRefused("unreadable", f"it is {kind}, not a file")
        file = path.open("rb")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise VideoRefused("unreadable", f"the file cannot be opened: {why}") from error
    if path.stat().st_size == 0:
        file.close()
        raise VideoRefused("unreadable", "the file is empty")
    return file


def _stream_of_pictures(container):
    """The default stream of pictures, or the largest."""
    streams = [
        s
        for s in container.streams.video
        if s.codec_context is not None and not int(s.disposition) & _ATTACHED_PICTURE
    ]
    if not streams:
        raise VideoRefused("no_video", "the file has no stream of pictures that can be decoded")
    best = container.streams.best("video")
    if best is not None and best.index in {s.index for s in streams}:
        return best
    return max(streams, key=lambda s: s.codec_context.width * s.codec_context.height)


def _is_sound(stream) -> bool:
    context = stream.codec_context
    return context is not None and (context.sample_rate or 0) >= MIN_AUDIO_RATE


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise VideoRefused("too_large", f"a frame of {width}x{height} is larger than the limit")
    if min(width, height) < 16:
        raise VideoRefused("unreadable", f"frames of {width}x{height} pixels show nothing")


def _start_s(container, streams) -> float:
    if container.start_time is not None:
        return container.start_time / 1e6  # microseconds
    starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
    return min(starts, default=0.0)


def _too_long(limits: Limits) -> VideoRefused:
    return VideoRefused("too_long", f"it is longer than the limit of {limits.max_duration_s:g} s")


def _seek(container, time_s: float) -> None:
    import av

    with contextlib.suppress(av.FFmpegError):  # what cannot seek is read from where it is
        container.seek(int(time_s * 1e6))  # microseconds


def _packets(container, streams, info: VideoInfo) -> Iterator:
    """Packets until the file ends or its container is damaged."""
    import av
    from av.stream import Discard

    wanted = {s.index for s in streams}
    for other in container.streams:
        if other.index not in wanted:
            other.discard = Discard.all
    packets = container.demux(streams)
    while True:
        info.check_deadline()
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        yield packet


def _decoded(container, stream, info: VideoInfo, limits: Limits) -> Iterator:
    """Frames of a stream; damaged packets are left out, too many of them refuse the file."""
    import av

    stream.codec_context.thread_count = 1  # workers share the cores
    good = bad = 0
    for packet in _packets(container, [stream], info):
        try:
            frames = packet.decode()
            good += packet.size > 0
        except (av.FFmpegError, MemoryError):
            bad += 1
            frames = []
        if bad > 100 and bad > limits.max_undecodable_share * (good + bad):
            break
        yield from frames
    if bad > limits.max_undecodable_share * (good + bad):
        raise VideoRefused(
            "unreadable", f"{bad} of {good + bad} packets of {stream.type} cannot be decoded"
        )


def _decoded_pictures(
    path: str | Path, info: VideoInfo, start_s: float, limits: Limits
) -> Iterator[tuple[float, object]]:
    """(time_s, av.VideoFrame) in order of time, from the last picture before `start_s`."""
    for seeks in (True, False) if start_s > SEEK_MARGIN_S else (False,):
        with _container(path, limits.max_pixels, info.deadline) as container:
            stream = container.streams[info.video_stream]
            if seeks:
                _seek(container, info.zero_s + start_s - 1.0)
            last_s = None
            usual_s = 1 / float(stream.average_rate or FRAMES_PER_SECOND)
            for frame in _decoded(container, stream, info, limits):
                stamp = frame.pts if frame.pts is not None else frame.dts
                if stamp is not None:
                    time_s = float(stamp * (frame.time_base or stream.time_base)) - info.zero_s
                else:
                    time_s = 0.0 if last_s is None else last_s + usual_s
                if last_s is None and seeks and time_s > start_s + 0.5 / FRAMES_PER_SECOND:
                    break  # the file cannot be sought in: from the start, then
                if last_s is not None and time_s <= last_s:
                    continue
                last_s = time_s
                yield time_s, frame
            else:
                return


def _decoded_sound(
    path: str | Path, info: VideoInfo, start_s: float, stream_index: int, limits: Limits
) -> Iterator[tuple[float, np.ndarray]]:
    """(time_s, samples at 16 kHz) of pieces of sound, in the order of the file."""
    import av

    with _container(path, limits.max_pixels, info.deadline) as container:
        stream = container.streams[stream_index]
        if start_s > SEEK_MARGIN_S:
            _seek(container, info.zero_s + start_s - 1.0)
        resampler, form = None, None
        first_s, given, next_s = 0.0, 0, None  # where the resampler began; samples it gave; its end

        def pieces(frame):
            nonlocal given
            for part in resampler.resample(frame):
                samples = part.to_ndarray().reshape(-1, part.layout.nb_channels)
                # FFmpeg's own mixing makes what channels share too loud.
                mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
                yield first_s + given / SAMPLING_RATE, mono
                given += mono.size

        for frame in _decoded(container, stream, info, limits):
            if frame.sample_rate < MIN_AUDIO_RATE or frame.layout.nb_channels > MAX_CHANNELS:
                raise VideoRefused("no_audio", f"sound of {frame.sample_rate} Hz holds no speech")
            time_s = next_s or 0.0
            if frame.pts is not None:
                time_s = float(frame.pts * frame.time_base) - info.zero_s
            new_form = (frame.format.name, frame.layout.name, frame.sample_rate)
            is_gap = next_s is not None and abs(time_s - next_s) > MAX_SOUND_DRIFT_S
            if new_form != form or is_gap:
                if resampler is not None:
                    yield from pieces(None)
                # Packed: PyAV cannot read planar sound of eight channels or more.
                resampler = av.AudioResampler(format="flt", rate=SAMPLING_RATE)
                form, first_s, given, next_s = new_form, time_s, 0, time_s
            next_s += frame.samples / frame.sample_rate
            frame.pts = None  # the gaps are dealt with here
            yield from pieces(frame)
        if resampler is not None:
            yield from pieces(None)


def _nearest_pictures(
    pictures: Iterator[tuple[float, object]], start_s: float, count: int
) -> Iterator[tuple[int, object, bool]]:
    """(moment, its nearest picture, whether the moment before had the same) for `count` moments."""
    moment, before_s = 0, 0.5 / FRAMES_PER_SECOND
    half_gap_s = before_s
    current = next(pictures, None)
    while current is not None and moment < count:
        following = next(pictures, None)
        time_s = current[0] - start_s
        if following is not None:
            half_gap_s = min((following[0] - current[0]) / 2, MAX_HOLD_S)
        until_s = time_s + half_gap_s  # the last picture stands as long as the one before
        first = max(moment, math.ceil((time_s - before_s) * FRAMES_PER_SECOND - 1e-6))
        moment = max(moment, math.floor(until_s * FRAMES_PER_SECOND + 1e-6) + 1)
        for k in range(first, min(moment, count)):
            yield k, current[1], k > first
        current, before_s = following, MAX_HOLD_S


def _normalise(frame, info: VideoInfo, limits: Limits):
    """A frame in 8 bits, with square pixels, of the working size."""
    _check_size(frame.width, frame.height, limits)
    size = _working_size(frame.width, frame.height, info.pixel_shape)
    if size == (frame.width, frame.height) and frame.format.name in _GREY_FIRST_FORMATS:
        return frame
    return frame.reformat(*size, format="yuv420p", threads=1)


def _working_size(width: int, height: int, pixel_shape: float) -> tuple[int, int]:
    """Size with square pixels and a shorter side of no more than `WORKING_LINES`."""
    wide = width * pixel_shape
    if not 1.1 < max(wide / width, width / wide) < 4:  # a tenth does not matter to a detector
        wide = width
    scale = min(1.0, WORKING_LINES / min(wide, height))
    if scale == 1.0 and wide == width:
        return width, height
    return max(16, round(wide * scale / 2) * 2), max(16, round(height * scale / 2) * 2)
