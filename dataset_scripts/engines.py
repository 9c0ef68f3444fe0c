"""Runs units of work on the worker processes of one machine, or on a cluster with Ray Data.

Either way a unit is done in a process of its own kind: a decoder that crashes takes down that
process and not the run, one that hangs is stopped, and the video is refused.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from pathlib import Path

from dataset_scripts.units import Unit, UnitReport, UnitWork

ENGINES = ("local", "ray")
UNITS_PER_WORKER = 200  # then a fresh process takes over: what libraries leak does not add up
CRASHES = 2  # of one video; a single one may be the machine's (out of memory, killed by hand)
BROKEN_POOLS = 3  # in a row, without one unit done
RAY_BLOCKS = 4096  # at most; each is a handful of units that one worker takes
# One core a worker, and none that spins for another; read when libraries are imported.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "LP_NUM_THREADS": "1",
}


def run_units(
    units: Sequence[Unit],
    work: UnitWork,
    workers: int = 1,
    engine: str = "local",
    ray_address: str | None = None,
) -> Iterator[UnitReport]:
    """Does units, and reports each when its file is written, in whatever order they end.

    Args:
        units: what is still to do.
        work: what is done with each.
        workers: processes that work at once.
        engine: "local", or "ray" for Ray Data.
        ray_address: of a Ray cluster; None starts Ray on this machine.

    Raises:
        ValueError: for an unknown engine.
        OSError: if what came of a video cannot be written.
        RuntimeError: if workers cannot be started.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
    if not units:
        return iter(())
    if engine == "ray":
        return _run_on_ray(units, work, workers, ray_address)
    return _run_here(units, work, workers)


def _run_here(units: Sequence[Unit], work: UnitWork, workers: int) -> Iterator[UnitReport]:
    pool = GuardedPool(work, workers)
    try:
        yield from pool.run(units)
    finally:
        pool.close()


class GuardedPool:
    """Processes that do units, and may die or hang without harm to the run.

    Args:
        work: what is done with each unit.
        workers: how many processes.
    """

    def __init__(self, work: UnitWork, workers: int):
        self.work = work
        self.workers = workers
        self.pool = None

    def run(self, units: Sequence[Unit]) -> Iterator[UnitReport]:
        """Does units, and reports each; see `run_units`."""
        waiting, running, broken = deque((unit, 1) for unit in units), {}, 0
        while waiting or running:
            try:
                self._feed(waiting, running)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    report = self._report(future, *running[future])
                    unit, attempt = running.pop(future)
                    if report is None:
                        waiting.append((unit, attempt + 1))
                    else:
                        broken = 0
                        yield report
            except RuntimeError as error:  # the pool's own: no process lived to take work
                broken += 1
                if broken == BROKEN_POOLS:
                    raise RuntimeError(f"the worker processes do not start: {error}") from error
                waiting.extendleft(running.values())
                running.clear()
                self.close()

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()
            self.pool = None

    def _feed(self, waiting: deque, running: dict) -> None:
        if self.pool is None:
            self._start()
        while waiting and len(running) < 2 * self.workers:  # what is scheduled is held in memory
            unit, attempt = waiting.popleft()
            future = self.pool.schedule(self.work, args=(unit,), timeout=self.work.max_seconds)
            running[future] = (unit, attempt)

    def _start(self) -> None:
        from pebble import ProcessPool

        os.environ.update(ONE_THREAD)
        spawn = multiprocessing.get_context("spawn")  # a fork would share the libraries' locks
        # Ctrl-C is for the run; its threads and workers inherit that they do not hear of it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.pool = ProcessPool(
                self.workers, UNITS_PER_WORKER, _start_worker, (self.work,), context=spawn
            )
            self.pool.schedule(os.getpid)  # the first task starts the workers
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _report(self, future: Future, unit: Unit, attempt: int) -> UnitReport | None:
        """What came of a unit; None if its process died and it is to be tried once more."""
        from pebble import ProcessExpired

        try:
            return future.result()
        except TimeoutError:
            limit = f"the video took longer than {self.work.max_seconds:g} s"
            return self.work.refuse(unit, "too_slow", limit)
        except ProcessExpired as error:
            if attempt < CRASHES:
                return None
            return self.work.refuse(
                unit, "failed", f"its process died twice (exit code {error.exitcode})"
            )


def _start_worker(work: UnitWork) -> None:
    """Ends this worker when the run is killed; by itself it would wait for work for ever.

    Args:
        work: comes along so that what it imports does not count as time spent on a video.
    """
    work.prepare()

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class RayWorker:
    """A worker of Ray Data: it guards one process as the local engine does.

    Args:
        work: what is done with each unit.
    """

    def __init__(self, work: UnitWork):
        self.pool = GuardedPool(work, workers=1)

    def __call__(self, row: dict) -> dict:
        """Does a unit.

        Args:
            row: "unit": a pickled `Unit`.

        Returns:
            "report": a pickled `UnitReport`.
        """
        (report,) = self.pool.run([pickle.loads(row["unit"])])
        return {"report": pickle.dumps(report)}


def _run_on_ray(
    units: Sequence[Unit], work: UnitWork, workers: int, address: str | None
) -> Iterator[UnitReport]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    os.environ.update(ONE_THREAD)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    here = str(Path(__file__).resolve().parent.parent)
    ray.init(
        address=address,
        include_dashboard=None if address else False,
        num_cpus=None if address else workers,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {**ONE_THREAD, "PYTHONPATH": here}},
    )
    try:
        DataContext.get_current().enable_progress_bars = False  # the command has its own
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        rows = [{"unit": pickle.dumps(unit)} for unit in units]
        blocks = min(len(rows), RAY_BLOCKS)
        done = ray.data.from_items(rows, override_num_blocks=blocks).map(
            RayWorker,
            fn_constructor_args=(work,),
            compute=ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        for row in done.iter_rows():
            yield pickle.loads(row["report"])
    finally:
        ray.shutdown()
