import os
import struct
import time
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from dataset_scripts.records import VideoRefused
from dataset_scripts.video import (
    WORKING_LINES,
    Limits,
    check_duration,
    probe,
    read_frames,
    read_speech,
)
from tests.film_files import flat_pictures, tone, write_video


def frames_of(path, start_s=0.0, end_s=None, limits=None):
    return list(read_frames(path, probe(path, limits), start_s, end_s, limits))


def greys_of(frames) -> np.ndarray:
    return np.array([frame.grey.mean() for frame in frames])


def reason_of(function, *arguments) -> str:
    with pytest.raises(VideoRefused) as refused:
        function(*arguments)
    message = str(refused.value)
    assert message and "\n" not in message
    return refused.value.reason


def ramp(count: int) -> list[int]:
    return [20 + round(200 * k / max(1, count - 1)) for k in range(count)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
def test_every_picture_comes_once_and_in_order(tmp_path, suffix):
    film = write_video(tmp_path / f"film{suffix}", flat_pictures(ramp(30)), sounds=[tone(1.2)])
    frames = frames_of(film)
    assert [frame.index for frame in frames] == list(range(30))
    assert not any(frame.is_repeat for frame in frames)
    assert frames[10].time_s == pytest.approx(0.4)
    assert (np.diff(greys_of(frames)) > 2).all()  # limited range: a step of 6.9 is one of 5.9
    assert frames[0].grey.shape == (48, 64) and frames[0].grey.dtype == np.uint8
    assert frames[0].grey.flags.c_contiguous


@pytest.mark.parametrize("fps", [5, 12, 24, 29.97, 50, 240])
def test_any_rate_becomes_25_pictures_a_second_by_the_nearest_time(tmp_path, fps):
    count = round(2 * fps)
    film = write_video(
        tmp_path / "film.mkv", flat_pictures(ramp(count)), fps, sounds=[tone(2)], codec="ffv1"
    )
    frames = frames_of(film)
    assert 49 <= len(frames) <= 50 or fps < 25
    moments = np.array([frame.index for frame in frames]) / 25
    nearest = np.round(moments * fps - 1e-6).astype(int).clip(0, count - 1)
    expected = 16 + 219 / 255 * np.array(ramp(count))  # as a film stores grey
    step = np.diff(expected).max()
    np.testing.assert_allclose(greys_of(frames), expected[nearest], atol=1.1 * step + 1)
    repeats = sum(frame.is_repeat for frame in frames)
    assert repeats == (len(frames) - len(set(nearest)) if fps < 25 else 0)


def test_uneven_time_stamps_are_honoured(tmp_path):
    times = [0.0, 0.04, 0.2, 0.24, 0.6, 0.64]
    pictures = flat_pictures([20, 60, 100, 140, 180, 220])
    film = write_video(tmp_path / "film.mkv", pictures, times_s=times, sounds=[tone(1)])
    greys = greys_of(frames_of(film))
    nearest = [int(np.argmin(np.abs(np.array(times) - k / 25))) for k in range(len(greys))]
    levels = np.unique(np.round(greys, 0))
    assert [int(np.argmin(np.abs(levels - grey))) for grey in greys] == nearest


def test_a_long_gap_has_no_pictures(tmp_path):
    times = [*np.arange(10) / 25, *(5 + np.arange(10) / 25)]
    film = write_video(
        tmp_path / "film.mkv", flat_pictures(ramp(20)), times_s=times, sounds=[tone(6)]
    )
    indices = [frame.index for frame in frames_of(film)]
    assert indices == sorted(set(indices))
    assert not [k for k in indices if 36 < k < 98]  # a second after the one, a second before other
    assert {0, 9, 125, 134} <= set(indices)


@pytest.mark.parametrize(("rotation", "corner"), [(90, "sw"), (180, "se"), (-90, "ne")])
def test_pictures_are_upright(tmp_path, rotation, corner):
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:16, :16] = [250, 40, 40]  # red, above on the left
    film = write_video(tmp_path / "f.mp4", [picture] * 3, rotation=rotation, sounds=[tone(0.2)])
    frame = frames_of(film)[0]
    assert frame.grey.shape == ((48, 96) if rotation == 180 else (96, 48))
    for pixels in (
        frame.grey,
        frame.rgb()[..., 0],
        frame.thumbnail(*frame.grey.shape[::-1])[..., 2],
    ):
        row, column = (8 if corner[0] == "n" else -9), (8 if corner[1] == "w" else -9)
        assert pixels.shape == frame.grey.shape
        assert pixels[row, column] > 60
        assert pixels[-row, -column] < 40
    # What FFmpeg means by the rotation is what its own tool would show.
    with av.open(str(film)) as container:
        assert next(container.decode(video=0)).rotation in (rotation, rotation - 360)


def test_square_pixels(tmp_path):
    film = write_video(
        tmp_path / "f.mkv",
        flat_pictures([90] * 3, 96, 64),
        sounds=[tone(0.2)],
        pixel_shape=Fraction(2),
    )
    assert frames_of(film)[0].grey.shape == (96, 128)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size"),
    [
        ("ffv1", "yuv420p10le", (50, 70)),
        ("ffv1", "gray", (51, 71)),
        ("ffv1", "gray16le", (50, 70)),
        ("ffv1", "yuv444p", (51, 71)),
        ("png", "rgb24", (50, 70)),
        ("mjpeg", "yuvj422p", (50, 70)),
    ],
)
def test_any_form_of_pixel_becomes_eight_bits_of_grey_and_colour(tmp_path, codec, pix_fmt, size):
    pictures = [p + np.uint8([60, 0, 0]) for p in flat_pictures([60, 120, 180], *size)]
    film = write_video(
        tmp_path / ("film.avi" if codec == "png" else "film.mkv"),
        pictures,
        codec=codec,
        pix_fmt=pix_fmt,
        sounds=[tone(0.2)],
    )
    frames = frames_of(film)
    assert [f.grey.shape for f in frames] == [size] * 3
    assert (np.diff(greys_of(frames)) > 30).all()
    red, green, blue = frames[1].rgb().mean(axis=(0, 1))
    assert blue == pytest.approx(green, abs=6)
    assert red - green == pytest.approx(0 if "gray" in pix_fmt else 60, abs=8)


def test_large_pictures_are_shrunk(tmp_path):
    picture = np.zeros((2160, 3840, 3), np.uint8)
    picture[:1080] = 200
    film = write_video(tmp_path / "film.mp4", [picture] * 2, sounds=[tone(0.1)])
    frame = frames_of(film)[0]
    assert frame.grey.shape == (WORKING_LINES, WORKING_LINES * 16 // 9)
    assert frame.rgb().shape == (*frame.grey.shape, 3)
    assert frame.grey[100].mean() > 150 > 60 > frame.grey[-100].mean()
    small, scale = frame.shrunk(180)
    assert small.shape == (180, 320) and scale == 4
    assert reason_of(probe, film, Limits(max_pixels=1920 * 1080)) == "too_large"


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
@pytest.mark.parametrize("late_s", [0.0, 0.5])
def test_sound_and_pictures_share_one_clock(tmp_path, suffix, late_s):
    """A flash and a click at 1.4 s stay together, whichever stream begins later."""
    greys = [20] * 75
    greys[35] = 230
    click = np.zeros(48000 * 3)
    click[round((1.4 - late_s) * 48000) + np.arange(480)] = 0.8
    film = write_video(
        tmp_path / f"film{suffix}",
        flat_pictures(greys),
        sounds=[click],
        rate=48000,
        layout="stereo",
        sound_start_s=late_s,
    )
    info = probe(film)
    flash = int(np.argmax(greys_of(frames_of(film))))
    heard = np.abs(read_speech(film, info)).argmax() / 16000
    assert heard == pytest.approx(flash / 25, abs=0.045)  # AAC's padding


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_stretch_is_the_same_as_in_the_whole(tmp_path, suffix):
    speech = tone(8, hertz=200) * np.linspace(0, 1, 8 * 16000)
    film = write_video(
        tmp_path / f"film{suffix}",
        flat_pictures(ramp(200)),
        sounds=[speech],
        options={"g": "50"},
    )
    info = probe(film)
    whole, part = frames_of(film), frames_of(film, 5.02, 7.0)
    assert [frame.index for frame in part] == list(range(50))
    assert part[0].time_s == pytest.approx(5.02)
    np.testing.assert_allclose(greys_of(part), greys_of(whole)[126:176], atol=1.5)
    sound = read_speech(film, info, 5.0, 7.0)
    assert sound.shape == (32000,)
    np.testing.assert_allclose(sound, read_speech(film, info)[80000:112000], atol=0.03)


def test_a_file_that_cannot_be_sought_in_is_read_from_its_start(tmp_path, monkeypatch):
    from dataset_scripts import video

    film = write_video(tmp_path / "film.mkv", flat_pictures(ramp(200)), sounds=[tone(8)])
    expected = greys_of(frames_of(film, 4.0, 5.0))
    forwards = video._seek
    monkeypatch.setattr(video, "_seek", lambda container, time_s: forwards(container, time_s + 3))
    np.testing.assert_array_equal(greys_of(frames_of(film, 4.0, 5.0)), expected)


@pytest.mark.parametrize(("rate", "layout"), [(8000, "mono"), (44100, "5.1"), (48000, "7.1")])
def test_any_sampling_rate_and_number_of_channels(tmp_path, rate, layout):
    film = write_video(
        tmp_path / "film.mkv",
        flat_pictures([90] * 25),
        sounds=[tone(1, rate)],
        rate=rate,
        layout=layout,
    )
    sound = read_speech(film, probe(film))
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(16000, abs=40)
    spectrum = np.abs(np.fft.rfft(sound[:16000], 16000))
    assert np.argmax(spectrum) == 300
    assert np.abs(sound).max() == pytest.approx(0.3, abs=0.03)


def test_a_hole_in_the_sound_is_silence(tmp_path):
    film = tmp_path / "film.mkv"
    with av.open(str(film), "w") as container:
        pictures = container.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height = 64, 48
        voice = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for picture in flat_pictures([90] * 50):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(pictures.encode())
        for k in (0, 1, 2, 25, 26):  # tenths of a second
            part = np.full((1, 1600), 8000, np.int16)
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), 1600 * k
            container.mux(voice.encode(frame))
    sound = read_speech(film, probe(film))
    assert (sound[100:4700] > 0.2).all()
    assert not sound[5000:39900].any()
    assert (sound[40100:43000] > 0.2).all()


def test_the_default_stream_of_sound_comes_first(tmp_path):
    film = write_video(
        tmp_path / "film.mkv", flat_pictures([90] * 25), sounds=[tone(1), tone(1, hertz=600)]
    )
    info = probe(film)
    assert len(info.audio_streams) == 2
    peaks = [
        int(np.argmax(np.abs(np.fft.rfft(read_speech(film, info, stream=k)[:16000], 16000))))
        for k in info.audio_streams
    ]
    assert peaks == [300, 600]


@pytest.mark.parametrize("name", ["Ein schöner Film.mp4", "-i http:x|y.mp4", "a\nb%d'\"\udcff.mp4"])
def test_odd_names_and_wrong_suffixes(tmp_path, name):
    film = write_video(tmp_path / "film.mkv", flat_pictures(ramp(5)), sounds=[tone(0.2)])
    odd = tmp_path / name
    film.rename(odd)
    assert len(frames_of(odd)) == 5


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    """Files that are no videos, by name."""
    tmp_path = tmp_path_factory.mktemp("bad")
    whole = write_video(tmp_path / "whole.mp4", flat_pictures(ramp(50)), sounds=[tone(2)])
    content = whole.read_bytes()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_bytes(b"this is no video\n" * 100)
    (tmp_path / "truncated").write_bytes(content[: len(content) // 3])
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(100_000))
    (tmp_path / "playlist").write_text("#EXTM3U\n#EXTINF:10,\nhttp://localhost:1/x.ts\n")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 36)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "device").symlink_to("/dev/zero")
    return tmp_path


BAD_FILES = ["empty", "text", "truncated", "noise", "playlist", "sparse"]
BAD_FILES += ["folder", "pipe", "loop", "dangling", "device", "nul\0name", "missing"]


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_video_is_refused_at_once(bad_files, name):
    start = time.monotonic()
    assert reason_of(probe, f"{bad_files}/{name}") == "unreadable"
    assert time.monotonic() - start < 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    film = write_video(tmp_path / "film.mp4", flat_pictures(ramp(5)), sounds=[tone(0.2)])
    film.chmod(0)
    assert reason_of(probe, film) == "unreadable"


def test_files_without_pictures_or_without_sound(tmp_path):
    silent_film = write_video(tmp_path / "mute.mp4", flat_pictures(ramp(5)))
    assert reason_of(probe, silent_film) == "no_audio"
    picture = write_video(tmp_path / "one.png", flat_pictures([90]), codec="png", pix_fmt="rgb24")
    assert reason_of(probe, picture) == "no_audio"
    recording = write_video(tmp_path / "sound.wav", sounds=[tone(1)])
    assert reason_of(probe, recording) == "no_video"


def test_cover_art_is_no_film(tmp_path):
    song = tmp_path / "song.mp3"
    cover = write_video(tmp_path / "cover.png", flat_pictures([90]), codec="png", pix_fmt="rgb24")
    with av.open(str(tmp_path / "plain.mp3"), "w") as container:
        voice = container.add_stream("mp3", rate=16000)
        frame = av.AudioFrame.from_ndarray(
            (tone(1)[None] * 20000).astype(np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 16000
        container.mux(voice.encode(frame))
        container.mux(voice.encode())
    # An ID3v2.3 tag with an APIC frame, as every music player writes it.
    body = b"\0image/png\0\3\0" + cover.read_bytes()
    apic = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes((len(apic) >> shift) & 127 for shift in (21, 14, 7, 0))
    song.write_bytes(b"ID3\3\0\0" + size + apic + (tmp_path / "plain.mp3").read_bytes())
    with av.open(str(song)) as container:
        assert container.streams.video  # FFmpeg calls it a video
    assert reason_of(probe, song) == "no_video"


def claim_duration(film, seconds: float):
    """Overwrites what a Matroska file says of its length."""
    content = bytearray(film.read_bytes())
    place = content.index(b"\x44\x89\x88") + 3
    content[place : place + 8] = struct.pack(">d", seconds * 1000)
    film.write_bytes(content)
    return film


def test_a_limit_of_length_is_held_against_the_film_not_its_header(tmp_path):
    limits = Limits(max_duration_s=2.0)
    write = dict(pictures=flat_pictures(ramp(100)), sounds=[tone(4)], options={"g": "10"})
    long = write_video(tmp_path / "long.mkv", **write)
    assert reason_of(check_duration, long, probe(long), limits) == "too_long"
    modest = claim_duration(write_video(tmp_path / "modest.mkv", **write), 1.0)
    info = probe(modest)
    assert info.duration_s == pytest.approx(1.0)
    check_duration(modest, info, limits)  # the header is believed ...
    assert reason_of(read_speech, modest, info, 0.0, None, limits) == "too_long"  # ... no further
    boasting = claim_duration(
        write_video(tmp_path / "b.mkv", flat_pictures(ramp(25)), sounds=[tone(1)]), 9e5
    )
    info = probe(boasting)
    assert info.duration_s > 8e5
    check_duration(boasting, info, limits)
    assert len(read_speech(boasting, info, limits=limits)) == pytest.approx(16000, abs=100)


def test_reading_ends_when_its_time_is_up(tmp_path):
    film = write_video(tmp_path / "film.mkv", flat_pictures(ramp(50)), sounds=[tone(2)])
    info = replace(probe(film), deadline=time.monotonic() - 1)
    assert reason_of(lambda: list(read_frames(film, info))) == "too_slow"
    assert reason_of(read_speech, film, info) == "too_slow"


def test_a_search_through_an_endless_file_ends_too(tmp_path):
    """After a second of film come terabytes of nothing, in which FFmpeg looks for more."""
    film = write_video(tmp_path / "film.mkv", flat_pictures(ramp(25)), sounds=[tone(1)])
    with film.open("r+b") as file:
        file.truncate(1 << 42)
    start = time.monotonic()
    limits = Limits(max_seconds_of_work=2.0)
    assert reason_of(lambda: read_speech(film, probe(film, limits), limits=limits)) == "too_slow"
    assert time.monotonic() - start < 6


def damage(film, shares: slice, seed: int = 0, runs: int = 400):
    """Overwrites short runs of bytes in a part of a file."""
    content = bytearray(film.read_bytes())
    generator = np.random.default_rng(seed)
    places = range(len(content))[shares]
    for place in generator.choice(places, min(runs, len(places) // 40)):
        content[place : place + 8] = generator.bytes(8)
    film.write_bytes(content)
    return film


def test_a_film_damaged_in_its_middle_keeps_what_is_good(tmp_path):
    noise = np.random.default_rng(0).integers(0, 60, (48, 64, 3), np.uint8)
    pictures = [picture // 2 + noise for picture in flat_pictures(ramp(200))]
    film = write_video(
        tmp_path / "f.mkv", pictures, sounds=[tone(8)], codec="mjpeg", pix_fmt="yuvj420p"
    )
    size = film.stat().st_size
    damage(film, slice(size // 2, size * 6 // 10), runs=60)
    frames = frames_of(film)
    assert len(frames) > 100
    assert (np.diff(greys_of(frames[:80])) > -1).all()


def test_a_film_that_is_mostly_damaged_is_refused(tmp_path):
    pictures = [
        np.random.default_rng(k).integers(0, 256, (48, 64, 3), np.uint8) for k in range(100)
    ]
    film = write_video(
        tmp_path / "film.avi", pictures, codec="png", pix_fmt="rgb24", sounds=[tone(4)]
    )
    content = bytearray(film.read_bytes())
    for k in range(1, content.count(b"\x89PNG") + 1):
        if k % 2:
            place = content.index(b"\x89PNG", (k - 1) * (len(content) // 110))
            content[place : place + 4] = b"\0\0\0\0"
    film.write_bytes(content)
    info = probe(film)
    assert reason_of(lambda: list(read_frames(film, info))) == "unreadable"


def test_a_stretch_beyond_the_end_has_no_sound(tmp_path):
    film = write_video(tmp_path / "film.mp4", flat_pictures(ramp(50)), sounds=[tone(2)])
    assert reason_of(read_speech, film, probe(film), 60.0, 65.0) == "no_audio"
    assert frames_of(film, 60.0, 65.0) == []
