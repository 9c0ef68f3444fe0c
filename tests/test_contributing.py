"""What CONTRIBUTING.md says is run."""

import re
import shutil

import pytest

from tests.conftest import ROOT
from tests.test_readme import blocks

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", CONTRIBUTING, re.MULTILINE | re.DOTALL)
CHECKS = {
    "A recogniser": lambda made: made["embeddings"].shape == (2, 3),
    "A source of videos": lambda made: (
        [video.speaker_id for video in made["listing"].videos] == ["anna"]
        and [refusal.reason for refusal in made["listing"].refusals] == ["unreadable"]
    ),
    "A metric": lambda made: made["figure"].value == pytest.approx(1),
    "A decoder": lambda made: [face.size for face in made["flat"]] == [(64, 64)] * 2,
}


@pytest.mark.parametrize("title", CHECKS)
def test_a_recipe_works(title, monkeypatch, tmp_path):
    from dataset_scripts.faces import RECOGNISERS
    from modeling_speech2face import pipeline_speech2face

    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "samples", "samples")
    (tmp_path / "samples" / "anna.mp4").write_bytes(b"a film")
    (tmp_path / "samples" / "bert.mp4").touch()
    # What a recipe registers is gone after it.
    monkeypatch.setattr("dataset_scripts.faces.RECOGNISERS", dict(RECOGNISERS))
    decoders = dict(pipeline_speech2face.DECODERS)
    monkeypatch.setattr(pipeline_speech2face, "DECODERS", decoders)
    (snippet,) = blocks("python", dict(RECIPES)[title])
    made = {}
    exec(snippet, made)
    assert CHECKS[title](made)


def test_the_files_and_targets_it_names_exist():
    named = re.findall(r"`([\w./-]+(?:/|\.(?:py|md|txt|cfg|yml)))`", CONTRIBUTING)
    examples = {"NAME.py", "README.md"}  # of a metric's folder
    assert len(named) > 15
    assert not [name for name in named if name not in examples and not (ROOT / name).exists()]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = re.findall(r"^make ([a-z -]+?) *#", CONTRIBUTING, re.MULTILINE)
    assert asked and {target for line in asked for target in line.split()} <= set(targets)
