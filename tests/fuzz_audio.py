"""Damaged recordings by the thousand, and what `load_audio` does with each.

    python -m tests.fuzz_audio --files 2000 --seed 0

Every file is read in another process, which may be slow, swell or die: it is then found and named.
"""

import argparse
import collections
import functools
import io
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from modeling_speech2face import AudioError, load_audio
from modeling_speech2face.audio import MAX_SECONDS

RATE = 16000
SECONDS = 60  # a file that takes longer by the clock hangs; the machine may be busy
MAX_SECONDS_OF_CPU = 20  # and so does one that takes more of a core
MAX_MEGABYTES = 300  # of resident memory, of which Python with PyAV takes 50
# Those that write several files, open devices or sockets, or write no media.
NOT_MUXED = (
    "alsa dash fbdev fifo hds hls ismv image2 oss rtp rtp_mpegts rtsp sap segment smoothstreaming "
    "stream_segment,ssegment tee video4linux2,v4l2 webm_chunk whip crc framecrc framehash "
    "framemd5 hash md5 null streamhash uncodedframecrc mkvtimestamp_v2"
).split()
FORMS = ((16000, "mono"), (48000, "mono"), (44100, "mono"), (22050, "mono"), (8000, "mono"))
FORMS += ((44100, "stereo"), (48000, "stereo"), (96000, "5.1"))  # the first that suits is taken
ABSURD = tuple(
    value.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    for order in ("little", "big")
)


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Args:
        kind: "read", "refused", or what must not be: "error", "hang", "crash", "memory", "litter".
        what: the sentence, or what happened instead.
        seconds: of a core, that it took.
        megabytes: of resident memory at most, while it was read.
    """

    name: str
    kind: str
    what: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def is_well(self) -> bool:
        return self.kind in ("read", "refused")


def seed_files() -> dict[str, bytes]:
    """A third of a second of sound in every container and by every encoder that PyAV brings."""
    import av
    from av.format import ContainerFormat

    av.logging.set_level(av.logging.PANIC)
    seeds = {}

    def add(name: str, container: str, codec: str | None, with_video: bool = False) -> None:
        for rate, layout in FORMS:
            try:
                if content := muxed(container, codec, rate, layout, with_video):
                    seeds[name] = content
                    return
            # FFmpeg refuses for a hundred reasons; what no form suits is no seed.
            except (av.FFmpegError, ValueError, TypeError, NotImplementedError):
                pass

    for container in sorted(av.formats_available - set(NOT_MUXED)):
        try:
            ContainerFormat(container, "w")
        except ValueError:
            continue  # it is only read
        add(container, container, None)
        add(f"{container}-video", container, None, with_video=True)
    for codec in sorted(av.codecs_available):
        try:
            if av.Codec(codec, "w").type != "audio":
                continue
        except ValueError:
            continue
        for container in ("matroska", "mov", "wav", "ogg"):
            add(f"{container}-{codec}", container, codec)
    return seeds


def muxed(
    container: str, codec: str | None, rate: int, layout: str, with_video: bool = False
) -> bytes:
    """A tone in a container, by its usual encoder if None is named, with a film or without."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        codec = codec or out.default_audio_codec
        picture_codec = out.default_video_codec
        video = None
        if with_video:
            video = out.add_stream(picture_codec, rate=25)
            video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        stream = out.add_stream(codec, rate=rate, layout=layout)
        formats = av.Codec(codec, "w").audio_formats
        if formats:
            stream.codec_context.format = formats[0]
        stream.codec_context.bit_rate = 64000
        stream.codec_context.options = {"strict": "-2"}
        stream.codec_context.open()
        for index in range(8 if video else 0):
            picture = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 30 * index, np.uint8))
            out.mux(video.encode(picture))
        times = np.arange(rate // 3) / rate
        tone = (0.3 * np.sin(2 * np.pi * 220 * times)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        context = stream.codec_context
        resampler = av.AudioResampler(
            format=context.format,
            layout=layout,
            rate=rate,
            frame_size=context.frame_size or None,
        )
        position = 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            piece.pts, piece.time_base = position, Fraction(1, rate)
            position += piece.samples
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
        if video:
            out.mux(video.encode(None))
    return file.getvalue()


def endless(codec: str, rate: int, layout: str, seconds: float) -> bytes:
    """Silence, so long as asked for, in a file that is small for it."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska", options={"live": "1"}) as out:  # of unknown length
        stream = out.add_stream(codec, rate=rate, layout=layout)
        context = stream.codec_context
        formats = av.Codec(codec, "w").audio_formats  # ALAC packs silence of 16 bits alone
        context.format = next((f for f in formats if f.name.startswith("s16")), formats[0])
        context.open()
        size = context.frame_size or 4096
        for start in range(0, 30 * rate, size):
            frame = av.AudioFrame(format=context.format.name, layout=layout, samples=size)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    content = file.getvalue()
    first = content.index(b"\x1f\x43\xb6\x75")  # a cluster of packets
    return content[:first] + content[first:] * int(seconds // 30)


def mutated(seeds: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """As many damaged files as asked for, of all seeds in turn: name and content."""
    rng, names = np.random.default_rng(seed), sorted(seeds)
    damages = (truncate, flip_bits, absurd_numbers, overwrite, repeat, remove, splice)
    for index in range(count):
        name = names[index % len(names)]
        content = seeds[name]
        applied = rng.choice(len(damages), size=rng.integers(1, 4), replace=False)
        for damage in applied:
            other = seeds[names[rng.integers(len(names))]]
            content = damages[damage](rng, content or b"\0", other)
        yield f"{index:05d}-{name}.bin", content


def place(rng, content: bytes) -> int:
    """A position; half of the time in the header, where the numbers are."""
    return int(rng.integers(min(len(content), 200) if rng.random() < 0.5 else len(content)))


def truncate(rng, content: bytes, other: bytes) -> bytes:
    return content[: place(rng, content)]


def flip_bits(rng, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 30)):
        changed[place(rng, content)] ^= 1 << rng.integers(8)
    return bytes(changed)


def absurd_numbers(rng, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        start, number = place(rng, content), ABSURD[rng.integers(len(ABSURD))]
        changed[start : start + len(number)] = number
    return bytes(changed)


def overwrite(rng, content: bytes, other: bytes) -> bytes:
    start, noise = place(rng, content), rng.bytes(rng.integers(1, 64))
    return content[:start] + noise + content[start + len(noise) :]


def repeat(rng, content: bytes, other: bytes) -> bytes:
    start, length = place(rng, content), int(rng.integers(1, 500))
    return content[:start] + content[start : start + length] * int(rng.integers(2, 20))


def remove(rng, content: bytes, other: bytes) -> bytes:
    start = place(rng, content)
    return content[:start] + content[start + int(rng.integers(1, 200)) :]


def splice(rng, content: bytes, other: bytes) -> bytes:
    return content[: place(rng, content)] + other[place(rng, other) :]


def read(path: str, loader: Callable = load_audio) -> Outcome:
    """Reads one file in this process, and says what came of it."""
    _forget_peak()
    start, name = time.process_time(), Path(path).name
    kind, what = "read", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            waveform = loader(path)
        if waveform.dtype != np.float32 or waveform.ndim != 1 or not np.isfinite(waveform).all():
            kind, what = "error", f"{waveform.dtype} {waveform.shape}"
        elif not 0 < waveform.size <= MAX_SECONDS * RATE:
            kind, what = "error", f"{waveform.size} samples"
    except AudioError as error:
        kind, what = "refused", str(error)
        if "\n" in what or not what.endswith(".") or ": " not in what:
            kind = "error"
    except BaseException as error:
        kind, what = "error", f"{type(error).__name__}: {error}"
    seconds, megabytes = time.process_time() - start, _peak()
    if kind in ("read", "refused") and seconds > MAX_SECONDS_OF_CPU:
        kind = "hang"
    if kind in ("read", "refused") and megabytes > MAX_MEGABYTES:
        kind = "memory"
    left = os.listdir()
    if left:
        kind, what = "litter", str(left)
        for litter in left:
            Path(litter).unlink()
    return Outcome(name, kind, what, seconds, megabytes)


def read_all(
    paths: list[Path], loader: Callable = load_audio, seconds: float = SECONDS
) -> list[Outcome]:
    """Reads files in another process, which is watched: it may hang, swell, die or litter."""
    from pebble import ProcessExpired, ProcessPool

    found = []
    with tempfile.TemporaryDirectory() as folder:
        pool = ProcessPool(1, initializer=_settle, initargs=(folder,), context=get_context("spawn"))
        with pool:
            reader = functools.partial(read, loader=loader)
            outcomes = iter(pool.map(reader, map(str, paths), timeout=seconds).result())
            for path in paths:
                try:
                    found.append(next(outcomes))
                except TimeoutError:
                    found.append(Outcome(path.name, "hang", f"after {seconds} s"))
                except ProcessExpired as error:
                    found.append(Outcome(path.name, "crash", f"exit code {error.exitcode}"))
    return found


def _settle(folder: str) -> None:
    """Works in a folder of its own, with little memory, and without FFmpeg's chatter."""
    import av

    os.chdir(folder)
    os.environ["TMPDIR"] = folder
    av.logging.set_level(av.logging.PANIC)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))  # the machine is not at stake
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # then the peak is that of all files so far


def _peak() -> float:
    """Resident memory at its highest, in MB."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except OSError:  # not Linux: of the whole life of the process
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> int:
    """Runs the command; 0 if all was well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that were not read well")
    arguments = parser.parse_args()
    start, seeds = time.perf_counter(), seed_files()
    print(f"{len(seeds)} seeds: {' '.join(sorted(seeds))}")
    with tempfile.TemporaryDirectory() as folder:
        paths = save(mutated(seeds, arguments.files, arguments.seed), Path(folder))
        outcomes = read_all(paths)
        bad = [outcome for outcome in outcomes if not outcome.is_well]
        for outcome in bad:
            print(outcome)
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                content = (Path(folder) / outcome.name).read_bytes()
                (arguments.keep / outcome.name).write_bytes(content)
    print(dict(collections.Counter(outcome.kind for outcome in outcomes)))
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.megabytes)
    print(f"slowest {slowest.seconds:.2f} s ({slowest.name})")
    print(f"largest {largest.megabytes:.0f} MB ({largest.name})")
    print(f"{time.perf_counter() - start:.0f} s in all")
    return 1 if bad else 0


def save(files: Iterator[tuple[str, bytes]], folder: Path) -> list[Path]:
    """Writes files; returns their paths."""
    paths = []
    for name, content in files:
        path = folder / name.replace(",", "_")
        path.write_bytes(content)
        paths.append(path)
    return paths


if __name__ == "__main__":
    raise SystemExit(main())
