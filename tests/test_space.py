"""The Space: its front matter and requirements, what the page's parts do, and that it starts."""

import base64
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from dataset_scripts.synthetic_cast.gallery import main as make_gallery
from modeling_speech2face import read_provenance, verify_image
from modeling_speech2face.provenance import describe, with_provenance
from space.page import texts
from space.page.figures import FIGURES, figures, table
from space.page.gallery import FOLDER, SIDE, Gallery
from space.page.limits import Refusal, Settings, checked_settings
from space.page.marks import SHOWN_SIDE, with_visible_mark
from space.page.results import VoiceResult, data_uri, results_page
from space.page.weights import BUNDLED
from tests.space_server import started
from tests.test_house import all_requirements, pins, requirements
from tests.tiny import tiny_pipeline

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
    needed = all_requirements()
    names = {requirement.name for requirement in [*needed[""], *needed["space"]]}
    assert {requirement.name for requirement in asked} == names - {"gradio"}  # that is the SDK
    for requirement in asked:
        assert requirement.specifier == pins()[requirement.name].specifier


def test_every_file_of_the_readme_is_there():
    text = (ROOT / "space" / "README.md").read_text()
    named = re.findall(r"`((?:page|gallery|examples)/[\w.]*|app\.py)`", text)
    assert len(named) >= 10
    for name in named:
        assert (ROOT / "space" / name).exists(), name


# What one visitor may ask for


def test_settings_in_their_limits_are_taken():
    assert checked_settings() == Settings()
    asked = checked_settings(2.0, 2**32 - 1, "diffusion", 30, 5, 0.25)
    assert asked == Settings(2, 2**32 - 1, "diffusion", 30, 5.0, 0.25)
    # The page's sliders stay where they are for a decoder that takes neither steps nor guidance.
    assert checked_settings(decoder="normalized", num_inference_steps=6, guidance_scale=2) == (
        Settings(decoder="normalized")
    )


@pytest.mark.parametrize("name", ["num_images", "seed", "num_inference_steps", "guidance_scale"])
@pytest.mark.parametrize("value", [-1, 1e99, float("nan"), float("inf"), "4", True, [4], {}])
def test_absurd_settings_are_refused_in_one_sentence(name, value):
    with pytest.raises(Refusal, match=r"^The [\w ]+ must be a (whole )?number from [^.]+\.$"):
        checked_settings(**{name: value})


@pytest.mark.parametrize(
    "settings", [{"num_images": 2.5}, {"num_images": None}, {"exaggeration": 0}, {"decoder": []}]
)
def test_other_wrong_settings_are_refused(settings):
    with pytest.raises(Refusal):
        checked_settings(**settings)


# The gallery


@pytest.fixture(scope="module")
def mean() -> np.ndarray:
    """The mean face of the bundled voice encoder, (D,)."""
    from modeling_speech2face import Speech2FaceConfig
    from modeling_speech2face.pipeline_speech2face import DEMO_CHECKPOINT

    config = Speech2FaceConfig.from_pretrained(DEMO_CHECKPOINT / "voice_encoder")
    return np.array(config.face_embedding_mean, np.float32)


@pytest.fixture(scope="module")
def gallery(mean) -> Gallery:
    return Gallery(mean, "dlib")


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    """What the gallery's file holds, (faces, D)."""
    return load_file(FOLDER / "gallery.safetensors")["face_embeddings"]


def test_the_gallery_finds_its_own_faces(gallery, embeddings, mean):
    assert len(gallery) == len(embeddings) > 300
    for place in (0, 100, len(embeddings) - 1):
        first, second = gallery.nearest(embeddings[place] - mean, 2)
        assert first.similarity == pytest.approx(1, abs=1e-5) and second.similarity < 0.98
        assert first.face.size == (SIDE, SIDE)
        assert np.asarray(first.face).std() > 10  # a face, not the grid's empty end
    assert 0.2 < gallery.alike < 0.9


def test_similarities_are_cosines_of_centred_embeddings(gallery, embeddings, mean):
    query = np.random.default_rng(0).standard_normal(len(mean))
    cosines = (embeddings - mean) @ query / np.linalg.norm(embeddings - mean, axis=1)
    expected = np.sort(cosines / np.linalg.norm(query))[::-1][:5]
    found = [neighbour.similarity for neighbour in gallery.nearest(query, 5)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_gallery_is_small_and_holds_no_pickle():
    files = [path for path in FOLDER.iterdir() if path.suffix != ".md"]
    assert {path.suffix for path in files} == {".jpg", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < 3e6


def test_a_gallery_of_another_teacher_is_refused():
    with pytest.raises(ValueError, match="'arcface'.*make the gallery anew"):
        Gallery(np.zeros(128), "arcface")


def write_members(folder: Path, builder: str) -> Path:
    """Two speakers a split, each with a dark frontal picture and a bright one that is not."""
    folder.mkdir()
    card = (
        f"face_recogniser: dlib, builder: {builder}, fingerprint: a, configuration: {{speakers: 4}}"
    )
    (folder / "README.md").write_text(f"---\nspeech2face: {{{card}}}\n---\nSquares.\n")
    for number, split in enumerate(("validation", "test")):
        rows = []
        for place, (speaker, frontality) in enumerate([("b", 0.9), ("b", 0.2), ("a", 0.9)]):
            picture = io.BytesIO()
            Image.new("RGB", (224, 224), (int(220 * (1 - frontality)),) * 3).save(picture, "PNG")
            rows.append(
                {
                    "speaker_id": f"{split}-{speaker}",
                    "frontality": frontality,
                    "face": {"bytes": picture.getvalue(), "path": None},
                    "face_embedding": np.eye(128)[3 * number + place].tolist(),
                }
            )
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000.parquet")
    return folder


def test_a_gallery_holds_the_most_frontal_picture_of_each_member(tmp_path):
    dataset = write_members(tmp_path / "cast", "dataset_scripts.synthetic_cast")
    assert make_gallery([str(dataset), str(tmp_path / "gallery")]) == 0
    gallery = Gallery(np.zeros(128), "dlib", tmp_path / "gallery")
    assert len(gallery) == 4
    for one in (2, 0, 5, 3):  # a before b; the pictures 1 and 4 are not frontal
        (nearest,) = gallery.nearest(np.eye(128)[one], 1)
        assert nearest.similarity == pytest.approx(1)
        assert np.asarray(nearest.face).mean() < 40
    again = tmp_path / "again"
    assert make_gallery([str(dataset), str(again)]) == 0
    for name in ("faces.jpg", "gallery.safetensors"):
        assert (again / name).read_bytes() == (tmp_path / "gallery" / name).read_bytes()


def test_a_gallery_is_made_of_the_cast_and_of_nothing_else(tmp_path, capsys):
    dataset = write_members(tmp_path / "films", "dataset_scripts.speech_face_pairs")
    assert make_gallery([str(dataset), str(tmp_path / "gallery")]) == 1
    assert "invented people alone" in capsys.readouterr().err
    assert not (tmp_path / "gallery").exists()


# What is shown


def test_the_visible_mark_is_readable_and_covers_little():
    grey = with_provenance(Image.new("RGB", (64, 64), (120, 120, 120)), describe("x", 5))
    marked = with_visible_mark(grey)
    assert read_provenance(marked)["seed"] == 5
    pixels = np.asarray(marked)
    assert pixels.shape == (SHOWN_SIDE, SHOWN_SIDE, 3)
    changed = (pixels != 120).any(axis=-1)
    assert 0.01 < changed.mean() < 0.06
    assert not changed[: SHOWN_SIDE * 4 // 5].any() and not changed[:, : SHOWN_SIDE // 2].any()
    corner = pixels[changed]
    assert corner.max() > 240 and corner.min() < 60  # white letters on a dark ground


def test_pictures_are_signed(tmp_path):
    image = with_provenance(Image.new("RGB", (8, 8)), describe("somebody/checkpoint", seed=0))
    kind, _, content = data_uri(image).partition(",")
    assert kind == "data:image/png;base64"
    (tmp_path / "face.png").write_bytes(base64.b64decode(content))
    assert verify_image(tmp_path / "face.png").signature == "valid"


def test_results_appear_face_by_face_and_escape_what_they_quote(sample_recording):
    pipeline = tiny_pipeline(with_face_traits=True)
    outputs = pipeline.stream(
        sample_recording, num_images_per_prompt=2, generator=torch.Generator().manual_seed(3)
    )
    result = VoiceResult("First voice", 2, 3)
    for drawn in (1, 2):
        result.add(next(outputs))
        html = results_page([result])
        assert html.count("<img") == drawn and html.count("s2f-waiting") == 2 - drawn
        assert "alt='Synthetic face 1 of 2, first voice'" in html
    last = next(outputs)
    last.told = "<script>alert(1)</script>"
    result.finish(last, [], FakeGallery())
    html = results_page([result], refusal="No <b>more</b>.")
    assert html.count("<img") == 4 and "What the voice fixes" in html
    assert "<script>" not in html and "No &lt;b&gt;more&lt;/b&gt;." in html
    assert html.count("download='speech2face-seed-3") == 2


class FakeGallery:
    alike = 0.5

    def __len__(self):
        return 7


def test_the_figures_of_the_page_are_those_of_the_card():
    from huggingface_hub import ModelCard

    shown = figures(str(BUNDLED))
    results = ModelCard.load(BUNDLED / "README.md").data.eval_results
    values = {
        (r.metric_type, r.metric_args["system"]): r.metric_value
        for r in results
        if r.dataset_name == results[0].dataset_name
    }
    assert f"{values['embeddings_association_auc', 'voice, 6 s']:.0%} (" in shown
    assert shown.count("<tr>") == 1 + len(FIGURES)
    assert f"Measured on {results[0].metric_args['speakers']} invented speakers" in shown


def test_no_correlation_has_no_sign():
    from huggingface_hub import EvalResult

    said = {"system": "diffusion from voice, 6 s", "interval": [-0.2, -0.004], "speakers": 9}
    kind = "faces_attribute_agreement_age_r"
    result = EvalResult("task", "data", "data", kind, -0.001, metric_args=said)
    assert "<td>0.00 (−0.20 to 0.00)</td>" in table([result], are_bundled=True)


def test_other_weights_are_not_praised_with_the_figures_of_the_bundled(tmp_path):
    card = (BUNDLED / "README.md").read_text()
    path = tmp_path / "README.md"
    path.write_text(card.replace("demo_cast", "<b>others</b>"))
    shown = figures(str(tmp_path))
    assert "speakers of the data “&lt;b&gt;others&lt;/b&gt; test”" in shown
    assert "invented" not in shown and "<b>" not in shown
    assert "invented" not in texts.CAN_AND_CANNOT_OF_OTHERS


def test_the_page_does_without_a_card_or_with_any(tmp_path, monkeypatch):
    def unreachable(*arguments, **options):
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.repocard.hf_hub_download", unreachable)
    assert figures("") == figures("somebody/faces") == figures(str(tmp_path)) == ""
    card = (BUNDLED / "README.md").read_text()
    for text in (
        "# Written by hand\n",
        "---\nlicense: mit\n---\n# Without figures\n",
        "---\n: [\n---\n",
        "---\n- a list\n---\n",
        "---\nmodel-index: 3\n---\n",
        card.replace("args:", "others:"),
        card.replace("value: 0", "value: high"),
        card.replace("speakers: 1", "speakers: <b>1"),
    ):
        (tmp_path / "README.md").write_text(text)
        assert figures(str(tmp_path)) == "", text[:50]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in a clone", "as a Space"])
def test_it_starts_by_itself_with_the_bundled_weights(where, tmp_path):
    from gradio_client import Client, handle_file

    command, folder = ["-m", "space.app"], ROOT
    if where == "as a Space":  # this folder's content, and the package beside it
        shutil.copytree(ROOT / "space", tmp_path, dirs_exist_ok=True)
        shutil.copytree(ROOT / "modeling_speech2face", tmp_path / "modeling_speech2face")
        command, folder = ["app.py"], tmp_path
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with started(command, folder, environment) as (url, page):
        assert "Draw faces" in page and "invented speakers" in page  # their figures
        client = Client(url, verbose=False, download_files=tmp_path)
        voice = handle_file(ROOT / "samples" / "librispeech-2414.flac")  # it waits for the weights
        nearest, _ = client.predict(voice=voice, consent=True, api_name="/retrieve")
        assert len(nearest) == 6


@pytest.mark.slow
def test_weights_that_cannot_be_loaded_end_the_page(tmp_path):
    tiny_pipeline(face_embedding_size=128).save_pretrained(tmp_path / "checkpoint")
    weights = tmp_path / "checkpoint" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    environment = os.environ | {"SPEECH2FACE_CHECKPOINT": str(tmp_path / "checkpoint")}
    command = [sys.executable, "-m", "space.app"]  # it answers by then, and must not go on so
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 1 and "Running on local URL" in run.stdout
    assert "checkpoint cannot be loaded" in run.stderr.splitlines()[-1]
