"""The functions behind the page, called as strangers might call them: over HTTP, with anything."""

import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modeling_speech2face import read_provenance, verify_image
from space.page.limits import KEPT_SECONDS, SWEEP_SECONDS
from tests.space_server import files_in, served, write_film, write_silence

httpx = pytest.importorskip("httpx")  # comes with gradio
pytestmark = pytest.mark.slow  # gradio is not among what the fast tests install
SETTINGS = [True, 2, 0, "diffusion", 1, 1, 1]  # after the voice, in the order of /generate
NAN = float("nan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """For the server's temporary files."""
    return tmp_path_factory.mktemp("gradio")


@pytest.fixture(scope="module")
def server(folder):
    with served(folder) as it:
        yield it


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server[0], timeout=60) as client:
        yield client


def upload(http, content: bytes, name: str = "voice.flac") -> dict:
    """Brings a file to the server; returns what a request says of it."""
    answer = http.post("gradio_api/upload", files={"files": (name, content)})
    answer.raise_for_status()
    return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}


def call(http: httpx.Client, endpoint: str, data: list) -> tuple[str, list | dict]:
    """The last event of a call ("complete" or "error"), and its data."""
    body = json.dumps({"data": data})  # with NaN, which no standard JSON has
    headers = {"content-type": "application/json"}
    started = http.post(f"gradio_api/call/{endpoint}", content=body, headers=headers)
    started.raise_for_status()
    events = http.get(f"gradio_api/call/{endpoint}/{started.json()['event_id']}").text
    event, data = re.findall(r"event: (\w+)\ndata: (.*)", events)[-1]
    return event, json.loads(data)


def sentence(http: httpx.Client, endpoint: str, data: list) -> str:
    """The one sentence by which a call is refused."""
    event, said = call(http, endpoint, data)
    assert event == "error", data
    message = said["error"]
    assert re.fullmatch(r"[A-Z][^\n]+\.", message), message
    assert "Traceback" not in message and "/tmp" not in message and "Error" not in message
    return message


def test_generate_and_retrieve_by_the_gradio_client(server, folder, sample_recording, tmp_path):
    from gradio_client import Client, handle_file

    # Another name: a copy of one of the page's examples would stay, for those who try that.
    voice = handle_file(shutil.copy(sample_recording, tmp_path / "voice.flac"))
    client = Client(server[0], verbose=False, download_files=tmp_path)
    described = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(described) == {"/generate", "/retrieve"}
    assert "they are of nobody" in described["/generate"]["description"]
    names = [p["parameter_name"] for p in described["/generate"]["parameters"]]
    assert names == ["voice", "consent", "num_images", "seed", "decoder", "steps"] + [
        "guidance_scale",
        "exaggeration",
    ]
    job = client.submit(voice=voice, consent=True, num_images=3, seed=7, api_name="/generate")
    faces, average, certainty, told, sheet = job.result(timeout=60)
    assert [len(so_far[0]) for so_far in job.outputs()] == [1, 2, 3, 3]
    for path in [*(face["image"] for face in faces), average, certainty, sheet]:
        assert read_provenance(path)["seed"] == 7 and verify_image(path).signature == "valid"
    assert told.startswith("The voice fixes")
    nearest, similarities = client.predict(voice=voice, consent=True, count=5, api_name="/retrieve")
    assert len(nearest) == len(similarities) == 5
    assert similarities == sorted(similarities, reverse=True) and similarities[0] < 1
    assert nearest[0]["caption"] == f"similarity {similarities[0]:.2f}"
    assert "voice.flac" not in {file.name for file in files_in(folder)}  # used, and deleted


def test_equal_uploads_of_several_people_are_each_served(http, folder, sample_recording):
    content = sample_recording.read_bytes()
    voices = [upload(http, content, "same.flac") for _ in range(3)]
    paths = [Path(voice["path"]) for voice in voices]
    assert len(set(paths)) == 3 and all(path.read_bytes() == content for path in paths)
    assert {path.parent.parent for path in paths} == {folder.resolve()}
    with ThreadPoolExecutor(3) as people:
        answers = list(people.map(lambda v: call(http, "retrieve", [v, True, 1]), voices))
    assert [event for event, _ in answers] == ["complete"] * 3
    assert not any(path.parent.exists() for path in paths)


def test_equal_files_of_one_upload_are_two(http):
    files = [("files", ("same.flac", b"x"))] * 2
    paths = [Path(path) for path in http.post("gradio_api/upload", files=files).json()]
    assert len(set(paths)) == 2 and [path.read_bytes() for path in paths] == [b"x"] * 2


def test_the_figures_of_the_bundled_weights_are_not_said_of_others(http):
    assert "Draw faces" in (page := http.get("config").text) and "invented speakers" not in page


def test_nothing_is_drawn_without_consent(http, sample_recording):
    voice = upload(http, sample_recording.read_bytes())
    for consent in (False, None, 1, "true"):
        assert "confirm" in sentence(http, "generate", [voice, consent, *SETTINGS[1:]])
        assert "confirm" in sentence(http, "retrieve", [voice, consent, 3])


@pytest.mark.parametrize(
    "voice",
    [
        "/etc/passwd",
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "/etc/passwd"},
        {"path": "../../../../etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "FOLDER/../secret.flac", "meta": {"_type": "gradio.FileData"}},
        {"path": "FOLDER", "meta": {"_type": "gradio.FileData"}},
        {"path": "FOLDER/nothing.flac", "meta": {"_type": "gradio.FileData"}},
        {"path": "a\0b", "meta": {"_type": "gradio.FileData"}},
        {"path": "http://127.0.0.1:1/voice.flac", "meta": {"_type": "gradio.FileData"}},
        {"path": "file:///etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "x", "url": "http://127.0.0.1:1/", "meta": {"_type": "gradio.FileData"}},
        {"path": None},
        {"path": ["FOLDER"]},
        {},
        [],
        None,
        17,
        True,
        "",
    ],
)
def test_files_that_nobody_uploaded_are_refused(http, folder, sample_recording, voice):
    secret = folder.parent / "secret.flac"
    secret.write_bytes(sample_recording.read_bytes())
    voice = json.loads(json.dumps(voice).replace("FOLDER", str(folder)))
    sentence(http, "generate", [voice, *SETTINGS])
    sentence(http, "retrieve", [voice, True, 3])
    assert secret.exists()


@pytest.mark.parametrize("endpoint", ["generate", "retrieve"])
def test_the_answer_does_not_tell_which_files_the_server_has(http, endpoint):
    from space.page.uploads import ELSEWHERE

    more = {"generate": SETTINGS, "retrieve": [True, 3]}[endpoint]
    said = {
        sentence(http, endpoint, [{"path": path, "meta": {"_type": "gradio.FileData"}}, *more])
        for path in ("/etc/passwd", "/etc/no such file", "/etc", "setup.cfg", "no such file")
    }
    assert said == {ELSEWHERE}


def test_no_picture_lies_there_unsigned(http, folder, sample_recording, monkeypatch):
    from space.page import endpoints
    from space.page.errors import UNEXPECTED

    sign, times = endpoints.signed_png, iter([True, True, False])
    monkeypatch.setattr(
        endpoints, "signed_png", lambda image: sign(image) if next(times) else 1 / 0
    )
    before = set(files_in(folder))
    voice = upload(http, sample_recording.read_bytes())
    assert sentence(http, "generate", [voice, True, 4, *SETTINGS[2:]]) == UNEXPECTED
    pictures = [path for path in files_in(folder) if path not in before]
    assert len(pictures) == 2
    assert {verify_image(path).signature for path in pictures} == {"valid"}


@pytest.mark.parametrize("place", range(1, 7))
def test_absurd_parameters_are_refused(http, sample_recording, place):
    elsewhere = {"path": "http://127.0.0.1:1/", "meta": {"_type": "gradio.FileData"}}
    absurd = [-1, 10**400, NAN, float("inf"), "four", "4", [4], {}, True, elsewhere, 'x"\n' * 999]
    voice = upload(http, sample_recording.read_bytes())
    for value in absurd:
        settings = list(SETTINGS)
        settings[place] = value
        sentence(http, "generate", [voice, *settings])
        voice = upload(http, sample_recording.read_bytes())
    for value in absurd:
        voice = upload(http, sample_recording.read_bytes())
        sentence(http, "retrieve", [voice, True, value])


def test_too_few_values_and_bodies_that_are_none(http):
    sentence(http, "generate", [])
    for body in (b"", b"{", b"[]", b'{"data": 3}', b"\xff\xfe"):
        headers = {"content-type": "application/json"}
        answer = http.post("gradio_api/call/generate", content=body, headers=headers)
        assert 400 <= answer.status_code < 500


def test_wrong_files_are_refused_and_deleted(http, sample_recording, tmp_path):
    content = sample_recording.read_bytes()
    wrong = {
        "text.wav": (b"this is not a sound", "cannot be decoded"),
        "empty.wav": (b"", "empty"),
        "half.flac": (content[:200], "."),
        "list.m3u8": (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "cannot be decoded"),
        "silent.flac": (write_silence(tmp_path / "silent.flac").read_bytes(), "silent"),
        "page.html": (b"<script>alert(1)</script>", "cannot be decoded"),
    }
    for name, (bytes_of, words) in wrong.items():
        voice = upload(http, bytes_of, name)
        assert words in sentence(http, "generate", [voice, *SETTINGS]), name
        assert not Path(voice["path"]).exists()
    film = write_film(tmp_path / "film.mp4", sample_recording)
    event, _ = call(http, "generate", [upload(http, film.read_bytes(), "film.mp4"), *SETTINGS])
    assert event == "complete"


def test_too_large_a_file_is_refused_before_it_is_stored(http):
    answer = http.post("gradio_api/upload", files={"files": ("big.wav", bytes(21 << 20))})
    assert answer.status_code == 413 and "maximum allowed size" in answer.text


def test_files_of_the_server_cannot_be_read(http):
    for path in ("/etc/passwd", "setup.cfg", "space/app.py", "../../etc/passwd"):
        assert http.get(f"gradio_api/file={path}").status_code in (403, 404)


def test_the_sweep_goes_on_while_others_upload(http, server, folder, sample_recording, monkeypatch):
    from gradio.route_utils import delete_files_created_by_app

    _, app = server
    films = next(block for block in app.blocks.values() if block.get_block_name() == "audio")
    old = [upload(http, bytes([number])) for number in range(3)]
    sounds = [folder / f"film {number}.wav" for number in range(3)]
    for path in sounds:
        path.touch()
    films.temp_files.update(map(str, sounds))
    remove = os.remove

    def remove_and_upload(path):
        remove(path)
        name = folder / f"new {Path(path).name}"
        app.upload_file_set.add(str(name))
        films.temp_files.add(str(name))

    time.sleep(0.1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "remove", remove_and_upload)
        delete_files_created_by_app(app, age=0)
    assert not any(path.exists() for path in [*sounds, *(Path(file["path"]) for file in old)])
    # What was used, and deleted then, is not looked for in every sweep from now on.
    call(http, "retrieve", [upload(http, sample_recording.read_bytes(), "x.flac"), True, 1])
    assert not any(file.endswith("x.flac") for file in app.upload_file_set)


def test_nothing_stays_behind(http, server, folder, sample_recording):
    from gradio.route_utils import delete_files_created_by_app

    from space.page.uploads import EXAMPLES

    _, app = server
    voice = upload(http, sample_recording.read_bytes(), "never used.flac")
    assert files_in(folder)  # that, and what the calls above returned
    every, age = app.delete_cache  # when gradio itself looks for the old
    assert every == SWEEP_SECONDS and every + age == KEPT_SECONDS
    delete_files_created_by_app(app, age)
    assert Path(voice["path"]).exists()  # it is young
    time.sleep(0.1)
    delete_files_created_by_app(app, age=0)
    assert not files_in(folder)
    for example in EXAMPLES:  # they are no visitor's, and stay
        content = example.read_bytes()
        assert http.get(f"gradio_api/file={example}").content == content
        voice = {"path": str(example), "meta": {"_type": "gradio.FileData"}}
        event, said = call(http, "retrieve", [voice, True, 1])
        assert event == "complete", said
        assert example.read_bytes() == content
    event, _ = call(http, "generate", [upload(http, sample_recording.read_bytes()), *SETTINGS])
    assert event == "complete"  # and after all this it still draws
