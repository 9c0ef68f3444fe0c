"""Who draws is given draws, who does not the prediction itself; and all that follows from it."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch

from tests.evaluated import SIZE, labels_of, make_subjects
from tests.tiny import tiny_pipeline
from training.evaluation import sheets, voices
from training.evaluation.instruments import Readings
from training.evaluation.results import Results
from training.evaluation.subjects import Voices
from training.evaluation.workbench import Checkpoint, Workbench

SPEAKERS, SECONDS = 8, 0.5


class QuickBench(Workbench):
    """A workbench whose instruments look at a few pixels, and keep the images they were shown."""

    def read(self, images: np.ndarray, key: str) -> Readings:
        self.images[key] = np.array(images)
        count = len(images)
        return Readings(
            embeddings=images.reshape(count, -1)[:, :SIZE].astype(np.float32) / 255,
            genders=np.full(count, "female"),
            ages=np.full(count, 30.0),
            judge_found=np.ones(count, bool),
            landmarks=np.zeros((count, 68, 2), np.float32),
            lightness=images.reshape(count, -1).mean(1),
        )


@pytest.fixture(scope="module")
def subjects():
    return make_subjects(SPEAKERS, pairs=2)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    pipeline = tiny_pipeline(face_embedding_size=SIZE, with_normalized_decoder=True)
    with torch.no_grad():  # so that persons differ by many grey levels
        pipeline.normalized_decoder.texture_branch[-1].weight *= 100
    return Checkpoint("", pipeline, "fingerprint")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def bench_of(subjects, checkpoint, cache, seed: int = 0) -> QuickBench:
    bench = QuickBench(subjects, None, None, cache, [SECONDS], seed)
    bench.listen(checkpoint)
    return bench


@pytest.fixture(scope="module")
def bench(subjects, checkpoint, cache):
    return bench_of(subjects, checkpoint, cache)


@pytest.fixture(scope="module")
def faces(bench, checkpoint):
    return {system.name: system for system in bench.decode(checkpoint)}


def test_a_voice_is_decoded_from_a_draw_and_normalized_from_the_prediction(
    bench, checkpoint, faces
):
    ends = ("from voice, 0.5 s", "from true embedding")
    assert list(faces) == [f"{d} {end}" for d in ("diffusion", "normalized") for end in ends]
    predicted = checkpoint.predictions[SECONDS]
    drawn = faces["diffusion from voice, 0.5 s"].conditions
    assert (np.abs(drawn - predicted).max(1) > 0.01).all()
    normalized = faces["normalized from voice, 0.5 s"]
    np.testing.assert_array_equal(normalized.conditions, predicted)
    decoder = checkpoint.decoders["normalized"]
    expected, of_draws = (
        decoder(given + checkpoint.mean).astype(int) for given in (predicted, drawn)
    )
    assert np.abs(bench.images[normalized.name] - expected).max() <= 1
    assert np.abs(bench.images[normalized.name] - of_draws).max() > 10
    assert normalized.decoder == "normalized" and normalized.role == "system"
    assert normalized.from_true is faces["normalized from true embedding"]
    assert bench.images[normalized.name].shape[1:] == (56, 56, 3)
    assert bench.images["diffusion from voice, 0.5 s"].shape[1:] == (16, 16, 3)


def test_another_seed_changes_what_is_drawn_alone(subjects, checkpoint, cache, bench, faces):
    other = bench_of(subjects, checkpoint, cache, seed=1)
    list(other.decode(checkpoint))
    for name in faces:
        same = np.array_equal(other.images[name], bench.images[name])
        assert same == name.startswith("normalized"), name


def test_diversity_is_asked_of_who_draws(bench, checkpoint, subjects):
    results = Results(about={"rounds": 100, "seed": 0})
    voices.judge_draws(bench, checkpoint, labels_of(subjects), results)
    assert {record.system for record in results.records} == {"diffusion from voice"}
    several = bench.images[f"diffusion from {subjects.name}, {voices.FACES_EACH} each"]
    several = several.reshape(SPEAKERS, voices.FACES_EACH, -1)
    assert (several.std(1).max(1) > 1).all()
    distance = results.find(system="diffusion from voice", measure="distance")
    assert distance.value > 0 and distance.samples == SPEAKERS


def test_unseen_voices_are_judged_by_one_face_where_nothing_is_drawn(
    bench, checkpoint, subjects, tmp_path
):
    rng, names = np.random.default_rng(0), ["a1", "a2", "b1", "c1"]
    for name in names:
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(9000), 16000)
    who, genders = np.asarray(list("aabc")), np.asarray(["female", "female", "male", "female"])
    paths = [tmp_path / f"{name}.wav" for name in names]
    heard = Voices(who, genders, paths, names, name="readers")
    results = Results(about={"rounds": 100, "seed": 0})
    voices.judge_voices(bench, checkpoint, heard, labels_of(subjects), results)
    measures = {
        system: {record.measure for record in results.select(system=system, kind="faces")}
        for system in ("diffusion from voice", "normalized from voice")
    }
    assert measures["diffusion from voice"] - measures["normalized from voice"] == {
        "relative_distance",
        "distance",
        "skin_deviation",
    }
    right = {"system": "normalized from voice", "table": "voices"}  # all are called female
    assert results.find(**right, measure="gender_accuracy_female").value == 1
    assert results.find(**right, measure="gender_accuracy_male").value == 0
    assert results.find(**right, measure="face_found").samples == 3
    one_each = bench.images["normalized from readers, 1 each"]
    assert len(one_each) == 3 and len(bench.images["diffusion from readers, 4 each"]) == 12
    predicted = bench.predict(checkpoint, heard)[[0, 2, 3]]
    expected = checkpoint.decoders["normalized"](predicted + checkpoint.mean).astype(int)
    assert np.abs(one_each - expected).max() <= 1


def test_a_checkpoint_that_only_draws_has_no_other_faces(bench, checkpoint, subjects, cache):
    pipeline = tiny_pipeline(face_embedding_size=SIZE)
    alone = Checkpoint("", pipeline, "other")
    bench = bench_of(subjects, alone, cache)
    names = [system.name for system in bench.decode(alone)]
    assert names == ["diffusion from voice, 0.5 s", "diffusion from true embedding"]


def test_sheets_name_faces_by_their_decoder(bench, subjects, faces):
    pictures = sheets.pictures_of(bench, labels_of(subjects), [], list(faces.values()))
    case = pictures.cases[0]
    assert list(case.from_voice) == list(case.from_face) == ["diffusion", "normalized"]
    assert case.from_voice["normalized"].shape == (56, 56, 3)
    of_two = [dataclasses.replace(system, family="demo") for system in faces.values()]
    pictures = sheets.pictures_of(bench, labels_of(subjects), [], of_two)
    assert list(pictures.cases[0].from_voice) == ["demo: diffusion", "demo: normalized"]
