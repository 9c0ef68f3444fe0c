"""Cards take their figures from results: none is typed, none is stale, and the Hub reads them."""

import dataclasses
import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.fake_results import results
from training.evaluation.conclusions import probed
from training.evaluation.results import Record, Results
from training.model_card import (
    CARDS,
    DEMO,
    MARK,
    README_BEGIN,
    README_END,
    checkpoint_facts,
    count_parameters,
    fingerprint_of,
    is_written_by_hand,
    main,
    named_results,
    render_card,
    with_figures,
    write_card,
)

ROOT = Path(__file__).resolve().parent.parent
SAMPLERS = [
    {
        "sampler": "DDIMScheduler",
        "steps": 6,
        "guidance scale": 1.5,
        "seconds for 4 images": 1.474,
        "gender read right": 0.9375,
        "face found": 1.0,
        "identity kept": 0.708,
        "skin deviation / the pictures'": 1.049,
        "gender read right interval": [0.9, 0.96],
        "face found interval": [0.99, 1.0],
        "identity kept interval": [0.69, 0.72],
        "skin deviation / the pictures' interval": None,
        "kernel distance": 0.0004,
        "kernel distance interval": [0.00012, 0.00071],
        "as the most": False,
    }
]


@pytest.fixture(scope="module")
def found() -> Results:
    return dataclasses.replace(results(), charts={})


@pytest.fixture(scope="module")
def named(found) -> dict:
    """As the demo's: the cast, pairs with another system's faces, samplers."""
    published = [
        dataclasses.replace(r, system="paper_from_voice: faces", value=r.value + 0.01)
        for r in found.select(system="diffusion from voice, 6 s")
    ]
    real = dataclasses.replace(found, records=found.records + published)
    return {"cast": found, "real pairs": real, "samplers": SAMPLERS}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """The demo's configurations and headers, without its weights and figures."""
    folder = tmp_path / "mine"
    for path in DEMO.rglob("*.json"):
        if not path.name.startswith(("results", "figures", "charts")):
            to = folder / path.relative_to(DEMO)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)
    for path in DEMO.rglob("*.safetensors"):
        with path.open("rb") as file:
            size = file.read(8)
            header = file.read(struct.unpack("<Q", size)[0])
        (folder / path.relative_to(DEMO)).write_bytes(size + header)
    return folder


def template(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "card.md"
    path.write_text(f"---\nlicense: apache-2.0\n---\n\n{text}\n")
    return path


AUC = 'table="association", kind="embeddings", system="voice, 6 s", measure="auc"'


def test_a_figure_is_the_records_with_its_interval(tmp_path, found):
    record = found.find(table="association", kind="embeddings", system="voice, 6 s", measure="auc")
    low, high = record.interval
    shown = f"{record.value:.2f} [{low:.2f}, {high:.2f}]"
    card = render_card(
        template(tmp_path, f"{{{{ figure({AUC}) }}}} of {{{{ chance({AUC}) }}}}"), {"cast": found}
    )
    assert card.endswith(f"{MARK}\n\n{shown} of 0.50\n")
    as_percent = f"{100 * record.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    card = render_card(
        template(tmp_path, f"{{{{ figure({AUC}, percent=True) }}}}"), {"cast": found}
    )
    assert card.endswith(f"\n\n{as_percent}\n")


def test_a_figure_of_a_group_and_of_other_results(tmp_path, found):
    text = f'{{{{ figure("real pairs", {AUC}, by="gender", group="female") }}}}'
    record = found.find(
        table="association",
        kind="embeddings",
        system="voice, 6 s",
        measure="auc",
        by="gender",
        group="female",
    )
    card = render_card(template(tmp_path, text), {"cast": Results({}), "real pairs": found})
    assert f"\n\n{record.value:.2f} [" in card


def test_a_figure_that_was_not_measured_cannot_be_written(tmp_path, found):
    missing = template(tmp_path, f"{{{{ figure({AUC.replace('auc', 'beauty')}) }}}}")
    with pytest.raises(KeyError, match="do not have the figure .*: evaluate again"):
        render_card(missing, {"cast": found})
    with pytest.raises(KeyError, match="no results 'real pairs'"):
        render_card(template(tmp_path, f'{{{{ figure("real pairs", {AUC}) }}}}'), {"cast": found})
    with pytest.raises(KeyError, match="no chance is known"):
        angle = AUC.replace("association", "feature_similarity").replace("auc", "angle_centred")
        render_card(template(tmp_path, f"{{{{ chance({angle}) }}}}"), {"cast": found})
    headless = tmp_path / "headless.md"
    headless.write_text("# A card\n")
    with pytest.raises(ValueError, match="has no YAML head"):
        render_card(headless, {})


def test_the_demos_card(named):
    from huggingface_hub import ModelCard

    card = render_card(CARDS / "demo.md", named, **checkpoint_facts(DEMO))
    lines = card.splitlines()
    balanced = named["real pairs"].find(
        table="attribute_agreement",
        kind="faces",
        system="paper_from_voice: faces",
        measure="gender_balanced_accuracy",
    )
    (row,) = [line for line in lines if "gender of the real face, balanced" in line]
    assert f"| {100 * balanced.value:.1f} % [" in row
    figures = "94 [90, 96] % | 100.0 [99.0, 100.0] % | 0.71 [0.69, 0.72] | 1.05"
    assert f"| DDIM | 6 | 1.5 | 1.47 | {figures} | 0.40 [0.12, 0.71] | no |" in lines
    assert "| `unet` |" in card and "| 5.4 M |" in card and "| 2.6 M |" in card
    probes = json.loads((DEMO / "face_traits" / "config.json").read_text())
    age = dict(zip(probes["names"], probes["held_out"], strict=True))["age"]
    assert f"| age | r | {age:.2f} |" in lines
    assert f"of {probes['held_out_people']} validation members' faces" in card
    assert "**Age is not read from the faces.**" in card.split("## How it fails")[1]
    assert "What it must not be used for" in card and "CC BY 4.0" in card
    data = ModelCard(card).data
    assert data.license == "apache-2.0" and data.model_name == "demo"
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    auc = named["cast"].find(
        table="association", kind="embeddings", system="voice, 6 s", measure="auc"
    )
    assert values["embeddings_association_auc"] == pytest.approx(auc.value, abs=5e-5)
    assert "nan" not in card.lower().split() and "None" not in card


def test_a_warning_reaches_the_demos_card(named):
    records = [
        dataclasses.replace(r, value=0.7, interval=(0.6, 0.8))
        if (r.system, r.measure, r.by) == ("voice, 6 s, shuffled", "auc", None)
        else r
        for r in named["cast"].records
    ]
    card = render_card(
        CARDS / "demo.md",
        named | {"cast": dataclasses.replace(named["cast"], records=records)},
        **checkpoint_facts(DEMO),
    )
    assert "- **Warning:** **What knows nothing does NOT score chance.**" in card


def test_any_checkpoints_card_before_and_after_its_evaluation(checkpoint, found):
    from huggingface_hub import ModelCard

    card = write_card(checkpoint).read_text()
    assert "# mine" in card and "Not evaluated yet. Run `python -m training.evaluation" in card
    assert "10.8 M parameters in all" in card and 'recogniser "dlib"' in card
    assert ModelCard(card).data.eval_results is None
    found.save(checkpoint)
    card = write_card(checkpoint).read_text()
    assert "Not evaluated yet" not in card and "**Age is not read from the faces.**" in card
    data = ModelCard(card).data
    assert data.model_name == "mine" and 6 <= len(data.eval_results) <= 12
    rows = [line for line in card.splitlines() if "| embeddings | voice, 6 s | AUC |" in line]
    assert rows[0].endswith("| AUC | 0.62 [0.59, 0.65] |")
    assert [row.count("|") for row in rows] == [5, 6, 8]  # everybody, by gender, by age group


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("model_index.json", b"{", "model_index.json holds no JSON object: assemble"),
        ("model_index.json", b"[]", "model_index.json holds no JSON object: assemble"),
        ("model_index.json", b"{}", "is no whole checkpoint .*num_inference_steps.*: assemble it"),
        ("voice_encoder/config.json", b"{", "voice_encoder/config.json holds no JSON object"),
        (
            "voice_encoder/config.json",
            b"{}",
            "is no whole checkpoint .*face_recogniser.*: assemble",
        ),
        ("unet/config.json", None, "is no whole checkpoint .*No such file.*: assemble it again"),
        ("training.json", b"[1]", "training.json holds no JSON object"),
        ("README.md", b"\xff\xfe", "README.md is no text in UTF-8: write it anew"),
    ],
)
def test_a_checkpoint_that_is_damaged_is_one_sentence(checkpoint, capsys, file, content, sentence):
    (checkpoint / file).unlink(missing_ok=True)
    if content is not None:
        (checkpoint / file).write_bytes(content)
    with pytest.raises(SystemExit):
        main([str(checkpoint)])
    said = capsys.readouterr().err
    assert re.search(sentence, said) and said.count("\n") == 1


def test_results_are_named_by_their_files(tmp_path, found):
    found.save(tmp_path)
    (tmp_path / "results.json").rename(tmp_path / "results_real_pairs.json")
    (tmp_path / "results_samplers.json").write_text(json.dumps(SAMPLERS))
    named = named_results(tmp_path)
    assert sorted(named) == ["real pairs", "samplers"]
    assert named["samplers"] == SAMPLERS and named["real pairs"].records == found.records
    assert named_results(tmp_path / "nowhere") == {}


def test_parameters_are_counted_from_the_header(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "some.safetensors"
    save_file({"a": np.zeros((3, 4)), "b": np.zeros((), np.float16)}, path, {"format": "pt"})
    assert count_parameters(path) == 13
    for torn in (b"", path.read_bytes()[:20], b"\xff" * 16, struct.pack("<Q", 2) + b"{]"):
        path.write_bytes(torn)
        with pytest.raises(ValueError, match="some.safetensors is no safetensors file: assemble"):
            count_parameters(path)


def test_a_card_of_ones_own_is_known(checkpoint):
    assert not is_written_by_hand(checkpoint / "README.md")
    card = write_card(checkpoint)
    assert not is_written_by_hand(card)
    card.write_text("# My card\n")
    assert is_written_by_hand(card)


@pytest.fixture
def measured(monkeypatch, found):
    """The checkpoint's weights are those that the results were measured on."""
    fingerprint = found.about["checkpoints"][0]["fingerprint"]
    monkeypatch.setattr("training.model_card.fingerprint_of", lambda folder: fingerprint)


def test_figures_of_other_weights_are_refused(checkpoint, tmp_path, found, monkeypatch, capsys):
    found.save(tmp_path / "report")
    monkeypatch.setattr("training.model_card.fingerprint_of", lambda folder: "others")
    with pytest.raises(SystemExit):
        main([str(checkpoint), "--results", str(tmp_path / "report")])
    assert "was not measured on the weights in" in capsys.readouterr().err
    assert not (checkpoint / "results.json").exists()


def test_a_card_written_by_hand_is_not_lost(checkpoint, capsys):
    (checkpoint / "README.md").write_text("# Mine\n")
    with pytest.raises(SystemExit):
        main([str(checkpoint)])
    assert "was written by hand: move it elsewhere" in capsys.readouterr().err
    assert (checkpoint / "README.md").read_text() == "# Mine\n"


def test_the_demos_own_figures_are_of_its_weights():
    assert (
        fingerprint_of(DEMO) == named_results(DEMO)["cast"].about["checkpoints"][0]["fingerprint"]
    )


def test_the_command_writes_card_and_readme(checkpoint, measured, tmp_path, found, capsys):
    found.save(tmp_path / "report")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{README_BEGIN}\nold\n{README_END}\nafter\n")
    main([str(checkpoint), "--results", str(tmp_path / "report"), "--readme", str(readme)])
    written = [checkpoint / "results.json", checkpoint / "README.md", readme]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    kept = named_results(checkpoint)["cast"]
    assert {record.by for record in kept.records} == {None, "gender", "age group"}
    assert kept.select(table="retrieval") == found.select(table="retrieval")
    text = readme.read_text()
    assert text.startswith(f"before\n{README_BEGIN}\n| measured") and "old" not in text
    assert text.endswith(f"|\n{README_END}\nafter\n")
    assert "| the cast, voice against face, verification AUC | 0.62 [0.59, 0.65] |" in text
    assert with_figures(text, {"cast": found}) == text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{nowhere}"], "is no pipeline: make one with"),
        (["{checkpoint}", "--results", "nowhere.json"], "no nowhere.json: make it with"),
        (["{checkpoint}", "--results", "real pairs=nowhere"], "no nowhere: make it with"),
        (["{plain}", "--results", "nowhere"], "is no pipeline: make one with"),
        (["{checkpoint}", "--readme", "{plain}"], "put <!-- figures: begin --> and"),
        (["{checkpoint}", "--results", "{plain}"], "plain.md is no JSON: name a report"),
        (["{checkpoint}", "--template", "nope.md"], "nope.md is no file: name a template"),
    ],
)
def test_a_wrong_call_is_one_sentence(arguments, sentence, checkpoint, tmp_path, capsys):
    (tmp_path / "plain.md").write_text("nothing\n")
    places = {"nowhere": tmp_path, "checkpoint": checkpoint, "plain": tmp_path / "plain.md"}
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(**places) for argument in arguments])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_nobody_measured_is_a_dash(tmp_path):
    record = Record("association", "embeddings", "voice, 6 s", "system", "auc", None, None, 0, 0)
    card = render_card(
        template(tmp_path, f"{{{{ figure({AUC}) }}}}"), {"cast": Results({}, [record])}
    )
    assert card.endswith("\n\n—\n")


def test_the_committed_card_and_readme_are_what_the_results_render(tmp_path):
    named = named_results(DEMO)
    facts = checkpoint_facts(DEMO)
    assert (DEMO / "README.md").read_text() == render_card(CARDS / "demo.md", named, **facts)
    readme = (ROOT / "README.md").read_text()
    assert with_figures(readme, named) == readme


def test_the_space_claims_no_more_than_was_measured():
    from space.page.texts import CAN_AND_CANNOT

    can, cannot, _ = re.findall(r"<p>(.*?)</p>", CAN_AND_CANNOT, re.DOTALL)
    faces = {"kind": "faces", "system": "diffusion from voice, 6 s"}
    measured = named_results(DEMO)["cast"]
    age = measured.find(table="attribute_agreement", measure="age_r", **faces)
    build = measured.find(table="what_it_should", measure="lower_face_r", **faces)
    gender = measured.find(table="attribute_agreement", measure="gender_balanced_accuracy", **faces)
    assert gender.interval[0] > 0.5 and "gender" in can
    assert ("Age hardly shows" in cannot) is (age.interval[0] <= 0)
    assert ("build" in cannot) is (build.interval[0] <= 0)


def test_the_readme_says_what_the_probes_found():
    readme = " ".join((ROOT / "README.md").read_text().split())
    found = probed(named_results(DEMO)["cast"], "what_the_voice_should_not_tell")
    systems = {system: of for (_, system, role), of in found.items() if role == "system"}
    told = [(system, probe) for system, of in systems.items() for probe in of if probe.told]
    ((system, hump),) = told
    assert (system, hump.trait) == ("normalized from voice, 6 s", "nose hump")
    traits = len(systems["voice, 6 s"])
    figure = f"{hump.record.value:.2f} [{{:.2f}}, {{:.2f}}]".format(*hump.record.interval)
    assert (
        f"of {traits} traits that a voice should not tell, none is read above chance in the "
        "embeddings or in the faces by diffusion, and one just so, the nose's hump "
        f"(r {figure}), in those of the paper's decoder" in readme
    )


def test_the_known_answers_in_the_trainings_readme_are_the_results():
    text = " ".join((ROOT / "training" / "README.md").read_text().split())
    real = named_results(DEMO)["real pairs"]
    faces = {"table": "association", "kind": "faces", "system": "paper_from_voice: faces"}
    for where in (
        {"table": "feature_similarity", "system": "constant", "measure": "cosine_raw"},
        faces | {"measure": "auc"},
        faces | {"measure": "auc_same_gender"},
    ):
        record = real.find(**where)
        value, low, high = (f"{v:.3f}".lstrip("0") for v in (record.value, *record.interval))
        assert f"{value} [{low}, {high}]" in text
    assert real.find(table="association", system="constant", measure="auc").value == 0.5
