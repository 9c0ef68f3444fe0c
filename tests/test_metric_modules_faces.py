"""The modules for `evaluate` that measure faces: they load from their folders and agree."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.measures import attributes, craniofacial, generated_faces
from training.measures.resampling import SpeakerBootstrap

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "training" / "metrics"
NAMES = (
    "attribute_agreement",
    "craniofacial_correlation",
    "identity_kept",
    "diversity",
    "kernel_distance",
)
ROUNDS = {"rounds": 50, "seed": 3}
SPEAKERS = [f"speaker {i % 20:02d}" for i in range(40)]


@pytest.fixture(scope="module")
def modules():
    import evaluate

    return {name: evaluate.load(str(FOLDER / name)) for name in NAMES}


@pytest.fixture(scope="module")
def faces():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((40, 8)).astype(np.float32)
    return real, (real + rng.standard_normal(real.shape)).astype(np.float32)


def assert_same(computed: dict, figures: dict):
    json.dumps(computed, allow_nan=False)
    assert {k: computed.pop(k) for k in ROUNDS} == ROUNDS
    assert set(computed) == set(figures)
    for name, figure in figures.items():
        expected = figure.to_json()
        assert computed[name]["value"] == pytest.approx(expected["value"], abs=1e-6)
        assert computed[name]["interval"] == pytest.approx(expected["interval"], abs=1e-6)
        for part in ("speakers", "samples", "chance"):
            assert computed[name][part] == expected[part]


def test_attribute_agreement(modules):
    rng = np.random.default_rng(0)
    truth = np.resize(["female", "male", "male"], 40)
    read = np.where(rng.random(40) < 0.7, truth, "female")
    computed = modules["attribute_agreement"].compute(
        predictions=read, references=truth, speakers=SPEAKERS, name="judged", **ROUNDS
    )
    table = computed.pop("confusion")
    assert table["classes"] == ["female", "male"]
    assert table["counts"][1][0] == ((truth == "male") & (read == "female")).sum() > 0
    bootstrap = SpeakerBootstrap(SPEAKERS, **ROUNDS)
    classes = ("female", "male")
    expected = attributes.class_agreement(bootstrap, truth, read, classes, "judged")
    assert_same(computed, expected)


def test_age_agreement():
    import evaluate

    rng = np.random.default_rng(0)
    truth = np.r_[rng.uniform(20, 80, 39), np.nan]
    read = np.nan_to_num(truth, nan=40) + rng.normal(0, 10, 40)
    module = evaluate.load(str(FOLDER / "attribute_agreement"), "age")
    computed = module.compute(predictions=read, references=truth, speakers=SPEAKERS, **ROUNDS)
    assert sum(map(sum, computed.pop("confusion")["counts"])) == 39
    expected = attributes.age_agreement(SpeakerBootstrap(SPEAKERS, **ROUNDS), truth, read)
    assert_same(computed, expected)


def test_craniofacial_correlation(modules):
    rng = np.random.default_rng(0)
    one = rng.uniform(0, 224, (40, 68, 2)).astype(np.float32)
    other = (one + rng.normal(0, 30, one.shape)).astype(np.float32)
    computed = modules["craniofacial_correlation"].compute(
        predictions=other, references=one, speakers=SPEAKERS, **ROUNDS
    )
    measured = craniofacial.measure(one), craniofacial.measure(other)
    p = computed.pop("p")
    assert p == pytest.approx(craniofacial.p_values(*(table[:20] for table in measured)))
    bootstrap = SpeakerBootstrap(SPEAKERS, **ROUNDS)
    assert_same(computed, craniofacial.craniofacial_correlation(bootstrap, *measured))


@pytest.mark.parametrize("name", ["identity_kept", "kernel_distance"])
def test_faces_against_faces(modules, faces, name):
    real, made = faces
    computed = modules[name].compute(predictions=made, references=real, speakers=SPEAKERS, **ROUNDS)
    bootstrap = SpeakerBootstrap(SPEAKERS, **ROUNDS)
    assert_same(computed, getattr(generated_faces, name)(bootstrap, made, real))


def test_diversity(modules, faces):
    draws = np.stack(faces, axis=1)  # (voices, 2 images, size)
    computed = modules["diversity"].compute(
        predictions=draws, speakers=SPEAKERS, reference_distance=4.0, **ROUNDS
    )
    bootstrap = SpeakerBootstrap(SPEAKERS, **ROUNDS)
    assert_same(computed, generated_faces.diversity(bootstrap, draws, 4.0))
    with pytest.raises(ValueError, match="as many images"):
        modules["diversity"].compute(
            predictions=[draws[0], draws[1, :1]], speakers=SPEAKERS[:2], reference_distance=4.0
        )


@pytest.mark.parametrize("name", NAMES)
def test_modules_describe_themselves(modules, name):
    module = modules[name]
    assert len(module.description) > 60 and module.citation.startswith("@inproceedings")
    assert "speakers" in module.features and "speakers:" in module.inputs_description


@pytest.mark.parametrize("name", NAMES)
def test_a_cards_example_prints_what_the_card_says(name, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    card = (FOLDER / name / "README.md").read_text()
    front, text = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.S).groups()
    assert "- evaluate" in front and "- metric" in front
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (expected,) = re.findall(r"```text\n(.*?)```", text, re.S)
    exec(compile(code, f"{name}/README.md", "exec"), {})
    assert capsys.readouterr().out == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["identity_kept", "kernel_distance"])
def test_away_from_a_clone_one_sentence_says_what_to_do(name, tmp_path):
    code = f"import evaluate; m = evaluate.load({str(FOLDER / name)!r}); m.compute("
    code += "predictions=[[1.0], [2.0]], references=[[1.0], [2.0]], speakers=['a', 'b'])"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode and "run this from a clone of Speech2Face" in done.stderr
