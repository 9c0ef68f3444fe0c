"""A training by several processes and machines: DDP, FSDP, broken checkpoints, killed runs."""

import dataclasses
import errno
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny_runs import (
    assert_same_weights,
    configuration,
    configuration_of,
    scalars_of,
    weights_of,
    written,
)
from tests.training_cast import write_cast
from tests.two_processes import two_processes
from training import distill_face_decoder, train_face_decoder, train_normalized_decoder
from training.checkpoints import (
    SHARDS,
    Progress,
    TrainingFailed,
    failures_explained,
    list_checkpoints,
)
from training.configuration import VoiceEncoderLosses, VoiceEncoderTraining
from training.train_voice_encoder import export, load_data, train

TWO = {"batch_size": 2, "validate_every": 2, "log_every": 1, "save_dtype": "float32"}
TWO |= {"gradient_accumulation": 2, "gradient_checkpointing": True}
TWO |= {"learning_rates": {"pooling": 1e-4}, "frozen": ["layer_scores"]}
TWO |= {"losses": VoiceEncoderLosses(am_softmax=0.1, voice_parameters=1.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_cast(folder / "cast", row_group_size=3)
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """A run of two processes by DDP that nothing interrupted."""
    config = configuration(folder, "whole", **TWO)
    assert two_processes(config) == ["", ""]
    return Path(config.output)


def steps_kept(output: str | Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in list_checkpoints(output)]


# --- DDP ------------------------------------------------------------------------------------------


def test_two_processes_resume_exactly(folder, whole):
    stopped = configuration(folder, "stopped", **TWO)
    assert two_processes(stopped, stop_at_step=3) == ["", ""]
    assert two_processes(stopped) == ["", ""]
    assert_same_weights(Path(stopped.output) / "final", whole / "final")
    losses = scalars_of(whole, "loss/mse")
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert scalars_of(Path(stopped.output), "loss/mse") == losses
    # Two processes of two are not one of two: each hears its own speakers.
    one = train(configuration(folder, "one_of_two", **TWO))
    ours, theirs = weights_of(one), weights_of(whole / "final")
    assert not torch.equal(ours["projection.1.weight"], theirs["projection.1.weight"])


def test_a_killed_process_ends_the_run_which_goes_on_exactly(folder, whole):
    rank, step = random.randrange(2), random.randrange(6)
    config = configuration(folder, "killed", **TWO)
    ends = two_processes(config, killed=(rank, step))
    assert ends[rank] is None and ends[1 - rank] != "", (rank, step, ends)
    assert max(steps_kept(config.output), default=0) == step // 2 * 2, (rank, step)
    assert two_processes(config) == ["", ""]
    assert_same_weights(Path(config.output) / "final", whole / "final")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_leaves_the_checkpoint_before(folder, whole, rank):
    config = configuration(folder, f"full_{rank}", **TWO)
    assert two_processes(config, stop_at_step=2) == ["", ""]
    ends = two_processes(config, full_for=rank)
    assert ends[0] == ends[1] and "checkpoint-4 cannot be written ([Errno 28] No space" in ends[0]
    assert ends[0].endswith(f"continues from {config.output}/checkpoint-2")
    assert [path.name for path in Path(config.output).glob("checkpoint-*")] == ["checkpoint-2"]
    assert two_processes(config) == ["", ""]
    assert_same_weights(Path(config.output) / "final", whole / "final")


def test_data_that_one_process_cannot_prepare_ends_those_that_wait_for_it(folder):
    config = dataclasses.replace(configuration(folder, "no_data", **TWO), dataset="nowhere")
    first, other = two_processes(config)
    assert first.startswith("FileNotFoundError: ") and "nowhere" in first
    assert other == "TrainingFailed: another process could not prepare, and says why"


def test_a_decoder_learns_from_two_processes_what_one_learns_from_both_batches(folder):
    asked = {"batch_size": 2, "steps": 3, "log_every": 1}
    config = configuration_of("normalized_decoder", folder, "two_normalized", **asked)
    assert two_processes(config, train=train_normalized_decoder.train) == ["", ""]
    both = dataclasses.replace(config, gradient_accumulation=2, output=str(folder / "one_of_both"))
    train_normalized_decoder.train(both)
    norms = scalars_of(Path(both.output), "gradient_norm")
    assert list(norms) == [1, 2, 3]
    assert scalars_of(Path(config.output), "gradient_norm") == pytest.approx(norms, rel=1e-3)


@pytest.mark.slow
def test_two_processes_resume_every_decoder_exactly(folder):
    decoder = str(folder / "two_face_decoder" / "final")  # made by the first, a student's teacher
    for part, module, asked in (
        ("face_decoder", train_face_decoder, {"embedding_loss": 0.1}),
        ("face_decoder_distilled", distill_face_decoder, {"decoder": decoder}),
        ("normalized_decoder", train_normalized_decoder, {}),
    ):
        asked |= {"batch_size": 2, "save_dtype": "float32"}
        config = configuration_of(part, folder, f"two_{part}", **asked)
        assert two_processes(config, train=module.train) == ["", ""]
        stopped = dataclasses.replace(config, output=f"{config.output}_stopped")
        assert two_processes(stopped, 3, module.train) == ["", ""]
        assert two_processes(stopped, train=module.train) == ["", ""]
        whole = Path(config.output) / "final"
        assert_same_weights(Path(stopped.output) / "final", whole)
        alone = module.train(dataclasses.replace(config, output=f"{config.output}_by_one"))
        one, two = weights_of(alone), weights_of(whole)
        assert not all(torch.equal(one[name], two[name]) for name in two)


# --- Checkpoints that break -----------------------------------------------------------------------


def tear(file: Path) -> None:
    """Leaves a file as a machine does that loses its power while it writes."""
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.bin", "custom_checkpoint_0.pkl"])
def test_a_torn_checkpoint_is_named_and_the_one_before_it_used(folder, capsys, file):
    config = configuration(folder, f"torn_{file}")
    final = train(config)
    shutil.copytree(final, folder / f"kept_{file}")
    tear(Path(config.output) / "checkpoint-6" / file)
    assert_same_weights(train(config), folder / f"kept_{file}")
    assert f"{config.output}/checkpoint-6 cannot be read (" in capsys.readouterr().out
    for checkpoint in list_checkpoints(config.output):
        (checkpoint / file).unlink()
    with pytest.raises(TrainingFailed, match="checkpoint-. cannot be read .* none before it"):
        train(config)


def test_a_checkpoint_of_another_model_is_refused(folder):
    config = configuration(folder, "one_model")
    assert train(config, stop_at_step=2) is None
    other = dataclasses.replace(config, model=config.model | {"pooling_hidden_size": 8})
    with pytest.raises(TrainingFailed, match="train with the configuration that it was made with"):
        train(other)
    with pytest.raises(TrainingFailed, match="checkpoint-2 cannot be read .*: export it with the"):
        export(other, Path(config.output) / "checkpoint-2", folder / "nowhere")
    assert steps_kept(config.output) == [2]


def test_two_processes_use_the_same_checkpoint(folder, whole):
    config = configuration(folder, "torn_for_two", **TWO)
    assert two_processes(config, stop_at_step=4) == ["", ""]
    tear(Path(config.output) / "checkpoint-4" / "optimizer.bin")
    assert two_processes(config) == ["", ""]
    assert_same_weights(Path(config.output) / "final", whole / "final")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConnectionError("hf://cast cannot be read"), "^hf://cast cannot be read in step 1$"),
        (OSError(errno.ENOSPC, "No space left"), "full .*No space left.* in step 1: make room"),
    ],
)
def test_what_fails_around_a_training_is_one_sentence(folder, error, sentence):
    config = configuration(folder, "nothing")
    with pytest.raises(TrainingFailed, match=sentence), failures_explained(config, Progress()):
        raise error


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_speech_that_cannot_be_read_is_one_sentence(folder, workers):
    config = configuration(folder, f"gone_{workers}", streaming=True, workers=workers)
    pairs, validation = load_data(config)
    gone = dataclasses.replace(pairs, files=[str(folder / "gone.parquet")])
    with pytest.raises(TrainingFailed, match="^[^\n]*gone.parquet cannot be read .* in step 1$"):
        train(config, data=(gone, validation))


# --- FSDP -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sharded(folder):
    """A run of two processes by FSDP that was stopped and resumed."""
    config = configuration(folder, "sharded", **TWO)
    assert two_processes(config, stop_at_step=3, sharded=True) == ["", ""]
    assert two_processes(config, sharded=True) == ["", ""]
    return config


@pytest.mark.slow
def test_fsdp_trains_as_ddp_does(folder, whole, sharded):
    a, b = weights_of(Path(sharded.output) / "final"), weights_of(whole / "final")
    assert a.keys() == b.keys()
    blind = "pooling.attention.2.bias"  # a softmax does not see it: it learns from rounding alone
    for name in a.keys() - {blind}:  # a step moves a weight by a thousandth
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=2e-5, msg=name)
    for name in ("loss/mse", "loss/info_nce", "gradient_norm"):
        expected = scalars_of(whole, name)
        assert scalars_of(Path(sharded.output), name) == pytest.approx(expected, rel=1e-4)
    from modeling_speech2face import Speech2FaceModel

    Speech2FaceModel.from_pretrained(Path(sharded.output) / "final")


@pytest.mark.slow
def test_fsdp_in_bf16_differs_by_its_rounding_alone(folder, whole):
    config = configuration(folder, "sharded_bf16", **TWO | {"mixed_precision": "bf16"})
    assert two_processes(config, sharded=True) == ["", ""]
    losses, expected = (scalars_of(Path(o), "loss/mse") for o in (config.output, whole))
    assert losses == pytest.approx(expected, rel=5e-3) and losses != expected


@pytest.mark.slow
def test_fsdp_resumes_exactly(folder, sharded):
    config = configuration(folder, "sharded_whole", **TWO)
    assert two_processes(config, sharded=True) == ["", ""]
    assert_same_weights(Path(config.output) / "final", Path(sharded.output) / "final")


@pytest.mark.slow
def test_what_fsdp_wrote_is_exported_by_one_process_and_continued_by_fsdp_alone(folder, sharded):
    last = list_checkpoints(sharded.output)[-1]
    export(sharded, last, folder / "exported")
    assert_same_weights(folder / "exported", Path(sharded.output) / "final")
    with pytest.raises(ValueError, match="checkpoint-6 cannot be continued from here: go on with"):
        train(sharded)
    ends = two_processes(configuration(folder, "whole", **TWO), sharded=True)
    assert ends[0] == ends[1] and "go on without --use_fsdp" in ends[0]


@pytest.mark.slow
def test_torn_shards_are_named_and_the_checkpoint_before_them_used(folder, sharded):
    kept = shutil.copytree(Path(sharded.output) / "final", folder / "sharded_kept")
    last = list_checkpoints(sharded.output)[-1]
    tear(last / SHARDS / "__1_0.distcp")
    with pytest.raises(TrainingFailed, match="checkpoint-6 cannot be read .* export another one"):
        export(sharded, last, folder / "torn_export")
    assert two_processes(sharded, sharded=True) == ["", ""]
    assert_same_weights(Path(sharded.output) / "final", kept)


def test_the_first_version_of_fsdp_is_refused_and_any_by_a_decoder(folder, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as `accelerate launch --use_fsdp` has it
    with pytest.raises(ValueError, match="add --fsdp_version 2"):
        train(configuration(folder, "first_version"))
    for part, module in (
        ("face_decoder", train_face_decoder),
        ("face_decoder_distilled", distill_face_decoder),
        ("normalized_decoder", train_normalized_decoder),
    ):
        with pytest.raises(ValueError, match="voice encoder alone: leave --use_fsdp out"):
            module.train(configuration_of(part, folder, "spread"))


# --- Several machines -----------------------------------------------------------------------------


def two_machines(configs: list[VoiceEncoderTraining]) -> list[tuple[int, str]]:
    """A training by two machines of one process each, both of them this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = []
    for rank, config in enumerate(configs):
        path = written(config, Path(f"{config.cache}.yaml"))
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
        command += ["--num_machines", "2", "--num_processes", "2", "--machine_rank", str(rank)]
        command += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
        launched.append(
            subprocess.Popen(
                [*command, "-m", "training.train_voice_encoder", str(path)],
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [each.communicate(timeout=600)[0] for each in launched]
    return [(each.returncode, text) for each, text in zip(launched, said, strict=True)]


@pytest.mark.slow
def test_two_machines_with_caches_of_their_own_train_as_two_processes(folder, whole):
    config = configuration(folder, "machines", **TWO)
    machines = [dataclasses.replace(config, cache=str(folder / f"cache_{k}")) for k in range(2)]
    for code, said in two_machines(machines):
        assert code == 0, said[-3000:]
    assert_same_weights(Path(config.output) / "final", whole / "final")
    for machine in machines:
        assert len(list(Path(machine.cache).glob("*-train-64/complete"))) == 1


@pytest.mark.slow
def test_machines_that_do_not_share_the_output_are_refused(folder):
    config = configuration(folder, "apart_0", **TWO)
    apart = [config, dataclasses.replace(config, output=str(folder / "apart_1"))]
    apart = [dataclasses.replace(each, cache=f"{each.output}_cache") for each in apart]
    for code, said in two_machines(apart):
        assert code != 0 and "process 1 does not see the output of process 0: set output" in said
