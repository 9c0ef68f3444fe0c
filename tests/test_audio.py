"""load_audio and resample: any media in, mono float32 out, one sentence for what is no sound."""

import io
import subprocess
import sys
import warnings
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from modeling_speech2face import AudioCutWarning, AudioError, load_audio, resample

RATE = 16000
SAMPLE = Path("samples/librispeech-2414.flac")


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def write(path: Path, channels: np.ndarray, rate: int, codec: str) -> Path:
    """Writes channels (C, samples), -1 to 1, with FFmpeg."""
    layout = {1: "mono", 2: "stereo"}[len(channels)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or None
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def pitch_of(waveform: np.ndarray) -> float:
    """The strongest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * RATE / len(waveform))


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.wav", "pcm_s16le", 44100),
        ("a.wav", "pcm_f32le", 8000),
        ("a.flac", "flac", 16000),
        ("a.mp3", "libmp3lame", 48000),
        ("a.ogg", "libopus", 48000),
        ("a.m4a", "aac", 44100),
    ],
)
def test_formats_and_rates(tmp_path, name, codec, rate):
    path = write(tmp_path / name, tone(1.5, rate)[None], rate, codec)
    waveform = load_audio(path)
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert abs(len(waveform) - 1.5 * RATE) < 0.1 * RATE  # codecs pad a little
    assert abs(pitch_of(waveform) - 440) < 2
    assert 0.45 < np.abs(waveform[4000:-4000]).max() < 0.56


def test_channels_are_mixed(tmp_path):
    both = np.stack([tone(1.0), -tone(1.0)])  # they cancel each other
    assert np.abs(load_audio(write(tmp_path / "a.wav", both, RATE, "pcm_s16le"))).max() < 0.01
    one = np.stack([tone(1.0), 0 * tone(1.0)])
    mixed = load_audio(write(tmp_path / "b.wav", one, RATE, "pcm_s16le"))
    np.testing.assert_allclose(mixed, tone(1.0) / 2, atol=1e-3)


@pytest.mark.parametrize("channels", [6, 8, 32])
def test_many_channels_are_mixed(channels):
    # In a process of its own: reading planar frames of eight channels would end it.
    code = (
        "import io, sys, wave\nimport numpy as np\nfrom modeling_speech2face import load_audio\n"
        "channels, file = int(sys.argv[1]), io.BytesIO()\n"
        "samples = np.arange(channels)[None] * np.ones((16000, 1)) * 100\n"
        "with wave.open(file, 'wb') as out:\n"
        "    out.setparams((channels, 2, 16000, 0, 'NONE', ''))\n"
        "    out.writeframes(samples.astype('<i2').tobytes())\n"
        "expected = np.full(16000, 100 * (channels - 1) / 2 / 32768)\n"
        "np.testing.assert_allclose(load_audio(file.getvalue()), expected, atol=1e-6)"
    )
    subprocess.run([sys.executable, "-c", code, str(channels)], check=True)


def test_a_sampling_rate_that_carries_no_speech_is_refused():
    file = io.BytesIO()  # 3 kB that would become ten minutes at 16 kHz
    with wave.open(file, "wb") as out:
        out.setparams((1, 1, 1, 0, "NONE", ""))
        out.writeframes(bytes(3000))
    with pytest.raises(AudioError, match="1 samples a second, but speech needs at least 4000"):
        load_audio(file.getvalue())


def test_the_sound_of_a_video_is_read(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for index in range(10):
            picture = np.full((32, 32, 3), 20 * index, dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for start in range(0, RATE, 1024):
            piece = np.ascontiguousarray(tone(1.0)[None, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    assert abs(pitch_of(load_audio(path)) - 440) < 2


def test_paths_bytes_and_open_files_give_the_same():
    from_path = load_audio(str(SAMPLE))
    assert abs(len(from_path) / RATE - 6.83) < 0.01
    assert np.array_equal(load_audio(SAMPLE), from_path)
    assert np.array_equal(load_audio(SAMPLE.read_bytes()), from_path)
    with SAMPLE.open("rb") as file:
        assert np.array_equal(load_audio(file), from_path)


def test_what_is_too_long_is_cut_with_a_warning():
    with pytest.warns(AudioCutWarning, match=r"only the first 2 s of .*2414.flac are used"):
        start = load_audio(SAMPLE, max_seconds=2)
    assert np.array_equal(start, load_audio(SAMPLE)[: 2 * RATE])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_audio(SAMPLE)


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that are no sound, by what the sentence about them must say."""
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is not a sound file " * 100)
    (folder / "torn.flac").write_bytes(SAMPLE.read_bytes()[:30])
    (folder / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(20000))
    write(folder / "nan.wav", np.full((1, RATE), np.nan, np.float32), RATE, "pcm_f32le")
    with wave.open(str(folder / "nothing.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
    from PIL import Image

    Image.new("RGB", (16, 16)).save(folder / "picture.png")
    return {
        "does not exist": folder / "missing.wav",
        "is a folder": folder,
        "is empty": folder / "empty.wav",
        "damaged or not an audio": folder / "text.wav",
        "damaged or not": folder / "torn.flac",
        "damaged": folder / "noise.mp3",
        "not numbers": folder / "nan.wav",
        "holds no sound": folder / "nothing.wav",
        "has no sound": folder / "picture.png",
    }


def test_what_is_no_sound_is_refused_in_a_sentence(tmp_path):
    for message, path in bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=message) as error:
            load_audio(path)
        text = str(error.value)
        assert text.startswith(str(path)) and text.endswith(".") and "\n" not in text
    with pytest.raises(AudioError, match="^the recording is empty"):
        load_audio(b"")


def test_a_playlist_does_not_open_other_files(tmp_path):
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n"
        f"file://{SAMPLE.resolve()}\n#EXT-X-ENDLIST\n"
    )
    for source in (playlist, playlist.read_bytes()):
        with pytest.raises(AudioError):
            load_audio(source)


def test_a_name_is_never_taken_for_an_address():
    with pytest.raises(AudioError, match="does not exist"):
        load_audio("http://127.0.0.1:9/voice.wav")


def test_resample_keeps_pitch_and_length():
    waveform = resample(tone(1.5, 44100), 44100, RATE)
    assert abs(len(waveform) - 1.5 * RATE) <= 1 and abs(pitch_of(waveform) - 440) < 2
    assert np.array_equal(resample(tone(1.0), RATE, RATE), tone(1.0))


def test_resample_scales_integers():
    whole = (tone(1.0) * 32768).astype(np.int16)
    np.testing.assert_allclose(resample(whole, RATE, RATE), tone(1.0), atol=1e-4)
    unsigned = (tone(1.0) * 128 + 128).astype(np.uint8)  # as in WAV files of 8 bits
    np.testing.assert_allclose(resample(unsigned, RATE, RATE), tone(1.0), atol=0.01)


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (np.zeros((2, 100)), RATE, "mono"),
        (np.zeros(0), RATE, "mono"),
        (np.zeros(100), None, "sampling_rate"),
        (np.zeros(100), 0, "sampling_rate"),
        (np.zeros(100), np.nan, "sampling_rate"),
        (np.zeros(100), 10**12, "more than 768000"),
        (np.zeros(100), np.inf, "more than 768000"),
        (np.full(100, np.inf), RATE, "not numbers"),
    ],
)
def test_resample_refuses(waveform, rate, message):
    with pytest.raises(AudioError, match=message):
        resample(waveform, rate, RATE)


def test_a_file_object_is_read_from_its_start():
    file = io.BytesIO(SAMPLE.read_bytes())
    file.seek(1000)
    assert np.array_equal(load_audio(file), load_audio(SAMPLE))
