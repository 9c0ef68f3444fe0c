"""What the README says is run: its Python, its quick commands, and the names in its long ones."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from runpy import run_module

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
TRAINING = (ROOT / "training" / "README.md").read_text()


def blocks(info: str, text: str = README) -> list[str]:
    """The code blocks whose info string is exactly `info`."""
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(info: str, text: str = README) -> list[list[str]]:
    """The commands of those blocks as words, without comments; `a && b` counts as two."""
    lines = "".join(blocks(info, text)).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split("&&")]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


def modules_run(words: list[str]) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-m"]


@pytest.fixture
def clone(tmp_path) -> Path:
    """A folder in which the README's relative paths exist and which may be written to."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    return tmp_path


def test_its_python_runs(clone, monkeypatch):
    monkeypatch.chdir(clone)
    snippets = blocks("python")
    assert snippets
    exec("\n".join(snippets), {})
    assert (clone / "face.png").stat().st_size > 0


def test_the_python_of_the_trainings_readme_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)  # metrics are loaded by their path in a clone
    (snippet,) = blocks("python", TRAINING)
    exec(snippet, {})
    assert "'interval': (" in capsys.readouterr().out


def test_its_quick_commands_run(clone):
    scripts = blocks("bash")
    assert scripts
    said = ""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for script in scripts:
        result = subprocess.run(
            ["bash", "-euc", script],
            cwd=clone,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, f"{script}\n{result.stdout}{result.stderr}"
        said += result.stdout
    printed = re.findall(r"^samples/.*", README, re.MULTILINE)
    assert len(printed) == 2 and set(printed) <= set(said.splitlines())
    stems = [voice.stem for voice in sorted((ROOT / "samples").glob("*.flac"))]
    assert len(list((clone / "exaggerated").glob("*_to_*_[0-9].png"))) == 5
    for stem in stems:
        assert (clone / "faces" / f"{stem}.png").is_file()
        assert len(list((clone / "faces").glob(f"{stem}_[0-9].png"))) == 4


def test_its_make_targets_exist():
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for words in commands("bash long")
        if words[0] == "make"
        for word in words[1:]
        if "=" not in word
    }
    assert {"demo", "test", "test-slow", "lint", "space"} <= named <= targets


def test_the_files_it_names_exist():
    named = re.findall(r"`([\w./-]+(?:/|\.(?:py|md|yaml)))`", README)
    named += re.findall(r"\]\((?!http)([^)#]+)\)", README)
    named += [
        word
        for words in commands("bash long")
        for word in words
        if word.endswith(".yaml") and "=" not in word
    ]
    assert len(named) > 10
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize(
    "words",
    [words for words in commands("bash long") + commands("bash", TRAINING) if modules_run(words)],
    ids=lambda words: modules_run(words)[-1],
)
def test_its_long_commands_take_those_options(words, monkeypatch, capsys):
    module = modules_run(words)[-1]
    assert find_spec(module)
    after = words[words.index(module) + 1 :]  # what comes before is the launcher's
    options = {word for word in after if word.startswith("--")}
    if not options:
        return
    # A command with several kinds of work has a help for each.
    kind = after[:1] if module.endswith("speech_face_pairs") else []
    monkeypatch.setattr(sys, "argv", [module, *kind, "--help"])
    with pytest.raises(SystemExit) as ended:
        run_module(module, run_name="__main__")
    assert not ended.value.code
    assert options <= set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def test_its_long_commands_of_the_package_take_those_options(capsys):
    from modeling_speech2face.__main__ import main

    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    asked = [words for words in commands("bash long") if words[0] == "speech2face"]
    assert asked
    for words in asked:
        assert {word for word in words if word.startswith("--")} <= known


def test_it_says_everything():
    assert "TODO" not in README, "a figure is still missing"
