"""What strangers upload: damaged, endless, absurd and foreign files, and addresses for names."""

import io
import os
import socket
import struct
import sys
import threading
import time
import wave
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from modeling_speech2face import AudioCutWarning, AudioError, load_audio
from tests.fuzz_audio import Outcome, endless, mutated, read_all, save, seed_files

RATE = 16000
SAMPLE = Path("samples/librispeech-2414.flac").resolve()


@pytest.fixture(scope="module")
def seeds() -> dict[str, bytes]:
    return seed_files()


def all_well(outcomes: list[Outcome]) -> bool:
    bad = [outcome for outcome in outcomes if not outcome.is_well]
    assert not bad, "\n".join(map(str, bad))
    return True


def test_every_container_with_sound_is_among_the_seeds(seeds, tmp_path):
    assert len(seeds) > 150
    families = "wav flac mp3 ogg opus mp4 mov matroska webm avi flv asf mpegts aiff au caf amr mxf"
    for family in families.split():
        assert any(name.split("-")[0] == family for name in seeds), family
    assert {f"{name}-video" for name in "mp4 matroska avi mpegts webm".split()} <= set(seeds)
    # What is whole is read, but for raw samples, which nothing tells apart from noise, and for
    # what FFmpeg itself writes without the header that it needs.
    outcomes = read_all(save(iter(seeds.items()), tmp_path))
    assert all_well(outcomes)
    refused = {outcome.name for outcome in outcomes if outcome.kind == "refused"}
    refused = {name for name in refused if name.split("-")[0] in families.split()}
    assert refused <= {"matroska-tta", "wav-aac", "wav-vorbis"}


def test_damaged_files_end_in_sound_or_a_sentence(seeds, tmp_path):
    outcomes = read_all(save(mutated(seeds, 60, seed=1), tmp_path))
    assert all_well(outcomes) and len(outcomes) == 60
    assert {outcome.kind for outcome in outcomes} == {"read", "refused"}


@pytest.mark.slow
def test_two_thousand_damaged_files_end_in_sound_or_a_sentence(seeds, tmp_path):
    outcomes = read_all(save(mutated(seeds, 2000, seed=0), tmp_path))
    assert all_well(outcomes) and len(outcomes) == 2000
    kinds = [outcome.kind for outcome in outcomes]
    assert kinds.count("read") > 200 and kinds.count("refused") > 1000


def misbehave(path: str) -> np.ndarray:
    """What a reader of files could do, by the file's name."""
    kind = Path(path).stem
    if kind == "crash":
        os.abort()
    if kind == "hang":
        time.sleep(60)
    if kind == "litter":
        Path("left.wav").touch()
    if kind == "lines":
        raise AudioError("a message\nof two lines: read it.")
    if kind == "slip":
        raise KeyError("header")
    return np.ones(80_000_000 if kind == "memory" else 100, np.float32)[:100]


def watched(kinds: list[str], folder: Path, **kwargs) -> list[str]:
    paths = save(((kind, b"") for kind in kinds), folder)
    return [outcome.kind for outcome in read_all(paths, misbehave, **kwargs)]


def test_the_watch_sees_what_must_not_be(tmp_path):
    files = ["good", "crash", "memory", "litter", "lines", "slip", "crash", "good"]
    seen = ["read", "crash", "memory", "litter", "error", "error", "crash", "read"]
    assert watched(files, tmp_path) == seen


@pytest.mark.slow
def test_the_watch_sees_what_hangs(tmp_path):
    assert watched(["good", "hang", "good"], tmp_path, seconds=10) == ["read", "hang", "read"]


def stop_at_the_limits(forms: dict[str, tuple], folder: Path) -> None:
    paths = save(((name, endless(*form)) for name, form in forms.items()), folder)
    assert max(path.stat().st_size for path in paths) < 20e6
    outcomes = read_all(paths)
    assert all_well(outcomes) and {outcome.kind for outcome in outcomes} == {"read"}
    assert max(outcome.megabytes for outcome in outcomes) < 200


def test_ten_hours_of_silence_stop_at_the_limit(tmp_path):
    stop_at_the_limits({"flac": ("flac", RATE, "mono", 36000)}, tmp_path)


@pytest.mark.slow
def test_hours_of_silence_of_other_kinds_stop_at_the_limits(tmp_path):
    forms = {
        "alac": ("alac", RATE, "mono", 36000),
        "opus": ("libopus", 48000, "mono", 36000),
        "wide": ("flac", 655350, "7.1", 3600),  # which would take a core for minutes
    }
    stop_at_the_limits(forms, tmp_path)


def test_what_takes_too_much_work_is_cut_and_says_so(monkeypatch):
    from modeling_speech2face import audio

    monkeypatch.setattr(audio, "MAX_WORK", 10**7)
    content = endless("flac", 655350, "7.1", seconds=60)
    with pytest.warns(AudioCutWarning, match=r"only the first 1\.\d+ s of the recording are used"):
        waveform = load_audio(content)
    assert RATE < waveform.size < 2 * RATE


def picture_bomb(side: int) -> bytes:
    """A PNG of zeros, three colours of 16 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    packer = zlib.compressobj(9)
    rows = b"".join([packer.compress(bytes(6 * side + 1)) for _ in range(side)])
    header = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", rows + packer.flush()), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_picture_is_not_unfolded(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(picture_bomb(side=7000))
    (outcome,) = read_all([path])  # its pixels would take 294 MB
    assert outcome.kind == "refused" and "has no sound" in outcome.what
    assert outcome.megabytes < 120


def wave_header(rate: int = RATE, channels: int = 1, bits: int = 16, length: int = 3200) -> bytes:
    """A WAV that claims what it likes and holds 3200 bytes of samples."""
    block = channels * bits // 8
    form = struct.pack(
        "<HHIIHH", 1, channels & 0xFFFF, rate, (rate * block) & 0xFFFFFFFF, block & 0xFFFF, bits
    )
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", length)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + chunks + bytes(3200)


def test_what_no_recording_has_is_refused(tmp_path):
    messages = {
        "1 samples a second, but speech needs at least 4000": {"rate": 1},
        "3999 samples a second, but": {"rate": 3999},
        "claims 768001 samples a second, more than 768000": {"rate": 768001},
        "2147483647 samples a second, more than 768000": {"rate": 2**31 - 1},
        "65 channels, more than 64": {"channels": 65, "rate": 8000},
    }
    files = ((f"{i}.wav", wave_header(**claims)) for i, claims in enumerate(messages.values()))
    for message, outcome in zip(messages, read_all(save(files, tmp_path)), strict=True):
        assert outcome.kind == "refused" and message in outcome.what, outcome
        assert outcome.megabytes < 120


def test_headers_that_lie_end_in_sound_or_a_sentence(tmp_path, seeds):
    claims = {
        "rate": (0, 2**32 - 1),
        "channels": (0, 65535),
        "bits": (0, 255, 65535),
        "length": (0, 2**31, 2**32 - 1),
    }
    files = [
        (f"{name}-{value}.wav", wave_header(**{name: value}))
        for name, values in claims.items()
        for value in values
    ]
    # ALAC says in its header how many samples a packet holds, and the decoder takes memory for it.
    alac, size = seeds["mov-alac"], struct.pack(">I", 4096)
    place = alac.index(size, alac.index(b"alac"))
    huge = alac[:place] + struct.pack(">I", 4096 * 4096) + alac[place + 4 :]
    outcomes = read_all(save(iter([*files, ("huge.m4a", huge)]), tmp_path))
    assert all_well(outcomes) and len(outcomes) == 11
    assert max(outcome.megabytes for outcome in outcomes) < 120


def test_a_frame_of_more_samples_than_any_recording_s_is_refused(monkeypatch):
    from modeling_speech2face import audio

    assert load_audio(SAMPLE).size
    monkeypatch.setattr(audio, "MAX_FRAME", 1000)  # FLAC's have some 4000
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_audio(SAMPLE)


def foreign_files(folder: Path) -> list[Path]:
    """Files that are no media at all."""
    with zipfile.ZipFile(folder / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**7))
    contents = {
        "paper.pdf": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n%%EOF\n" * 50,
        "page.html": b"<html><body><audio src='http://127.0.0.1/a.mp3'></body></html>",
        "data.json": b'{"a": [1, 2, 3]}' * 100,
        "text.wav": "nichts als Text, äöü\n".encode() * 500,
        "pickle.wav": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.",
        "program.wav": Path(sys.executable).resolve().read_bytes()[:100_000],
        "zeros.wav": bytes(100_000),
        "ones.wav": b"\xff" * 100_000,
        "noise.wav": np.random.default_rng(0).bytes(100_000),
        "short.wav": b"R",
        "empty.wav": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def test_what_is_no_media_is_refused(tmp_path):
    outcomes = read_all(foreign_files(tmp_path))
    assert len(outcomes) == 12
    assert {outcome.kind for outcome in outcomes} == {"refused"}, outcomes


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "a.wav").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.wav"))
        for path, message in {
            tmp_path: "is a folder: name a file in it.",
            tmp_path / "pipe.wav": "is not a regular file",
            tmp_path / "zero.wav": "is not a regular file",
            Path("/dev/zero"): "is not a regular file",
            tmp_path / "socket.wav": "is not a regular file",
            tmp_path / "dangling.wav": "does not exist",
            tmp_path / "a.wav" / "b.wav": "does not exist",
            tmp_path / "loop.wav": "cannot be opened (",
            tmp_path / ("long" * 200): "cannot be opened (File name too long)",
            "with\0nul.wav": "with?nul.wav cannot be opened (embedded null byte)",
            "": "is a folder",
        }.items():
            with pytest.raises(AudioError) as error:
                load_audio(path)
            assert message in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize(
    "name",
    [
        "file:a.flac",
        "concat:a.flac|b.flac",
        "http:a.flac",
        "pipe:0",
        "-",
        "--help",
        "%03d.flac",
        "*.flac",
        "two\nlines.flac",
        'it\'s "quoted" $(id).flac',
        "\x1b[2Jred.flac",
        "声 🎤.flac",
        os.fsdecode(b"latin-\xe9.flac"),
    ],
)
def test_a_name_is_only_a_name(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(SAMPLE.read_bytes())
    assert np.array_equal(load_audio(path), load_audio(SAMPLE))
    path.write_bytes(b"no sound at all")
    with pytest.raises(AudioError) as error:
        load_audio(str(path))
    assert str(error.value).isprintable() and str(error.value).endswith(".")


@pytest.fixture
def host():
    """The address of a server, and the list of what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SAMPLE.read_bytes())

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


PLAYLISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{it}\n#EXT-X-ENDLIST\n",
    "key.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n"
    '#EXT-X-KEY:METHOD=AES-128,URI="{it}"\n#EXTINF:10,\n{it}\n#EXT-X-ENDLIST\n',
    "variants.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{it}\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{it}'\n",
    "list.txt": "file '{it}'\n",
    "dash.mpd": '<?xml version="1.0"?><MPD type="static" mediaPresentationDuration="PT10S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
    'mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{it}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=audio 5004 RTP/AVP 0\na=control:{it}\n",
    "play.pls": "[playlist]\nFile1={it}\nNumberOfEntries=1\n",
    "play.asx": '<asx version="3.0"><entry><ref href="{it}"/></entry></asx>',
    "redirect.ram": "{it}\n",
    "film.idx": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:01:000, filepos: 0\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_opens_neither_files_nor_hosts(name, tmp_path, host, monkeypatch):
    address, asked = host
    monkeypatch.chdir(tmp_path)  # where a reader without the playlist's path would look
    secret = tmp_path / "film.sub" if name == "film.idx" else tmp_path / "secret.flac"
    os.mkfifo(secret)
    opened, done = [], threading.Event()

    def wait_for_readers() -> None:
        while not done.is_set():
            with secret.open("wb"):  # returns once somebody opens it to read
                opened.append(name)

    watch = threading.Thread(target=wait_for_readers, daemon=True)
    watch.start()
    for it in (f"http://{address}/a.flac", secret.name, str(secret), f"file:{secret}"):
        content = PLAYLISTS[name].format(it=it).encode()
        (tmp_path / name).write_bytes(content)
        for source in (tmp_path / name, content):
            with pytest.raises(AudioError):
                load_audio(source)
    assert not asked and not opened
    done.set()
    os.close(os.open(secret, os.O_RDONLY | os.O_NONBLOCK))  # lets the thread go
    watch.join(timeout=10)
    assert opened  # it would have seen a reader


def test_an_address_is_not_asked(host):
    address, asked = host
    for name in (f"http://{address}/a.flac", f"concat:http://{address}/a.flac", "pipe:0"):
        with pytest.raises(AudioError, match="does not exist"):
            load_audio(name)
    with pytest.raises(AudioError, match="does not exist"):
        load_audio(f"file:{SAMPLE}")
    assert not asked


def test_titles_in_another_encoding_do_not_matter(tmp_path):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(bytes(2 * RATE))
    title = b"INAM" + struct.pack("<I", 6) + b"Gr\xfc\xdfe\0"
    info = b"LIST" + struct.pack("<I", 4 + len(title)) + b"INFO" + title
    content = bytearray(file.getvalue() + info)
    content[4:8] = struct.pack("<I", len(content) - 8)
    assert load_audio(bytes(content)).size == RATE


def test_what_pyav_would_print_is_not_printed(capfd):
    # A header that sends the reader to places before the file's start.
    for content in (b"nut/multimedia container\0" + b"\xff" * 300, b"\x4e\x4d" + b"\x80" * 500):
        with pytest.raises(AudioError):
            load_audio(content)
    assert "Traceback" not in capfd.readouterr().err
