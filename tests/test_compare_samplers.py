"""Samplers are compared on the same faces from the same noise; the pipeline keeps its own."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests.tiny import tiny_pipeline
from tests.training_cast import write_cast
from training import compare_samplers
from training.data import load_pairs


def judge(images):
    """Sees a woman in every image, and a face in every second one."""
    found = np.arange(len(images)) % 2 == 0
    return {"genders": np.full(len(images), "female"), "found": found}


def test_every_sampler_decodes_the_same_faces(tmp_path):
    pairs = load_pairs(str(write_cast(tmp_path / "cast", 6, 2)), "test", str(tmp_path / "cache"))
    pipeline, asked = tiny_pipeline(), []
    size = pipeline.voice_encoder.config.face_embedding_size
    pairs.embeddings = pairs.embeddings[:, :size]
    call = type(pipeline).__call__

    class Watched(type(pipeline)):
        def __call__(self, **options):
            noise = [int(generator.initial_seed()) for generator in options["generator"]]
            asked.append((options["num_inference_steps"], options["guidance_scale"], noise))
            return call(self, **options)

    pipeline.__class__ = Watched
    embed = SimpleNamespace(embed=lambda faces: faces.reshape(len(faces), -1)[:, :size] / 255)
    own = pipeline.scheduler
    table = compare_samplers.compare_samplers(pipeline, pairs, judge, embed, [2, 3], [1.0, 2.0], 5)
    assert pipeline.scheduler is own
    settings = [(r["sampler"], r["steps"], r["guidance scale"]) for r in table]
    assert settings == [
        (name, steps, scale)
        for name in compare_samplers.SAMPLERS
        for steps in (2, 3)
        for scale in (1.0, 2.0)
    ]
    assert [ask[:2] for ask in asked[::2]] == [setting[1:] for setting in settings]
    assert all(ask[2] == asked[index % 2][2] for index, ask in enumerate(asked))
    assert len(set(asked[0][2] + asked[1][2])) == 5
    for row in table:
        assert row["gender read right"] == 0.6 and row["face found"] == 0.6  # 3 of 5 are women
        assert -1 <= row["identity kept"] <= 1
    json.dumps(table, allow_nan=False)


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
