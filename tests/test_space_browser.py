"""The Space's page in a real browser. What it looked like stays in `outputs/space_screenshots`."""

import io
import shutil
import time

import pytest
from PIL import Image

from modeling_speech2face import read_provenance
from tests.conftest import ROOT
from tests.space_server import RATE, served, write_film, write_silence
from tests.tiny import tiny_pipeline

pytestmark = pytest.mark.slow
SCREENSHOTS = ROOT / "outputs" / "space_screenshots"
PATIENCE = 120_000  # milliseconds, on a machine that does other things as well
SERVED_SECONDS = 30  # what each of ten users at once may have to wait


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served(tmp_path_factory.mktemp("gradio")) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory, sample_recording):
    """Chromium, whose microphone hears the sample recording again and again."""
    import soundfile
    from playwright.sync_api import sync_playwright

    from modeling_speech2face import load_audio

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    soundfile.write(heard, load_audio(sample_recording, RATE), RATE)
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    ]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page; whatever it asks of others, or complains about, fails the test."""
    complaints, contexts = [], []

    def open_page(expected: str = "", **options):
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        )
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        local = (address, "data:", "blob:")
        page.on(
            "request",
            lambda request: request.url.startswith(local) or complaints.append(request.url),
        )
        page.on(
            "console",
            lambda message: (
                message.type == "error"
                and message.text != expected
                and complaints.append(message.text)
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.get_by_role("heading", name="Speech2Face", exact=True).wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def agree(page) -> None:
    page.get_by_label("This is my own voice").check()
    page.get_by_role("button", name="Draw faces").and_(page.locator(":enabled")).wait_for()


def upload(page, file, recorder: int = 0) -> None:
    page.get_by_label("Upload file").nth(recorder).click()
    page.locator("input[type=file][accept*=audio]").last.set_input_files(file)


def waveform_of(page, number: int = 0):
    return page.get_by_test_id("waveform-controls").nth(number)


def draw(page, faces: int = 4, voices: int = 1) -> None:
    """Clicks, and waits for the faces and for what comes with the last of them."""
    page.get_by_role("button", name="Draw faces").click()
    page.get_by_text(f"{faces} face{'s'[: faces - 1]} drawn").wait_for()
    page.get_by_role("link", name="Download the sheet").nth(voices - 1).wait_for()


def said(page) -> str:
    """The sentence by which the page refuses."""
    page.get_by_role("button", name="Draw faces").click()
    return page.locator("#faces [role=alert]").inner_text()


def faults(page) -> list[str]:
    """Serious and critical faults of accessibility, found by axe-core."""
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {[node['target'] for node in fault['nodes']]}"
        for fault in violations
        if fault["impact"] in ("serious", "critical")
    ]


def look(page, name: str) -> None:
    page.wait_for_timeout(500)  # until nothing fades in any more
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_who_comes_right_after_the_start(browser, tmp_path, monkeypatch):
    from space.page.layout import LAUNCH_OPTIONS, build_app

    tiny_pipeline(face_embedding_size=128).save_pretrained(tmp_path / "checkpoint")
    monkeypatch.setenv("SPEECH2FACE_CHECKPOINT", str(tmp_path / "checkpoint"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    app = build_app()
    options = {"quiet": True, "server_name": "127.0.0.1", **LAUNCH_OPTIONS}
    _, address, _ = app.launch(prevent_thread_lock=True, **options)
    try:
        reader, hasty = browser.new_page(), browser.new_page()
        for page in (reader, hasty):
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            page.get_by_text("The page has just been started").wait_for()
        assert not faults(reader)
        look(reader, "early")
        agree(hasty)
        hasty.get_by_role("button", name="A man reads", exact=True).click()
        waveform_of(hasty).wait_for()
        hasty.get_by_role("button", name="Draw faces").click()
        hasty.get_by_text("0 of 4 faces are drawn").wait_for()
        app.endpoints.artist.load()
        hasty.get_by_text("4 faces drawn").wait_for()
        app.endpoints.draw_example()
        reader.get_by_text("For example, from a recording").wait_for()
        assert reader.locator("#example img").count() == 4
        hasty.locator("#example img").nth(3).wait_for(state="attached")
        assert hasty.get_by_text("4 faces drawn").is_visible()  # the example does not cover them
        assert not hasty.locator("#example").is_visible()
    finally:
        reader.close()
        hasty.close()
        app.close(verbose=False)


def test_an_upload_and_all_that_comes_of_it(visit, sample_recording, tmp_path):
    page = visit()
    assert page.get_by_role("button", name="Draw faces").is_disabled()
    assert page.get_by_test_id("waveform-controls").count() == 0  # nothing before the consent
    assert not faults(page)
    look(page, "before")
    agree(page)
    upload(page, sample_recording)
    waveform_of(page).wait_for()
    draw(page)
    images = page.locator("#faces img")
    assert images.count() == 4 + 2 + 6  # faces, average and certainty, nearest
    for image in images.all():
        assert image.get_attribute("alt") and image.evaluate("image => image.naturalWidth") == 256
    assert page.locator(".s2f-told").inner_text().startswith("The voice fixes")
    assert page.get_by_text("These people do not exist").is_visible()
    for name, content in (("Download the sheet", "several"), ("Download the certainty", "agree")):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.suffix == ".png" and content in read_provenance(path)["content"]
    page.get_by_text("More settings").click()
    page.get_by_text("Use it from code").click()
    assert not faults(page)
    look(page, "upload")


def test_a_recording_by_the_microphone_and_the_papers_decoder(visit):
    page = visit(permissions=["microphone"])
    agree(page)
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(4000)
    page.get_by_role("button", name="Stop", exact=True).click()
    waveform_of(page).wait_for()
    page.get_by_text("More settings").click()
    page.get_by_label("The average-looking face").check()
    page.get_by_role("spinbutton", name="Number of faces").fill("1")
    draw(page, faces=1)
    look(page, "microphone")


def test_two_examples_side_by_side_by_keyboard(visit, sample_recording):
    page = visit()
    page.get_by_label("This is my own voice").focus()
    page.keyboard.press("Space")
    example = page.get_by_role("button", name="A woman reads", exact=True)
    example.focus()
    page.keyboard.press("Enter")
    waveform_of(page).wait_for()
    page.get_by_label("Compare with a second voice").check()
    upload(page, sample_recording, recorder=1)
    waveform_of(page, 1).wait_for()
    draw(page, faces=8, voices=2)
    assert page.get_by_role("heading", name="Second voice").is_visible()
    voices = page.locator(".s2f-voice")
    first, second = voices.nth(0).bounding_box(), voices.nth(1).bounding_box()
    assert first["y"] == second["y"] and second["x"] > first["x"] + first["width"] - 1
    assert not faults(page)
    look(page, "two")


def test_the_voice_of_a_film(visit, sample_recording, tmp_path):
    page = visit()
    agree(page)
    film = write_film(tmp_path / "film.mp4", sample_recording)
    page.locator("input[type=file][accept*=video]").set_input_files(film)
    waveform_of(page).wait_for()
    draw(page)


@pytest.mark.parametrize("kind", ["nothing", "no sound", "silence"])
def test_what_is_no_voice_is_refused_in_the_page(visit, tmp_path, kind):
    # What gradio's player says of a file that no browser can play.
    page = visit(expected="Waveform load error: MediaError" if kind == "no sound" else "")
    agree(page)
    words = "Record or upload a voice first."
    if kind != "nothing":
        file = tmp_path / "voice.wav"
        if kind == "silence":
            write_silence(file)
            words = "The recording is silent: check the microphone and record again."
        else:
            file.write_bytes(b"RIFF this is not a sound")
            words = "The recording cannot be decoded, it is damaged or not an audio or video file: "
            words += "export it again."
        with page.expect_response(lambda response: "/upload" in response.url):
            upload(page, file)
        page.get_by_label("Clear").or_(waveform_of(page)).first.wait_for()
    assert said(page) == words
    look(page, f"refused-{kind.replace(' ', '-')}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_in_light_and_dark(visit, scheme):
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    agree(page)
    page.get_by_role("button", name="A man reads", exact=True).click()
    waveform_of(page).wait_for()
    draw(page)
    page.get_by_text("More settings").click()
    page.get_by_text("Use it from code").click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = Image.open(io.BytesIO(page.screenshot())).convert("L").getpixel((2, 2))
    assert background < 60 if scheme == "dark" else background > 200
    assert not faults(page)
    look(page, f"phone-{scheme}")


def test_ten_users_at_once_are_each_served(visit):
    pages = [visit() for _ in range(10)]
    for page in pages:
        agree(page)
        page.get_by_role("button", name="A man reads", exact=True).click()
    for page in pages:
        waveform_of(page).wait_for()
    clicked = time.monotonic()
    for page in pages:
        page.get_by_role("button", name="Draw faces").click()
    for page in pages:
        page.get_by_role("link", name="Download the sheet").wait_for()
    assert time.monotonic() - clicked < SERVED_SECONDS
