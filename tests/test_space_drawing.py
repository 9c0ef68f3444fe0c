"""How the Space draws: one at a time, in its time, before it is loaded, and on ZeroGPU."""

import asyncio
import pickle
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from modeling_speech2face import CheckpointError, load_audio, read_provenance
from tests.space_server import RATE
from tests.tiny import tiny_pipeline

gr = pytest.importorskip("gradio")
pytestmark = pytest.mark.slow  # gradio is not among what the fast tests install
FEW, MANY = 3, 7  # denoising steps


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import DPMSolverMultistepScheduler

    pipeline = tiny_pipeline(with_normalized_decoder=True, face_embedding_size=128)
    # As the bundled weights': it counts its steps, so that two drawings could disturb each other.
    pipeline.scheduler = DPMSolverMultistepScheduler(prediction_type="v_prediction")
    return pipeline


@pytest.fixture
def artist(pipeline):
    from space.page.drawing import Artist

    return Artist(pipeline)


@pytest.fixture(scope="module")
def voice(sample_recording) -> np.ndarray:
    return load_audio(sample_recording, RATE)[: 2 * RATE]


def settings(steps: int, faces: int = 4):
    from space.page.limits import Settings

    return Settings(num_images=faces, num_inference_steps=steps)


def faces_of(artist, voices, steps: int) -> list[bytes]:
    drawn = list(artist.draw(voices, settings(steps)))
    return [face.tobytes() for face in drawn[-1].output.images]


def drawn_at_once(artist, voice) -> list[list[bytes]]:
    """What several people are drawn who come at the same moment, every other with more steps."""
    people = 6
    start = threading.Barrier(people)

    def ask(number: int) -> list[bytes]:
        start.wait()
        return faces_of(artist, [voice], (FEW, MANY)[number % 2])

    switches = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # seconds; threads take turns as often as they can
    try:
        with ThreadPoolExecutor(people) as crowd:
            return list(crowd.map(ask, range(people)))
    finally:
        sys.setswitchinterval(switches)


def test_two_drawings_at_once_do_not_disturb_each_other(artist, voice):
    alone = [faces_of(artist, [voice], steps) for steps in (FEW, MANY)]
    assert alone[0] != alone[1]
    assert drawn_at_once(artist, voice) == alone * 3
    artist._one_at_a_time = nullcontext()
    try:
        disturbed = drawn_at_once(artist, voice) != alone * 3
    except gr.Error:  # of an IndexError in the scheduler
        disturbed = True
    assert disturbed  # that is what the lock is for


def test_who_leaves_in_the_middle_holds_up_nobody(artist, voice):
    drawing = artist.draw([voice], settings(FEW))
    next(drawing)
    with ThreadPoolExecutor(1) as other:
        assert len(other.submit(faces_of, artist, [voice], FEW).result(timeout=60)) == 4
    assert next(drawing).output.images  # and who stays goes on


def test_the_limit_holds_for_all_voices_of_a_click(artist, voice, monkeypatch):
    from space.page import drawing

    clock = iter(range(0, 1000, 8))  # seconds: each face takes eight
    monkeypatch.setattr(drawing, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    assert len(list(artist.draw([voice], settings(FEW)))) == 5
    faces = []
    with pytest.raises(gr.Error, match=r"longer than the 60 s that a click may.*fewer faces"):
        for drawn in artist.draw([voice, voice], settings(FEW)):
            faces.append(drawn)
    assert [drawn.voice for drawn in faces] == [0] * 5 + [1] * 3


def test_what_belongs_to_each_voice_comes_with_its_last_face(artist, voice):
    drawn = list(artist.draw([voice, voice[RATE // 20 :]], settings(FEW, faces=2), nearest=3))
    assert [one.voice for one in drawn] == [0, 0, 0, 1, 1, 1]
    assert [len(one.nearest) for one in drawn] == [0, 0, 3] * 2
    assert [one.output.average_face is not None for one in drawn] == [False, False, True] * 2
    assert drawn[2].nearest[0].similarity == artist.nearest(voice, 1)[0].similarity


# Before the weights are loaded


@pytest.fixture
def checkpoint(pipeline, tmp_path, monkeypatch):
    pipeline.save_pretrained(tmp_path / "checkpoint")
    monkeypatch.setenv("SPEECH2FACE_CHECKPOINT", str(tmp_path / "checkpoint"))
    return tmp_path / "checkpoint"


def test_what_the_page_says_at_once_is_what_is_loaded_later(checkpoint, pipeline):
    from space.page.weights import announced_weights, load_pipeline, weights_of

    announced = announced_weights()
    assert announced == weights_of(load_pipeline(str(checkpoint)))
    assert (announced.num_inference_steps, announced.guidance_scale) == (2, 2.0)
    assert announced.have_normalized_decoder and not announced.are_bundled
    tiny_pipeline().save_pretrained(checkpoint)
    assert not announced_weights().have_normalized_decoder


def test_the_bundled_weights_are_announced_if_none_are_named(monkeypatch):
    from space.page.weights import announced_weights

    monkeypatch.delenv("SPEECH2FACE_CHECKPOINT", raising=False)
    weights = announced_weights()
    assert weights.are_bundled and weights.have_normalized_decoder


@pytest.mark.parametrize("index", [None, "{", "[]", "{}", '{"num_inference_steps": 3}'])
def test_what_is_no_checkpoint_is_refused_before_the_page_answers(checkpoint, index):
    from space.page.layout import build_app

    (checkpoint / "model_index.json").unlink()
    if index is not None:
        (checkpoint / "model_index.json").write_text(index)
    with pytest.raises(CheckpointError, match=f"{checkpoint} has no model_index.json of a Speech2"):
        build_app()


def test_who_comes_early_waits(checkpoint, voice):
    from space.page.drawing import Artist

    artist = Artist()
    with ThreadPoolExecutor(1) as visitor:
        drawing = visitor.submit(faces_of, artist, [voice], FEW)
        assert not drawing.done()
        artist.load()
        assert len(drawing.result(timeout=60)) == 4
    loaded = artist.gallery
    artist.load()
    assert artist.gallery is loaded  # once


def test_the_example_comes_to_all_who_wait_for_it_and_keeps_no_thread(artist):
    from space.page.endpoints import Endpoints

    page = Endpoints(artist)
    running = threading.active_count()

    async def visit() -> list[str]:
        return [shown async for shown in page.example()]

    async def come_early() -> list[list[str]]:
        visitors = [asyncio.create_task(visit()) for _ in range(50)]
        await asyncio.sleep(0)
        assert threading.active_count() == running
        await asyncio.to_thread(page.draw_example)
        return await asyncio.wait_for(asyncio.gather(*visitors), timeout=60)

    for early, late in asyncio.run(come_early()):
        assert "just been started" in early and "<img" not in early
        assert late.count("<img") == 4 and "just been started" not in late
    assert asyncio.run(visit()) == [late]


@pytest.mark.parametrize(
    "kind, is_told", [("EntryNotFoundError", True), ("LocalEntryNotFoundError", False)]
)
def test_a_hub_that_cannot_be_reached_is_not_taken_for_one_without_weights(
    monkeypatch, kind, is_told
):
    from huggingface_hub import errors

    from space.page.weights import announced_weights

    def download(*_):
        raise getattr(errors, kind)("so says the Hub")

    monkeypatch.setenv("SPEECH2FACE_CHECKPOINT", "somebody/faces")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(Exception) as error:
        announced_weights()
    assert ("somebody/faces has no model_index.json" in str(error.value)) is is_told
    assert ("so says the Hub" in str(error.value)) is not is_told


def test_a_page_without_its_example_serves_all_the_same(artist, voice, monkeypatch, caplog):
    from space.page import endpoints

    page = endpoints.Endpoints(artist)
    with monkeypatch.context() as patch:
        patch.setattr(endpoints, "read_voice", lambda *_: np.full(9, np.nan))
        page.draw_example()
    assert page._example == ""  # that is: nobody waits for it
    assert len(faces_of(page.artist, [voice], FEW)) == 4


# ZeroGPU, whose package runs the decorated functions in processes of their own


SPACES = '''
"""Behaves as the package `spaces` where it matters: what goes in and comes out is pickled, errors
are told by their class alone, unless they are gradio's, and it must come before torch looks."""

import pickle
import inspect
import gradio as gr
import torch

assert torch.version.cuda  # it takes hold of what torch has for CUDA alone
functions = []
torch.cuda.is_available = lambda: asked.append(torch) or False
asked = []


def _passed(value):
    return pickle.loads(pickle.dumps(value))


def _told(error):
    if isinstance(error, gr.Error):
        return _passed(error)
    return gr.Error(type(error).__name__)


def GPU(function, duration=60):
    assert duration > 0
    functions.append(function.__name__)

    def call(*args):
        try:
            return _passed(function(*_passed(args)))
        except Exception as error:
            raise _told(error) from None

    def generate(*args):
        try:
            for value in function(*_passed(args)):
                assert not any(isinstance(v, torch.Tensor) for v in vars(value.output).values())
                yield _passed(value)
        except Exception as error:
            raise _told(error) from None

    return generate if inspect.isgeneratorfunction(function) else call
'''


@pytest.fixture
def zero_gpu(tmp_path, monkeypatch):
    """As in a Space with ZeroGPU."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "spaces.py").write_text(SPACES)
    monkeypatch.syspath_prepend(tmp_path / "package")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    # What the package replaces, too, is put back.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("before spaces came"))
    yield
    sys.modules.pop("spaces", None)


def test_zero_gpu_draws_the_same_faces(artist, checkpoint, voice, zero_gpu):
    from space.page.drawing import Artist

    lent = Artist()
    lent.load()
    import spaces

    assert spaces.asked and spaces.functions == ["_draw", "_look_up"]
    drawn = list(lent.draw([voice], settings(FEW), nearest=2))
    expected = list(artist.draw([voice], settings(FEW), nearest=2))
    for one, other in zip(drawn, expected, strict=True):
        assert [a.tobytes() for a in one.output.images] == [
            b.tobytes() for b in other.output.images
        ]
    assert read_provenance(drawn[-1].output.average_face)["seed"] == 0
    assert [n.similarity for n in drawn[-1].nearest] == [
        n.similarity for n in lent.nearest(voice, 2)
    ]


def test_zero_gpu_tells_visitors_what_is_wrong(checkpoint, zero_gpu):
    from space.page.drawing import Artist
    from space.page.errors import sentence_of

    lent = Artist()
    lent.load()
    silence = np.zeros(3 * RATE, np.float32)
    for ask in (
        lambda: list(lent.draw([silence], settings(FEW))),
        lambda: lent.nearest(silence, 2),
    ):
        with pytest.raises(gr.Error) as error:
            ask()
        assert sentence_of(error.value).startswith("The recording is silent: check the micro")


def test_zero_gpu_loads_before_it_is_launched(checkpoint, zero_gpu):
    from space.page.layout import build_app, serve

    app, seen = build_app(), []
    app.launch = lambda **_: seen.append(app.endpoints.artist._loaded.is_set()) or (0, "address", 0)
    assert serve(app) == "address" and seen == [True]


def test_anywhere_else_it_loads_when_it_answers_already(checkpoint):
    from space.page.layout import build_app, serve

    app, seen = build_app(), []
    app.launch = lambda **_: seen.append(app.endpoints.artist._loaded.is_set()) or (0, "address", 0)
    assert serve(app) == "address" and seen == [False] and app.endpoints.artist.gallery


def test_a_key_that_is_none_is_told_at_the_start(pipeline, monkeypatch):
    from space.page.layout import build_app, serve
    from space.page.signed_images import signing_key

    monkeypatch.setenv("SPEECH2FACE_CERTIFICATE", "-----BEGIN none")
    monkeypatch.setenv("SPEECH2FACE_KEY", "-----BEGIN secret")
    signing_key.cache_clear()
    with pytest.raises(ValueError, match="the certificate in .SPEECH2FACE_CERTIFICATE holds no"):
        serve(build_app(pipeline))


def test_zero_gpu_with_the_torch_of_a_cpu_is_told_at_the_start(checkpoint, zero_gpu, monkeypatch):
    from space.page.drawing import Artist

    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(RuntimeError, match=r"ZeroGPU.*requirements.txt.*README.md says"):
        Artist().load()


def test_errors_of_gradio_survive_the_way_between_processes():
    error = pickle.loads(pickle.dumps(gr.Error("Nobody speaks.", print_exception=False)))
    assert error.message == "Nobody speaks." and error.print_exception is False
