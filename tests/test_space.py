"""The Space: its front matter and requirements, what the page does, and the page in a browser."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.test_house import all_requirements, pins, requirements

ROOT = Path(__file__).resolve().parent.parent


def front_matter() -> dict:
    import yaml

    _, matter, _ = (ROOT / "space" / "README.md").read_text().split("---", 2)
    return yaml.safe_load(matter)


def test_front_matter_names_what_the_space_needs():
    matter = front_matter()
    assert matter["sdk"] == "gradio"
    assert str(pins()["gradio"].specifier) == f"=={matter['sdk_version']}"
    assert str(matter["python_version"]) == "3.11"  # Spaces start with 3.10: too old
    assert (ROOT / "space" / matter["app_file"]).is_file()
    assert matter["license"] == "apache-2.0"


def test_requirements_are_the_packages_in_the_known_versions():
    asked = requirements((ROOT / "space" / "requirements.txt").read_text())
    assert {r.name for r in asked} == {r.name for r in all_requirements()[""]}
    for requirement in asked:
        assert requirement.specifier == pins()[requirement.name].specifier


@pytest.fixture(scope="module")
def pipeline():
    from tests.tiny import tiny_pipeline

    return tiny_pipeline(with_face_traits=True)


@pytest.mark.slow
def test_the_visible_mark_is_readable_and_covers_little():
    import numpy as np
    from PIL import Image

    from space.app import SHOWN_SIZE, with_visible_mark

    marked = np.asarray(with_visible_mark(Image.new("RGB", (64, 64), (120, 120, 120))))
    assert marked.shape == (SHOWN_SIZE, SHOWN_SIZE, 3)
    assert (marked[: -SHOWN_SIZE // 10] == 120).all()
    strip = marked[-SHOWN_SIZE // 10 :]
    assert strip.max() > 240 and strip.min() < 80  # white letters on a dark ground


@pytest.mark.slow
def test_faces_keep_their_provenance_and_repeat_with_the_seed(pipeline, sample_recording):
    from modeling_speech2face import read_provenance
    from space.app import SHOWN_SIZE, make_faces

    images, average, certainty, told = make_faces(pipeline, str(sample_recording), 3, seed=5)
    assert len(images) == 3
    for image in [*images, average, certainty]:
        assert read_provenance(image)["seed"] == 5
    for image in [*images, average]:
        assert image.size == (SHOWN_SIZE, SHOWN_SIZE)
    assert certainty.width == SHOWN_SIZE < certainty.height  # with a scale below
    assert told.startswith("The voice fixes")
    again = make_faces(pipeline, str(sample_recording), 3, seed=5)[0]
    other = make_faces(pipeline, str(sample_recording), 3, seed=6)[0]
    assert [i.tobytes() for i in again] == [i.tobytes() for i in images]
    assert [i.tobytes() for i in other] != [i.tobytes() for i in images]


@pytest.mark.slow
def test_bad_recordings_are_refused_with_a_sentence(pipeline, tmp_path):
    import gradio as gr
    import numpy as np
    import soundfile

    from space.app import make_faces

    silent, short, text = tmp_path / "silent.flac", tmp_path / "short.flac", tmp_path / "text.wav"
    soundfile.write(silent, np.zeros(3 * 16000), 16000)
    soundfile.write(short, np.zeros(8000), 16000)
    text.write_text("this is not a sound")
    for voice, words in [
        (None, "Record or upload"),
        (silent, "silent"),
        (short, "0.5 s"),
        (text, "cannot be decoded"),
    ]:
        with pytest.raises(gr.Error) as refusal:
            make_faces(pipeline, voice and str(voice), 4, seed=0)
        message = refusal.value.message
        assert words in message
        assert message[0].isupper() and "\n" not in message and str(tmp_path) not in message


@pytest.mark.slow
def test_a_single_face_has_no_certainty(pipeline, sample_recording):
    from space.app import make_faces

    images, _, certainty, _ = make_faces(pipeline, str(sample_recording), 1, seed=0)
    assert len(images) == 1 and certainty is None


@pytest.mark.slow
def test_the_page_in_a_browser(pipeline, sample_recording, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    from space.app import LAUNCH_OPTIONS, build_app

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    app = build_app(pipeline)
    _, address, _ = app.launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **LAUNCH_OPTIONS
    )
    requests = []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.on("request", lambda request: requests.append(request.url))
            page.goto(address)
            page.get_by_label("Upload file").first.click()
            page.locator("input[type=file]").first.set_input_files(sample_recording)
            page.locator("audio, [data-testid=waveform-controls]").first.wait_for(state="attached")
            page.get_by_role("button", name="Show faces").click()
            faces = page.locator(".grid-container img")
            expect(faces).to_have_count(4, timeout=60_000)
            for image in faces.all():
                expect(image).to_have_js_property("naturalWidth", 256)
            expect(page.locator(".image-container img")).to_have_count(2)
            expect(page.get_by_text("it leaves open:")).to_be_visible()
            page.screenshot(path=tmp_path / "page.png", full_page=True)
            browser.close()
    finally:
        app.close()
    local = (address, "data:", "blob:")
    assert requests and not [url for url in requests if not url.startswith(local)]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["-m", "space.app"], ["space/app.py"]])
def test_it_starts_by_itself_with_the_bundled_weights(arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "GRADIO_SERVER_PORT": port, "GRADIO_SERVER_NAME": "127.0.0.1"},
    )
    try:
        for _ in range(240):
            assert server.poll() is None, "the server ended"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/config") as answer:
                    assert b"Show faces" in answer.read()
                return
            except OSError:
                time.sleep(0.5)
        pytest.fail("no answer within two minutes")
    finally:
        server.terminate()
        server.wait()
