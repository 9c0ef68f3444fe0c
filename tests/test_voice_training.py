"""The voice encoder's loop: what is trained how, streamed data, early ends, several processes."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.local_hub import TOKEN, HubSession, LocalHub, Repo
from tests.tiny_runs import (
    assert_same_weights,
    configuration,
    scalars_of,
    weights_of,
    written,
)
from tests.training_cast import write_cast
from training import train_voice_encoder, voice_batches
from training.checkpoints import (
    TrainingFailed,
    learning_rate_factor,
    list_checkpoints,
    optimizer_of,
    parameter_groups,
)
from training.configuration import Augmentation, VoiceEncoderTraining, load_configuration
from training.data import load_pairs
from training.expected_faces import ExpectedFaces
from training.stated_voices import StatedVoices
from training.streaming import ROW_GROUPS_KEPT, StreamOrder, stream_pairs
from training.train_voice_encoder import (
    build_student,
    calibration_of,
    learning_rates_of,
    train,
)
from training.voice_batches import VoiceBatches


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voice_training")
    write_cast(folder / "cast", row_group_size=3)
    return folder


@pytest.fixture(scope="module")
def pairs(folder):
    return load_pairs(str(folder / "cast"), "train", str(folder / "cache"))


@pytest.fixture(scope="module")
def streamed(folder):
    return stream_pairs(str(folder / "cast"), "train", str(folder / "cache"))


# --- Streamed pairs -------------------------------------------------------------------------------


def test_streamed_pairs_are_the_same_pairs(pairs, streamed):
    assert streamed.pair_ids == pairs.pair_ids and streamed.teacher == "dlib"
    np.testing.assert_array_equal(streamed.speakers, pairs.speakers)
    np.testing.assert_array_equal(streamed.embeddings, pairs.embeddings)
    assert len(streamed.group_files) == 6  # 16 rows in groups of 3
    for row in (0, 3, 15, 7):
        np.testing.assert_array_equal(streamed.speech(row), pairs.speech(row))


def test_few_row_groups_are_in_memory(streamed, monkeypatch):
    monkeypatch.setattr("training.streaming.ROW_GROUPS_KEPT", 2)
    for row in range(len(streamed)):
        streamed.speech(row)
    assert list(streamed._kept) == [4, 5]
    assert ROW_GROUPS_KEPT > 2  # or the line above would not have shown anything


def test_every_row_once_an_epoch_and_no_lane_reads_anothers(streamed):
    order = StreamOrder(0, streamed, lanes=2)
    ends = streamed.group_ends
    lanes = []
    for lane in (0, 1):
        own = [row for g in range(lane, 6, 2) for row in range(ends[g], ends[g + 1])]
        rows = np.concatenate([order.rows(lane, batch, 1) for batch in range(2 * len(own))])
        assert sorted(rows[: len(own)]) == sorted(rows[len(own) :]) == own
        assert rows[: len(own)].tolist() != rows[len(own) :].tolist()
        lanes.append(set(own))
    assert not lanes[0] & lanes[1] and len(lanes[0] | lanes[1]) == 16


def test_a_batch_of_streamed_rows_has_as_many_speakers_as_it_can(streamed):
    order = StreamOrder(3, streamed)
    first, second = order.rows(0, 0, 8), order.rows(0, 1, 8)
    assert len(set(streamed.speakers[first])) == len(set(streamed.speakers[second])) == 8
    np.testing.assert_array_equal(StreamOrder(3, streamed).rows(0, 1, 8), second)
    with pytest.raises(ValueError, match="cannot share 6 row groups"):
        StreamOrder(0, streamed, lanes=7)


def test_a_data_set_without_the_split_is_refused(tmp_path, folder):
    (tmp_path / "README.md").write_text((folder / "cast" / "README.md").read_text())
    with pytest.raises(FileNotFoundError, match="no train-"):
        stream_pairs(str(tmp_path), "train", str(tmp_path))


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_streamed_training_equals_uninterrupted(folder, workers):
    asked = {"streaming": True, "workers": workers}
    whole = train(configuration(folder, f"streamed_{workers}", **asked))
    config = configuration(folder, f"streamed_{workers}_interrupted", **asked)
    assert train(config, stop_at_step=3) is None
    assert_same_weights(train(config), whole)


def test_workers_change_nothing(folder):
    alone = train(configuration(folder, "alone"))
    assert_same_weights(train(configuration(folder, "helped", workers=2)), alone)


# --- What is trained, and how ---------------------------------------------------------------------


def test_parts_have_their_own_learning_rate(folder, pairs):
    rates = {"voice_encoder": 1e-5, "voice_encoder.encoder.layers.0": 2e-5}
    config = configuration(folder, "rates", learning_rates=rates)
    student = build_student(config, pairs, None)
    named = {id(p): name for name, p in student.named_parameters()}
    highest = {
        named[id(p)]: group["highest_lr"]
        for group in optimizer_of(config, student, learning_rates_of(config)).param_groups
        for p in group["params"]
    }
    assert highest["model.voice_encoder.encoder.layers.0.attention.q_proj.weight"] == 2e-5
    assert highest["model.voice_encoder.feature_projection.projection.weight"] == 1e-5
    assert highest["model.projection.1.weight"] is None and highest["model.layer_scores"] is None
    assert len(highest) == sum(p.requires_grad for p in student.parameters())
    with pytest.raises(ValueError, match="'head' names no part that is trained"):
        parameter_groups(student, 0.0, {"head": 1.0})


def test_a_learning_rate_of_a_part_is_what_it_learns_with(folder):
    still = {"voice_encoder": 1e-12}  # less than a float32 can see beside a weight
    config = configuration(folder, "still", learning_rates=still, save_dtype="float32")
    pairs = load_pairs(config.dataset, "train", config.cache)
    before = build_student(config, pairs, None).model.state_dict()
    after = weights_of(train(config))
    query = "voice_encoder.encoder.layers.0.attention.q_proj.weight"
    assert torch.equal(before[query], after[query])
    assert not torch.equal(before["projection.1.weight"], after["projection.1.weight"])


def test_frozen_parts_stay(folder, pairs):
    config = configuration(folder, "frozen", frozen=["voice_encoder", "layer_scores"])
    student = build_student(config, pairs, None)
    trained = {name.split(".")[1] for name, p in student.named_parameters() if p.requires_grad}
    assert trained == {"pooling", "projection"}
    with pytest.raises(ValueError, match="the model has no part 'voice_encode'"):
        build_student(configuration(folder, "frozen", frozen=["voice_encode"]), pairs, None)


def test_gradient_checkpointing_changes_no_gradient(folder, pairs):
    speech = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    gradients = []
    for asked in (False, True):
        config = configuration(folder, "checkpointed", gradient_checkpointing=asked)
        student = build_student(config, pairs, None).train()
        assert student.model.voice_encoder.encoder.gradient_checkpointing == asked
        torch.manual_seed(1)  # dropout
        student(speech)[0].square().sum().backward()
        gradients.append({n: p.grad for n, p in student.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "data2vec-audio"])
def test_the_base_recipe_takes_a_pretrained_backbone(folder, pairs, tmp_path, kind):
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 48, "conv_dim": [24] * 7, "num_conv_pos_embedding_groups": 2}
    torch.manual_seed(5)
    pretrained = AutoModel.from_config(AutoConfig.for_model(kind, **sizes))
    pretrained.save_pretrained(tmp_path / "backbone")
    recipe = load_configuration("training/configs/base_voice_encoder.yaml", VoiceEncoderTraining)
    config = dataclasses.replace(recipe, pretrained=str(tmp_path / "backbone"))
    student = build_student(config, pairs, None).train()
    for name, weight in pretrained.state_dict().items():
        assert torch.equal(student.model.voice_encoder.state_dict()[name], weight), name
    student(torch.randn(2, 8000))[0].square().sum().backward()
    rates = {}
    for group in optimizer_of(config, student, learning_rates_of(config)).param_groups:
        for parameter in group["params"]:
            assert parameter.grad is not None
            rates[parameter.shape] = group["highest_lr"]
    frozen = student.model.voice_encoder.feature_extractor.parameters()
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    assert set(rates.values()) == {3e-5, None}


def test_a_whole_model_is_trained_further_around_another_mean(folder, pairs):
    first = configuration(folder, "first")
    final = train(first)
    further = dataclasses.replace(
        first, output=str(folder / "further"), pretrained=str(final), model={}, filter_bank="none"
    )
    others = dataclasses.replace(pairs, embeddings=pairs.embeddings + 0.5)
    weights, student = weights_of(final), build_student(further, others, None)
    for name, weight in student.model.state_dict().items():
        if name != "face_embedding_mean":
            assert torch.equal(weight, weights[name].float()), name
    mean = torch.from_numpy(others.embeddings.mean(0))
    assert torch.equal(student.model.face_embedding_mean, mean)
    again = train(further, data=(others, others))
    assert torch.equal(weights_of(again)["face_embedding_mean"], mean.half())
    with pytest.raises(ValueError, match="is a whole model: leave model out"):
        build_student(dataclasses.replace(further, model=first.model), pairs, None)
    with pytest.raises(ValueError, match="different face recognisers"):
        build_student(further, dataclasses.replace(pairs, teacher="arcface"), None)


def test_changes_are_put_into_a_file_where_they_belong():
    changes = {"losses": {"cosine": 0}, "model": {"voice_encoder_config": {"hidden_size": 48}}}
    path = "training/configs/tiny_voice_encoder.yaml"
    plain = load_configuration(path, VoiceEncoderTraining)
    changed = load_configuration(path, VoiceEncoderTraining, changes)
    assert changed.losses.cosine == 0 and changed.losses.mse == plain.losses.mse
    assert changed.model["voice_encoder_config"] == plain.model["voice_encoder_config"] | {
        "hidden_size": 48
    }
    with pytest.raises(ValueError, match="unknown key 'speed'"):
        load_configuration(path, VoiceEncoderTraining, {"speed": 1})


def test_the_papers_recipe_is_of_the_papers_size():
    from modeling_speech2face import Speech2FaceConfig, Speech2FaceModel

    recipe = load_configuration("training/configs/paper_voice_encoder.yaml", VoiceEncoderTraining)
    with torch.device("meta"):  # no weights are made
        model = Speech2FaceModel(Speech2FaceConfig(**recipe.model))
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6) == 132
    assert recipe.steps * recipe.batch_size == 3 * 1_700_000
    optimizer = optimizer_of(recipe, model)
    assert optimizer.defaults["betas"][0] == 0.5 and optimizer.defaults["eps"] == 1e-4
    assert learning_rate_factor(recipe, 20_000) == pytest.approx(0.95**2)


def test_spec_augment_is_drawn_anew_and_resumed_exactly(folder):
    masks = {"mask_time_prob": 0.3, "mask_time_length": 3, "apply_spec_augment": True}
    whole = train(configuration(folder, "masked", backbone=masks))
    config = configuration(folder, "masked_interrupted", backbone=masks)
    assert train(config, stop_at_step=3) is None
    np.random.seed(99)  # whatever happened in between
    assert_same_weights(train(config), whole)
    assert "voice_encoder.masked_spec_embed" in weights_of(whole)


# --- Ends -----------------------------------------------------------------------------------------


def test_early_stopping_keeps_and_ships_the_best(folder, monkeypatch):
    told = iter([0.6, 0.9, 0.8, 0.7, 0.95])
    validate = train_voice_encoder.validate
    monkeypatch.setattr(
        train_voice_encoder,
        "validate",
        lambda *given: validate(*given) | {"verification_auc": next(told)},
    )
    asked = {"early_stopping": 2, "validate_every": 1, "keep_checkpoints": 1, "steps": 20}
    config = configuration(folder, "early", **asked)
    final = train(config)
    assert next(told) == 0.95  # it ended after the fourth
    names = [path.name for path in list_checkpoints(config.output)]
    assert names == ["checkpoint-2", "checkpoint-4"]
    again = train(config)  # it is done, and asks for no further validation
    assert json.loads((again / "validation.json").read_text())["steps"] == 2
    train_voice_encoder.export(config, Path(config.output) / "checkpoint-2", folder / "best")
    assert_same_weights(final, folder / "best")
    assert json.loads((final / "validation.json").read_text())["steps"] == 2


def test_an_unknown_metric_is_named(folder):
    config = configuration(folder, "metric", best_metric="beauty", validate_every=1)
    with pytest.raises(ValueError, match="best_metric 'beauty' is none of .*verification_auc"):
        train(config)


@pytest.mark.parametrize(("validate_every", "what"), [(3, "predictions are"), (9, "the loss is")])
def test_nan_ends_the_run_which_goes_on_from_before(folder, validate_every, what):
    asked = {"warmup_steps": 1, "validate_every": validate_every, "checkpoint_every": 2}
    config = configuration(folder, f"nan_{validate_every}", **asked)
    assert train(config, stop_at_step=2) is None
    with pytest.raises(TrainingFailed, match=f"{what}.*lower learning_rate.*from .*checkpoint-2$"):
        train(dataclasses.replace(config, learning_rate=1e30))
    assert [path.name for path in list_checkpoints(config.output)] == ["checkpoint-2"]
    whole = configuration(folder, f"not_nan_{validate_every}", **asked)
    assert_same_weights(train(config), train(whole))


def test_out_of_memory_says_what_to_change(folder):
    config = configuration(folder, "memory")
    assert train(config, stop_at_step=2) is None
    with pytest.raises(TrainingFailed, match="batch_size to 2 and gradient_accumulation to 2.*-2"):
        train(dataclasses.replace(config, crop_seconds=1e9))
    assert train(config) is not None


def test_a_failure_is_one_sentence_on_the_command_line(folder, monkeypatch, capsys):
    def fail(_):
        raise TrainingFailed("out of memory in step 3: set batch_size to 2")

    monkeypatch.setattr(train_voice_encoder, "train", fail)
    with pytest.raises(SystemExit) as ended:
        train_voice_encoder.main(["training/configs/tiny_voice_encoder.yaml"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "out of memory in step 3: set batch_size to 2\n"


def test_each_direction_is_calibrated_by_itself():
    rng = np.random.default_rng(0)
    apart = np.linalg.qr(rng.standard_normal((4000, 3)))[0] * 4000**0.5  # of energy 4,000 each
    predicted = apart * [3, 3.5, 0.01]
    actual = predicted * [1.2, 0.1, 1] + 0.1 * rng.standard_normal((4000, 3))
    calibration = calibration_of(predicted, actual)
    overall = (1.2 * 9 + 0.1 * 12.25) / 21.25  # for want of its own, the third direction's
    energy = np.asarray([9, 12.25, 0]) / (21.25 / 3)
    expected = (energy * [1.2, 0.1, 0] + overall) / (energy + 1)
    np.testing.assert_allclose(calibration, np.diag(expected), atol=0.02)


def test_expected_faces_are_what_the_voice_was_made_to_tell(pairs):
    rng = np.random.default_rng(0)
    count = 400
    genders = np.where(np.arange(count) % 2, "male", "female")
    breath = rng.uniform(size=count)
    law = np.where(genders == "male", 1, -1) * (1 + breath**2)  # of the first component
    embeddings = np.c_[law, np.zeros(count)] + rng.standard_normal((count, 2))
    stated = dataclasses.replace(
        pairs,
        speakers=np.arange(count),
        speaker_names=[str(k) for k in range(count)],
        embeddings=embeddings.astype(np.float32),
        genders=genders,
        voice_parameters=[{"voice_id": "one", "breathiness": b} for b in breath.tolist()],
    )
    expected = ExpectedFaces(stated, StatedVoices(stated))
    rows, same = np.arange(count), np.ones(count)
    faces = expected(rows, same) + stated.embeddings.mean(0)
    assert faces.shape == (count, 2) and faces.dtype == np.float32
    assert np.abs(faces - np.c_[law, np.zeros(count)]).mean() < 0.1  # the noise has 0.8
    np.testing.assert_array_equal(expected(rows, 1.1 * same), expected(rows, same))  # only breath
    silent = dataclasses.replace(stated, voice_parameters=[{}] * count)
    with pytest.raises(ValueError, match="which 400 of 400 pairs do not state: set targets to"):
        StatedVoices(silent)


def test_a_voice_played_faster_lets_expect_the_face_of_a_higher_one(pairs):
    voices, higher = StatedVoices(pairs), StatedVoices(pairs)
    expected = ExpectedFaces(pairs, voices)  # the tones' pitch: 210 Hz and more, 120 Hz and more
    women = np.flatnonzero(pairs.genders == "female")[:1]
    low, high = (np.asarray([pitch]) for pitch in (1.0, 1.02))
    raised = ExpectedFaces(pairs, higher)
    higher.parameters[women] *= 1.02
    np.testing.assert_allclose(expected(women, high), raised(women, low), rtol=1e-5)
    assert not np.allclose(expected(women, high), expected(women, low))


def test_clips_are_played_faster_and_slower(folder, pairs, monkeypatch):
    speeds = []

    def crop(speech, samples, rng, speed):
        speeds.append(speed)
        return np.zeros(samples, np.float32)

    monkeypatch.setattr(voice_batches, "crop", crop)
    for augmentation in (Augmentation(speed=0.05), None):
        batches = VoiceBatches(
            configuration(folder, "speeds", augmentation=augmentation), pairs, None
        )
        for number in range(10):
            batches(number)
    played, plain = np.split(np.asarray(speeds), 2)
    assert 0.95 <= played.min() < 0.96 and 1.04 < played.max() <= 1.05
    assert (plain == 1).all()


def test_streamed_pairs_let_expect_the_same_faces(pairs, streamed):
    rows, same = np.arange(4), np.ones(4)
    ids = list(pairs.pair_ids)
    of_pairs = np.asarray([ids.index(pair_id) for pair_id in streamed.pair_ids[:4]])
    found = ExpectedFaces(streamed, StatedVoices(streamed))(rows, same)
    expected = ExpectedFaces(pairs, StatedVoices(pairs))(of_pairs, same)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_stated_voices_are_standardised_within_a_gender(pairs):
    stated = dataclasses.replace(
        pairs,
        speakers=np.arange(4),
        genders=np.asarray(["female", "female", "male", "male"]),
        voice_parameters=[
            {"pitch_hz": pitch, "breathiness": 0.5, "voice_id": "a"}
            for pitch in (200, 240, 100, 120)
        ],
    )
    voices, rows = StatedVoices(stated), np.arange(4)
    assert voices.names == ["breathiness", "pitch_hz"]
    found = voices.standardised(rows, np.ones(4))
    np.testing.assert_allclose(found, [[0, -1], [0, 1], [0, -1], [0, 1]], atol=1e-6)
    faster = voices.played(rows, np.full(4, 1.1))
    np.testing.assert_allclose(faster[:, 1], [220, 240, 110, 132])  # 264 Hz nobody stated
    np.testing.assert_allclose(faster[:, 0], 0.5)


def test_training_on_expected_faces(folder, pairs):
    config = configuration(folder, "expected", targets="expected_face")
    batch = VoiceBatches(config, pairs, None)(0)
    assert not torch.equal(
        batch["target"], VoiceBatches(configuration(folder, "x"), pairs, None)(0)["target"]
    )
    train(config)


def test_speed_is_logged(folder):
    config = configuration(folder, "logged")
    train(config)
    waiting = scalars_of(Path(config.output), "speed/waiting_for_data")
    assert list(waiting) == [2, 4, 6] and all(0 < share < 1 for share in waiting.values())
    assert min(scalars_of(Path(config.output), "speed/samples_per_second").values()) > 1
    assert 0.1 < scalars_of(Path(config.output), "speed/memory_gib")[6] < 30


# --- The Hub --------------------------------------------------------------------------------------


def test_the_card_carries_the_figures_and_no_path(folder):
    final = train(configuration(folder, "carded"))
    card = (final / "README.md").read_text()
    figures = json.loads((final / "validation.json").read_text())
    assert f"| R@5 | {figures['recall_at_5']:.3f} | {figures['chance_at_5']:.3f} |" in card
    assert "model-index" in card and str(folder) not in card
    (final / "README.md").write_text("my own words")
    train_voice_encoder.write_card(final, configuration(folder, "carded"), figures)
    assert (final / "README.md").read_text() == "my own words"


def test_push_to_hub(folder, tmp_path):
    config = configuration(folder, "pushed")
    push = ["training.train_voice_encoder", written(config), "--push-to-hub", "somebody/voices"]
    with LocalHub() as hub, HubSession(hub, tmp_path) as session:
        status, _, error = session.command(*push, token=None)
        assert status == 2 and "hf auth login" in error
        assert not Path(config.output).exists()  # told before hours of training
        status, out, error = session.command(*push, "--private")
        assert status == 0, error
        assert "/somebody/voices" in out
        repo = hub.repos["model", "somebody/voices"]
        assert repo.private
        assert {"config.json", "model.safetensors", "README.md", "preprocessor_config.json"} <= (
            repo.files()
        )
        load = "from modeling_speech2face import Speech2FaceModel as M; "
        load += "from training.export_onnx import load_encoder; load_encoder('somebody/voices'); "
        load += "print(M.from_pretrained('somebody/voices').config.face_recogniser)"
        status, out, error = session.run(load)
        assert out.strip() == "dlib", error


STREAM = """
import contextlib, io, sys
from training import train_voice_encoder

def said(path, *more):
    with contextlib.redirect_stderr(io.StringIO()) as heard:
        try:
            train_voice_encoder.main([path, *more])
        except SystemExit as end:
            return f"{end.code}: " + heard.getvalue().splitlines()[-1]
    return "trained"

for arguments in sys.argv[1:]:
    print(said(*arguments.split()))
"""


def push(hub: LocalHub, name: str, files: dict[str, Path]) -> None:
    """Puts a private data set on a hub."""
    hub.repos["dataset", name] = Repo("dataset", name, private=True, versions=[{}])
    for path, file in files.items():
        content = file.read_bytes()
        oid = hashlib.sha256(content).hexdigest()
        hub.contents[oid] = content
        hub.repos["dataset", name].versions[-1][path] = oid


def test_streaming_from_the_hub(folder, tmp_path):
    cast = folder / "cast"
    here = train(configuration(folder, "streamed_here", streaming=True, save_dtype="float32"))
    config = configuration(folder, "streamed_hub", streaming=True, save_dtype="float32")
    path = written(config)

    def say(hub: LocalHub, home: str, *arguments: str, token: str | None = TOKEN) -> list[str]:
        ran = subprocess.run(
            [sys.executable, "-c", STREAM, *arguments],
            env=hub.environment(tmp_path / home, token) | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
        return [line for line in ran.stdout.splitlines() if line[:3] in ("2: ", "1: ", "tra")]

    files = {file.name: file for file in sorted(cast.iterdir())}
    broken = "GET .*/train-00000-of-00001.parquet"
    with LocalHub() as hub:
        push(hub, "somebody/cast", files)
        no_validation = {n: f for n, f in files.items() if not n.startswith("validation")}
        push(hub, "somebody/part", no_validation)
        hub.breaks_once = {broken: [503, 0]}
        whole, part, missing = say(
            hub,
            "home",
            f"{path} --dataset somebody/cast",
            f"{path} --dataset somebody/part --output {tmp_path / 'part'}",
            f"{path} --dataset somebody/missing --output {tmp_path / 'missing'}",
        )
        assert whole == "trained" and hub.breaks_once == {broken: []}
        assert part.startswith("2: no validation-*.parquet in somebody/part")
        assert missing.startswith("2: somebody/missing is neither a folder nor a data set that")
        (unseen,) = say(hub, "nobody", f"{path} --dataset somebody/cast", token=None)
        assert unseen.startswith("2: somebody/cast is neither") and "`hf auth login`" in unseen
    assert_same_weights(Path(config.output) / "final", here)
