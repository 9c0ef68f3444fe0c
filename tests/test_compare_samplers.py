"""Samplers are compared on the same faces from the same noise; the pipeline keeps its own."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.tiny import FACE_EMBEDDING_SIZE, tiny_pipeline
from tests.training_cast import write_cast
from training import compare_samplers
from training.compare_samplers import SAMPLERS
from training.data import load_pairs
from training.evaluation.store import Store


def judge(images):
    """Sees a woman in every image, and a face in every second one."""
    found = np.arange(len(images)) % 2 == 0
    return {"genders": np.full(len(images), "female"), "found": found}


@pytest.fixture
def pairs(tmp_path):
    pairs = load_pairs(
        str(write_cast(tmp_path / "cast", 6, 2)), "test", str(tmp_path / "cache"), 16
    )
    pairs.embeddings = pairs.embeddings[:, :FACE_EMBEDDING_SIZE]
    return pairs


class Colours:
    """A teacher whose embeddings are the first pixels; it counts what it was shown."""

    shown = 0

    def embed(self, faces):
        self.shown += len(faces)
        return faces.reshape(len(faces), -1)[:, :FACE_EMBEDDING_SIZE] / 255


def watched(pipeline):
    """The pipeline, and a list of (steps, scale, seeds) of all that it is asked from now on."""
    asked, call = [], type(pipeline).__call__

    class Watched(type(pipeline)):
        def __call__(self, **options):
            noise = [int(generator.initial_seed()) for generator in options["generator"]]
            asked.append((options["num_inference_steps"], options["guidance_scale"], noise))
            return call(self, **options)

    pipeline.__class__ = Watched
    return pipeline, asked


def test_every_sampler_decodes_the_same_faces(tmp_path, pairs):
    pipeline, asked = watched(tiny_pipeline())
    own, store = pipeline.scheduler, Store(tmp_path / "store")
    names = list(SAMPLERS[False])
    arguments = (pipeline, pairs, judge, Colours(), store, [2, 3], names, [1.0, 2.0], 5)
    table = compare_samplers.compare_samplers(*arguments)
    assert pipeline.scheduler is own
    settings = [(r["sampler"], r["guidance scale"], r["steps"]) for r in table]
    assert (
        sorted(settings)
        == settings
        == [
            (name, scale, steps)
            for name in sorted(names)
            for scale in (1.0, 2.0)
            for steps in (2, 3)
        ]
    )
    timed = [ask for ask in asked if ask[2] == [0, 1, 2, 3]]
    decoded = [ask for ask in asked if ask not in timed]
    assert len(timed) == 4 * len(table) and len(decoded) == 2 * len(table)  # 4 and 1 of 5 faces
    assert all(ask[2] == decoded[index % 2][2] for index, ask in enumerate(decoded))
    assert len(set(decoded[0][2] + decoded[1][2])) == 5
    for row in table:
        assert row["gender read right"] == row["face found"] == 0.6  # 3 of 5 are women
        low, high = row["gender read right interval"]
        assert 0 <= low < 0.6 < high <= 1
        assert -1 <= row["identity kept"] <= 1 and row["images"] == 5
        assert row["as the most"] or row["steps"] == 2
    json.dumps(table, allow_nan=False)
    # A second run decodes nothing again.
    asked.clear()
    again = compare_samplers.compare_samplers(*arguments)
    assert all(ask[2] == [0, 1, 2, 3] for ask in asked)
    timeless = [{k: v for k, v in row.items() if "seconds" not in k} for row in table]
    assert timeless == [{k: v for k, v in row.items() if "seconds" not in k} for row in again]


def test_more_faces_than_pairs_are_decoded_from_other_seeds(tmp_path, pairs):
    pipeline, asked = watched(tiny_pipeline())
    store = Store(tmp_path / "store")
    (row,) = compare_samplers.compare_samplers(
        pipeline, pairs, judge, Colours(), store, [1], faces=30
    )
    seeds = [seed for ask in asked if ask[2] != [0, 1, 2, 3] for seed in ask[2]]
    assert len(set(seeds)) == row["images"] == 30 and len(pairs) == 12
    assert row["sampler"] == "DDIMScheduler"  # the pipeline's own


def test_a_perfect_decoder_is_no_distance_from_the_truth_and_a_wrong_one_is(pairs):
    encoder = SimpleNamespace(face_embedding_mean=torch.zeros(FACE_EMBEDDING_SIZE))
    pipeline, rows = SimpleNamespace(voice_encoder=encoder), np.arange(12)
    pictures = pairs.faces.transpose(0, 2, 3, 1)
    teacher = Colours()
    pairs.embeddings = teacher.embed(pictures)
    measured = compare_samplers.Measured(pipeline, pairs, rows, judge, teacher)
    right, wrong = measured(pictures), measured(np.zeros_like(pictures))
    assert right["identity kept"].value == pytest.approx(1)
    assert right["skin deviation / the pictures'"].value == pytest.approx(1)
    low, high = right["kernel distance"].interval
    assert low <= right["kernel distance"].value < high
    assert wrong["kernel distance"].value > right["kernel distance"].value
    assert wrong["identity kept"].value == 0
    assert wrong["skin deviation / the pictures'"].value == 0


def test_speakers_come_in_turns():
    groups = [np.array([0, 1]), np.array([2]), np.array([3, 4, 5])]
    assert compare_samplers.in_turns(groups).tolist() == [0, 2, 3, 1, 4, 5]


def test_a_sampler_that_does_not_fit_is_refused(tmp_path, pairs):
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler fits not"):
        compare_samplers.compare_samplers(
            tiny_pipeline(),
            pairs,
            judge,
            Colours(),
            Store(tmp_path),
            samplers=["FlowMatchEulerDiscreteScheduler"],
        )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--steps", "2"], "neither a folder nor a data set"),
        (["--steps", "0"], "must be at least 1"),
        (["--steps", "2", "--guidance-scales", "0.5"], "must be at least 1"),
        (["--steps", "2", "--output", "."], ". is a folder: name a JSON file"),
    ],
)
def test_wrong_requests_are_refused(options, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        compare_samplers.main(["demo", "--dataset", str(tmp_path / "nothing"), *options])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in error and error.count("\n") == 1


def test_a_decoder_of_another_teacher_is_refused(tmp_path, capsys):
    cast = write_cast(tmp_path / "cast", 2, 1, teacher="arcface")
    tiny_pipeline().save_pretrained(tmp_path / "checkpoint")
    places = ["--dataset", str(cast), "--cache", str(tmp_path / "cache"), "--steps", "2"]
    with pytest.raises(SystemExit):
        compare_samplers.main([str(tmp_path / "checkpoint"), *places])
    assert "different face recognisers" in capsys.readouterr().err.splitlines()[-1]
