"""A training by several processes and machines: DDP, FSDP, broken checkpoints, killed runs."""

import random
from pathlib import Path

import pytest
import torch

from tests.training_cast import write_cast
from tests.two_processes import two_processes
from tests.voice_runs import assert_same_weights, configuration, scalars_of, weights_of
from training.checkpoints import list_checkpoints
from training.train_voice_encoder import export, train

TWO = {"batch_size": 2, "validate_every": 2, "log_every": 1, "save_dtype": "float32"}
PARTS = {"learning_rates": {"pooling": 1e-4}, "frozen": ["layer_scores"]}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums of several threads may come in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_cast(folder / "cast", row_group_size=3)
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """A run of two processes by DDP that nothing interrupted."""
    config = configuration(folder, "whole", **TWO, **PARTS)
    assert two_processes(config) == ["", ""]
    return Path(config.output)


def steps_kept(output: str | Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in list_checkpoints(output)]


# --- DDP ------------------------------------------------------------------------------------------


def test_two_processes_resume_exactly(folder, whole):
    stopped = configuration(folder, "stopped", **TWO, **PARTS)
    assert two_processes(stopped, stop_at_step=3) == ["", ""]
    assert two_processes(stopped) == ["", ""]
    assert_same_weights(Path(stopped.output) / "final", whole / "final")
    losses = scalars_of(whole, "loss/mse")
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert scalars_of(Path(stopped.output), "loss/mse") == losses
    # Two processes of two are not one of two: each hears its own speakers.
    one = train(configuration(folder, "one_of_two", **TWO, **PARTS))
    ours, theirs = weights_of(one), weights_of(whole / "final")
    assert not torch.equal(ours["projection.1.weight"], theirs["projection.1.weight"])


def test_a_killed_process_ends_the_run_which_goes_on_exactly(folder, whole):
    rank, step = random.randrange(2), random.randrange(6)
    config = configuration(folder, "killed", **TWO, **PARTS)
    ends = two_processes(config, killed=(rank, step))
    assert ends[rank] is None and ends[1 - rank] != "", (rank, step, ends)
    assert max(steps_kept(config.output), default=0) == step // 2 * 2, (rank, step)
    assert two_processes(config) == ["", ""]
    assert_same_weights(Path(config.output) / "final", whole / "final")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_leaves_the_checkpoint_before(folder, whole, rank):
    config = configuration(folder, f"full_{rank}", **TWO, **PARTS)
    assert two_processes(config, stop_at_step=2) == ["", ""]
    ends = two_processes(config, full_for=rank)
    assert ends[0] == ends[1] and "checkpoint-4 cannot be written ([Errno 28] No space" in ends[0]
    assert ends[0].endswith(f"continues from {config.output}/checkpoint-2")
    assert [path.name for path in Path(config.output).glob("checkpoint-*")] == ["checkpoint-2"]
    assert two_processes(config) == ["", ""]
    assert_same_weights(Path(config.output) / "final", whole / "final")


# --- FSDP -----------------------------------------------------------------------------------------


def assert_close_weights(one: Path, other: Path) -> None:
    a, b = weights_of(one), weights_of(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture(scope="module")
def sharded(folder):
    """A run of two processes by FSDP that was stopped and resumed."""
    config = configuration(folder, "sharded", **TWO, **PARTS)
    assert two_processes(config, stop_at_step=3, sharded=True) == ["", ""]
    assert two_processes(config, sharded=True) == ["", ""]
    return config


@pytest.mark.slow
def test_fsdp_trains_as_ddp_does(folder, whole, sharded):
    assert_close_weights(Path(sharded.output) / "final", whole / "final")
    for name in ("loss/mse", "loss/info_nce", "gradient_norm"):
        expected = scalars_of(whole, name)
        assert scalars_of(Path(sharded.output), name) == pytest.approx(expected, rel=1e-4)
    from modeling_speech2face import Speech2FaceModel

    Speech2FaceModel.from_pretrained(Path(sharded.output) / "final")


@pytest.mark.slow
def test_fsdp_resumes_exactly(folder, sharded):
    config = configuration(folder, "sharded_whole", **TWO, **PARTS)
    assert two_processes(config, sharded=True) == ["", ""]
    assert_same_weights(Path(config.output) / "final", Path(sharded.output) / "final")


@pytest.mark.slow
def test_what_fsdp_wrote_is_exported_by_one_process_and_continued_by_fsdp_alone(folder, sharded):
    last = list_checkpoints(sharded.output)[-1]
    export(sharded, last, folder / "exported")
    assert_same_weights(folder / "exported", Path(sharded.output) / "final")
    with pytest.raises(ValueError, match="checkpoint-6 cannot be continued from here: go on with"):
        train(sharded)
    ends = two_processes(configuration(folder, "whole", **TWO, **PARTS), sharded=True)
    assert ends[0] == ends[1] and "go on without --use_fsdp" in ends[0]
