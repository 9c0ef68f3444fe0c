"""The modules for `evaluate` that compare embeddings: they load from their folders and agree."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.measures.association import association
from training.measures.consistency import consistency
from training.measures.resampling import SpeakerBootstrap
from training.measures.retrieval import ranks, retrieval, speaker_gallery
from training.measures.similarity import feature_similarity

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "training" / "metrics"
NAMES = ("feature_similarity", "retrieval", "association", "consistency")
ROUNDS = {"rounds": 50, "seed": 3}


@pytest.fixture(scope="module")
def modules():
    import evaluate

    return {name: evaluate.load(str(FOLDER / name)) for name in NAMES}


@pytest.fixture(scope="module")
def crowd():
    rng = np.random.default_rng(0)
    speakers = np.asarray([f"speaker {i % 20:02d}" for i in range(40)])
    faces = rng.standard_normal((20, 8))[np.arange(40) % 20]
    faces += 0.1 * rng.standard_normal(faces.shape)
    voices = faces + rng.standard_normal(faces.shape)
    genders = np.where(np.arange(40) % 20 < 9, "female", "male")
    # float32, as the modules store them
    return voices.astype(np.float32), faces.astype(np.float32), speakers, genders


def assert_same(computed: dict, figures: dict):
    assert {k: computed.pop(k) for k in ROUNDS} == ROUNDS
    assert set(computed) == set(figures)
    for name, figure in figures.items():
        expected = figure.to_json()
        assert computed[name]["value"] == pytest.approx(expected["value"])
        assert computed[name]["interval"] == pytest.approx(expected["interval"])
        for part in ("speakers", "samples", "chance"):
            assert computed[name][part] == expected[part]
    json.dumps(computed, allow_nan=False)


def test_feature_similarity(modules, crowd):
    voices, faces, speakers, _ = crowd
    computed = modules["feature_similarity"].compute(
        predictions=voices, references=faces, speakers=speakers, **ROUNDS
    )
    bootstrap = SpeakerBootstrap(speakers, **ROUNDS)
    assert_same(computed, feature_similarity(bootstrap, voices, faces))


def test_retrieval(modules, crowd):
    voices, faces, speakers, _ = crowd
    computed = modules["retrieval"].compute(
        predictions=voices,
        references=faces,
        speakers=speakers,
        score="l2",
        at=[1, 3],
        gallery_sizes=[10],
        **ROUNDS,
    )
    gallery, owners = speaker_gallery(faces, speakers)
    assert owners.tolist() == sorted(set(speakers))
    assert gallery[3] == pytest.approx(faces[speakers == owners[3]].mean(0))
    found = ranks(voices, gallery, speakers, owners, "l2")
    assert_same(computed, retrieval(SpeakerBootstrap(speakers, **ROUNDS), found, [10], [1, 3]))


def test_retrieval_in_a_gallery_with_strangers(modules, crowd):
    voices, faces, speakers, _ = crowd
    gallery = np.concatenate([faces[:20], -faces[:20]])
    owners = [*speakers[:20], *("stranger",) * 20]
    inputs = {"predictions": voices, "references": faces, "speakers": speakers}
    computed = modules["retrieval"].compute(
        **inputs, gallery=gallery, gallery_speakers=owners, rounds=20
    )
    assert computed["recall_at_10"]["chance"] == pytest.approx(10 / 40)
    with pytest.raises(ValueError, match="together, or neither"):
        modules["retrieval"].compute(**inputs, gallery=gallery)
    with pytest.raises(ValueError, match="no face in the gallery"):
        modules["retrieval"].compute(**inputs, gallery=faces[:1], gallery_speakers=["stranger"])


def test_association(modules, crowd):
    voices, faces, speakers, genders = crowd
    inputs = {"predictions": voices, "references": faces, "speakers": speakers}
    computed = modules["association"].compute(
        **inputs, restrictions={"same_gender": genders}, candidates=[2], **ROUNDS
    )
    gallery, owners = speaker_gallery(faces, speakers)
    of_faces = genders[:20]
    figures = association(
        SpeakerBootstrap(speakers, **ROUNDS),
        voices,
        gallery,
        speakers,
        owners,
        {"same_gender": (genders, of_faces)},
        candidates=[2],
    )
    assert_same(computed, figures)
    with pytest.raises(ValueError, match="one label for each of the 40 rows"):
        modules["association"].compute(**inputs, restrictions={"g": genders[:3]})
    with pytest.raises(ValueError, match="the same in all rows of a speaker"):
        modules["association"].compute(**inputs, restrictions={"g": np.arange(40).astype(str)})


def test_consistency(modules, crowd):
    voices, _, speakers, genders = crowd
    computed = modules["consistency"].compute(
        predictions=voices, speakers=speakers, genders=genders, **ROUNDS
    )
    bootstrap = SpeakerBootstrap(speakers, **ROUNDS)
    assert_same(computed, consistency(bootstrap, voices, speakers, genders))
    with pytest.raises(ValueError, match="one label for each of the 40 rows"):
        modules["consistency"].compute(predictions=voices, speakers=speakers, genders=["female"])


@pytest.mark.parametrize("name", NAMES)
def test_modules_describe_themselves(modules, name):
    module = modules[name]
    assert len(module.description) > 60 and module.citation.startswith("@inproceedings")
    assert "speakers" in module.features and "speakers:" in module.inputs_description


@pytest.mark.parametrize("name", NAMES)
def test_a_cards_example_prints_what_the_card_says(name, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    card = (FOLDER / name / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    (expected,) = re.findall(r"```text\n(.*?)```", card, re.S)
    exec(compile(code, f"{name}/README.md", "exec"), {})
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_card_names_every_figure_that_comes_out(modules, crowd, name):
    voices, faces, speakers, _ = crowd
    inputs = {"predictions": voices, "references": faces, "speakers": speakers, "rounds": 10}
    if name == "consistency":
        inputs.pop("references")
    card = (FOLDER / name / "README.md").read_text()
    front, text = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.S).groups()
    assert "- evaluate" in front and "- metric" in front
    for measure in modules[name].compute(**inputs):
        general = re.sub(r"1_in_\d+", "1_in_{n}", re.sub(r"at_\d+", "at_{k}", measure))
        assert f"`{general}`" in text, measure


@pytest.mark.slow
def test_away_from_a_clone_one_sentence_says_what_to_do(tmp_path):
    code = """
import evaluate, sys
for folder in sys.argv[1:]:
    metric = evaluate.load(folder)
    inputs = {"predictions": [[1.0], [2.0]], "speakers": ["a", "b"]}
    if "references" in metric.features:
        inputs["references"] = [[1.0], [2.0]]
    try:
        metric.compute(**inputs)
    except ImportError as error:
        print(error)
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", code, *(str(FOLDER / name) for name in NAMES)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run this from a clone of Speech2Face") == len(NAMES)
