"""The cast's work in this process or in several, each with a renderer of its own."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path


def run_tasks(
    function: Callable[..., Path], tasks: Sequence[tuple], workers: int
) -> Iterator[Path]:
    """Calls a function with each task's arguments.

    Args:
        function: of a module, so that other processes find it; writes a file.
        tasks: the arguments of each call.
        workers: processes; with one, or for one task, the work is done here.

    Returns:
        What each call gave, as soon as it is done.
    """
    if workers == 1 or len(tasks) <= 1:
        for task in tasks:
            yield function(*task)
        return
    # Read when a worker imports its libraries: one core each, and none that spins for another.
    os.environ.update(LP_NUM_THREADS="1", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
