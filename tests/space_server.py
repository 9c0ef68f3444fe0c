"""The Space's page, served for a test; and recordings of every kind to bring to it."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

RATE = 16000  # Hz


@contextmanager
def served(folder: Path) -> Iterator[tuple]:
    """Serves the page with a tiny pipeline.

    Args:
        folder: for its temporary files.

    Yields:
        The page's address, and its `gr.Blocks`.
    """
    from tests.tiny import tiny_pipeline

    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    from space.page.layout import build_app, serve

    pipeline = tiny_pipeline(
        with_normalized_decoder=True, with_face_traits=True, face_embedding_size=128
    )
    app = build_app(pipeline)
    try:
        yield serve(app, quiet=True, server_name="127.0.0.1"), app
    finally:
        app.close(verbose=False)
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def started(arguments: list, cwd: Path, environment: dict) -> Iterator[tuple[str, str]]:
    """Starts a process that serves a page, until the block ends.

    Args:
        arguments: of Python.
        cwd: where it runs.
        environment: its variables; a free port is added.

    Yields:
        Its address, and what it says of itself once it answers: its configuration as JSON.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"GRADIO_SERVER_PORT": port, "GRADIO_SERVER_NAME": "127.0.0.1"}
    server = subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=environment | address)
    url = f"http://127.0.0.1:{port}"
    try:
        yield url, _first_answer(server, f"{url}/config")
    finally:
        server.terminate()
        server.wait()


def _first_answer(server: subprocess.Popen, url: str) -> str:
    """Asks a starting server until it answers, for five minutes at most."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.1)
    raise AssertionError("no answer within five minutes")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def write_silence(path: Path) -> Path:
    import soundfile

    soundfile.write(path, np.zeros(3 * RATE), RATE)
    return path


def write_film(path: Path, recording: Path) -> Path:
    """A film of a grey wall, with the sound of a recording."""
    import av

    from modeling_speech2face import load_audio

    waveform = load_audio(recording, RATE)
    with av.open(str(path), "w") as film:
        picture = film.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        sound = film.add_stream("aac", rate=RATE)
        for _ in range(int(10 * len(waveform) / RATE)):
            grey = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
            film.mux(picture.encode(grey))
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for stream, last in ((sound, frame), (sound, None), (picture, None)):
            film.mux(stream.encode(last))
    return path
