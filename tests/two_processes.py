"""A training by two processes, without waiting for them to import.

They are forked from a server that has imported everything, and find each other through the same
variables as under `torchrun`.
"""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from training import train_voice_encoder
from training.configuration import Training

PATIENCE = 300  # s
PATIENCE_AFTER_A_FAILURE = 20  # s: a launcher ends who waits for a process that is dead

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "datasets",
        "diffusers.training_utils",
        "torch.distributed.checkpoint",
        "torch.distributed.fsdp",
        "torch.utils.tensorboard",
        "transformers.models.wav2vec2.modeling_wav2vec2",
        "modeling_speech2face.modeling_speech2face",
        "training.distill_face_decoder",
        "training.train_normalized_decoder",
        "training.train_voice_encoder",
    ]
)


def two_processes(
    config: Training,
    stop_at_step: int | None = None,
    train: Callable[[Training, int | None], Path | None] = train_voice_encoder.train,
    sharded: bool = False,
    killed: tuple[int, int] | None = None,
    full_for: int | None = None,
) -> list[str | None]:
    """Trains by two processes on a CPU.

    Args:
        config: of the run.
        stop_at_step: as for `train`.
        train: of one of the trainings.
        sharded: by FSDP instead of DDP.
        killed: a process, and the step in which it gets SIGKILL.
        full_for: a process that finds the disk full when it writes a checkpoint.

    Returns:
        How each ended: what it raised, in words, "", or None if it was killed. Who waits too long
        for one that failed, or hangs at its end, was "ended by its launcher".
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends = [FORKS.Pipe(duplex=False) for _ in range(2)]
    processes = []
    for rank, (_, told) in enumerate(ends):
        what = {"config": config, "stop_at_step": stop_at_step, "train": train}
        what |= {"sharded": sharded}
        what |= {"dies_in": killed[1] if killed and killed[0] == rank else None}
        what |= {"is_full": full_for == rank}
        processes.append(FORKS.Process(target=_train, args=(rank, port, told), kwargs=what))
        processes[-1].start()
        told.close()
    said: dict[Any, str | None] = {}
    while coming := [hears for hears, _ in ends if hears not in said]:
        failed = any(end != "" for end in said.values())
        if not (ready := wait(coming, PATIENCE_AFTER_A_FAILURE if failed else PATIENCE)):
            break
        for hears in ready:
            try:
                said[hears] = hears.recv()
            except EOFError:
                said[hears] = None
    for process, (hears, _) in zip(processes, ends, strict=True):
        process.join(PATIENCE if hears in said else 0)
        if process.exitcode is None:
            process.kill()
            process.join()
            said[hears] = "ended by its launcher"
    return [said[hears] for hears, _ in ends]


def _train(
    rank: int,
    port: int,
    told: Any,
    config: Training,
    stop_at_step: int | None,
    train: Callable[[Training, int | None], Path | None],
    sharded: bool,
    dies_in: int | None,
    is_full: bool,
) -> None:
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in variables.items()})

    _watch_the_end()
    if sharded:
        _spread_on_cpus()
    if is_full:
        _fill_disk()
    if dies_in is not None:
        rate_of = train_voice_encoder.set_learning_rate

        def dies(optimizer: Any, config: Training, step: int) -> float:
            if step == dies_in:
                os.kill(os.getpid(), signal.SIGKILL)
            return rate_of(optimizer, config, step)

        train_voice_encoder.set_learning_rate = dies
    try:
        train(config, stop_at_step)
    except Exception as error:
        told.send(f"{type(error).__name__}: {error}")
    else:
        told.send("")


def _watch_the_end() -> None:
    """Has a process group refuse to end before the modules that use it, with which it may hang."""
    import gc

    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    destroy = distributed.destroy_process_group

    def destroys(group: Any = None) -> None:
        used = [each for each in gc.get_objects() if isinstance(each, DistributedDataParallel)]
        assert group is not None or not used, "a module outlives its process group"
        destroy(group)

    distributed.destroy_process_group = destroys


def _spread_on_cpus() -> None:
    """Has Accelerate spread a model over CPUs, which it does only over accelerators.

    What it asks is the kind of the processes; how a model is spread does not depend on it.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "true"  # as `accelerate launch` has it
    os.environ["FSDP_AUTO_WRAP_POLICY"] = "TRANSFORMER_BASED_WRAP"
    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "Wav2Vec2EncoderLayer"
    state = PartialState(cpu=True)
    state.distributed_type = DistributedType.MULTI_GPU


def _fill_disk() -> None:
    """Has whatever torch saves end in the middle, as on a full disk."""
    import errno

    import torch

    def save(_: Any, path: Any, *rest: Any, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    torch.save = save
