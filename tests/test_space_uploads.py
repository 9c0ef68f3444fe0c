"""The Space's recordings live exactly as long as their visitors need them."""

import os
import time
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.space_server import RATE, files_in, write_film

pytest.importorskip("gradio")
pytestmark = pytest.mark.slow  # gradio is not among what the fast tests install


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    (tmp_path / "gradio" / "hash").mkdir(parents=True)
    return tmp_path / "gradio"


@pytest.fixture
def uploads(folder):
    from space.page.uploads import Uploads

    return Uploads()


def upload(uploads, folder: Path) -> Path:
    """As gradio stores it: equal files in one place."""
    place = folder / "hash" / "voice.wav"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"the same")
    answer = [str(place)]
    uploads.update(answer)
    return Path(answer[0])


def test_a_recording_goes_with_the_page_that_used_it(uploads, folder):
    first, second, unused = (upload(uploads, folder) for _ in range(3))
    uploads.keep(first, "a page")
    uploads.keep(first, "a page")
    uploads.keep(second, "another page")
    uploads.forget("a page")
    assert not first.exists() and second.exists() and unused.exists()
    uploads.forget("another page")
    assert files_in(folder) == [unused] and set(uploads) == {str(unused)}
    assert sorted(folder.iterdir()) == [unused.parent]  # no empty folder, either


def test_the_same_recording_twice_goes_twice(uploads, folder):
    for _ in range(2):
        uploads.keep(upload(uploads, folder), "a page")
    assert len(files_in(folder)) == 2
    uploads.forget("a page")
    assert not files_in(folder) and not uploads


def test_a_closed_page_keeps_nothing(uploads, folder, monkeypatch):
    from space.page import uploads as module

    uploads.forget("a page")
    late = upload(uploads, folder)
    uploads.keep(late, "a page")
    assert not files_in(folder) and not uploads
    # A browser that was away for long and comes back is a page again.
    now = time.monotonic()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 601))
    uploads.forget("another page")
    again = upload(uploads, folder)
    uploads.keep(again, "a page")
    assert again.exists()


def test_what_two_pages_use_goes_with_the_last(uploads, folder):
    shared = upload(uploads, folder)
    uploads.keep(shared, "a page")
    uploads.keep(shared, "another page")
    uploads.release(shared)
    uploads.forget("a page")
    assert shared.exists()
    uploads.forget("another page")
    assert not shared.exists()


def test_what_gradio_sweeps_away_is_forgotten(uploads, folder):
    from space.page.uploads import Swept

    old = upload(uploads, folder)
    uploads.keep(old, "a page")
    os.remove(old)
    swept = Swept(uploads)
    swept -= {str(old)}
    assert not uploads and not uploads._pages and not list(folder.glob("*/*"))
    lost = {str(folder / "lost.png")}  # one that another set's sweep took
    assert list(Swept(lost)) == [] and not lost


def test_the_sweep_spares_what_is_being_written(uploads, monkeypatch):
    from space.page.uploads import Swept

    write = Path.write_bytes

    def write_during_a_sweep(path, content):
        assert not list(Swept(uploads))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_during_a_sweep)
    path = uploads.store("face.png", b"a face")
    assert path.read_bytes() == b"a face" and set(uploads) == {str(path)}


def test_two_films_with_the_same_sound_have_two_recordings(folder, sample_recording):
    from space.page.endpoints import Endpoints

    endpoints = Endpoints(SimpleNamespace(sampling_rate=RATE))
    film = write_film(folder / "film.mp4", sample_recording)
    sounds = {}
    for page in ("a page", "another page"):
        copy = [str(folder / f"{page}.mp4")]
        Path(copy[0]).write_bytes(film.read_bytes())
        endpoints.uploads.update(copy)
        request = SimpleNamespace(session_hash=page)
        sounds[page] = Path(endpoints.sound_of_film(True, {"path": copy[0]}, request))
        assert not Path(copy[0]).exists()
    first, second = sounds.values()
    assert first != second and first.read_bytes() == second.read_bytes()
    with wave.open(str(first)) as sound:
        assert (sound.getnchannels(), sound.getframerate()) == (1, RATE)
        samples = np.frombuffer(sound.readframes(-1), "<i2")
    assert len(samples) > RATE and np.abs(samples).max() > 1000
    endpoints.forget(SimpleNamespace(session_hash="a page"))
    assert not first.exists() and second.exists()


def test_nobody_learns_which_files_the_server_has(uploads, folder, tmp_path):
    from space.page.limits import Refusal
    from space.page.uploads import ELSEWHERE, GONE, checked_path

    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    (folder / "way out").symlink_to(tmp_path)
    outside = tmp_path / "there.wav"
    outside.touch()
    for name in (
        outside,
        tmp_path / "not there.wav",
        folder / ".." / "there.wav",
        folder / ".." / "not there.wav",
        folder / "way out" / "there.wav",
        folder / "way out" / "not there.wav",
        circle,
        circle / "x",
        f"/{'x' * 5000}",
        "a\0b",
        "",
    ):
        with pytest.raises(Refusal) as refusal:
            checked_path(str(name))
        assert str(refusal.value) == ELSEWHERE, name
    with pytest.raises(Refusal) as refusal:
        checked_path(str(folder / "deleted.wav"))
    assert str(refusal.value) == GONE
    mine = upload(uploads, folder)
    assert checked_path(str(mine)) == mine
