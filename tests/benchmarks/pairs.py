"""How fast pairs are found in video: `python -m tests.benchmarks.pairs FILMS`.

FILMS is a folder that `python -m dataset_scripts.synthetic_cast FILMS --films N` made; those of 360
lines at 25 pictures a second are timed. In one run on one machine: film seconds a second of one
core, what each step takes of it, and the ratio to nothing but decoding and detecting faces in the
same pictures at the same size; then whole data sets with one worker, with two, and with Ray; with
`--memory`, the largest memory for 50 and for 500 short stretches of film.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # figures are for one core
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINE_FILM_S = 600.0  # of film that each engine is given; its start counts for little then
STRETCH_S = 3.0  # of the short stretches whose memory is measured
SAMPLE_S = 0.2  # between two looks at the memory


def films_to_time(folder: Path, lines: int = 360, fps: float = 25) -> list[tuple[Path, float]]:
    """(path, seconds) of the films of that size and rate."""
    found = []
    for truth in sorted((folder / "videos").glob("*.json")):
        film = json.loads(truth.read_text(encoding="utf-8"))
        if min(film["width"], film["height"]) == lines and film["fps"] == fps:
            (path,) = (p for p in truth.parent.glob(f"{truth.stem}.*") if p != truth)
            found.append((path, duration_s(path)))
    if not found:
        sys.exit(f"{folder} has no films of {lines} lines at {fps:g} pictures a second")
    return found


def duration_s(path: Path) -> float:
    """Seconds of a film, as its container says."""
    import av

    with av.open(str(path)) as container:
        return container.duration / 1e6  # microseconds


def decode_and_detect(path: Path, config) -> None:
    """The least that any builder does: decode every picture, detect faces in the sampled ones."""
    from dataset_scripts.faces import detect_boxes
    from dataset_scripts.video import probe, read_frames

    tracking = config.tracking
    for frame in read_frames(path, probe(path, config.limits), limits=config.limits):
        if frame.index % tracking.detect_every == 0:
            detect_boxes(frame.shrunk(tracking.detection_lines)[0])


def time_one_core(films: Sequence[tuple[Path, float]]) -> Iterator[str]:
    """Lines with the speed on one core, the share of each step and the ratio to the baseline."""
    from dataset_scripts.extraction import ExtractionConfig, extract_pairs
    from dataset_scripts.records import SourceVideo
    from dataset_scripts.step_clock import StepClock

    config, clock = ExtractionConfig(), StepClock()
    extraction_s = baseline_s = 0.0
    for number, (path, _) in enumerate([films[0], *films]):  # the first loads the models
        video = SourceVideo(str(number), path, "benchmark", "none")
        start = time.process_time()
        decode_and_detect(path, config)
        between = time.process_time()
        extract_pairs(video, config, clock if number else StepClock())
        if number:
            baseline_s += between - start
            extraction_s += time.process_time() - between
    film_s = sum(seconds for _, seconds in films)
    yield f"{len(films)} films, {film_s:.0f} s, one core (processor time)"
    yield f"  extraction             {film_s / extraction_s:6.1f} x real time"
    yield f"  decode + detect alone  {film_s / baseline_s:6.1f} x real time"
    yield f"  ratio                  {extraction_s / baseline_s:6.2f}"
    for name, seconds in clock.seconds.most_common():
        yield f"  {name:22} {seconds / extraction_s:6.1%}   {1000 * seconds / film_s:6.1f} ms/s"
    other = extraction_s - clock.seconds.total()
    yield f"  {'other':22} {other / extraction_s:6.1%}   {1000 * other / film_s:6.1f} ms/s"


def time_engines(films: Sequence[tuple[Path, float]], engines: Sequence[str]) -> Iterator[str]:
    """Lines with the time of the videos alone, from the first result on, for each engine."""
    from functools import partial

    from dataset_scripts.engines import run_units
    from dataset_scripts.extraction import ExtractionConfig, extract_pairs
    from dataset_scripts.records import SourceVideo
    from dataset_scripts.units import Unit, UnitWork

    config = ExtractionConfig()
    work = UnitWork(partial(extract_pairs, config=config), face_embedding_size=128)
    films = films * math.ceil(ENGINE_FILM_S / sum(seconds for _, seconds in films))
    film_s = sum(seconds for _, seconds in films)
    yield f"{len(films)} films, {film_s:.0f} s, starting the workers included (wall time)"
    for engine in engines:
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                units = [
                    Unit(
                        SourceVideo(str(n), path, "benchmark", "none"),
                        Path(folder, f"{n}.parquet"),
                    )
                    for n, (path, _) in enumerate(films)
                ]
                start = time.perf_counter()
                for _ in run_units(units, work, workers, engine):
                    pass
                seconds = time.perf_counter() - start
            yield (
                f"  {engine:6} {workers} worker{'s' * (workers > 1)} {seconds:8.1f} s   "
                f"{film_s / seconds:6.1f} x real time"
            )


def measure_memory(films: Path, counts: Sequence[int]) -> Iterator[str]:
    """Lines with the most memory that a whole build takes for so many short stretches of film."""
    paths = [p for p in sorted((films / "videos").iterdir()) if p.suffix != ".json"]
    stretches = [
        (path.stem, round(start, 1), round(start + STRETCH_S, 1))
        for path in paths
        for start in [k * STRETCH_S for k in range(int(duration_s(path) // STRETCH_S))]
    ]
    if len(stretches) < max(counts):
        sys.exit(f"{len(stretches)} stretches of {STRETCH_S:g} s, {max(counts)} needed: more films")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder, "stretches.csv")
            with listed.open("w", newline="") as file:
                csv.writer(file).writerows((*s, 0.5, 0.5) for s in stretches[:count])
            command = [sys.executable, "-m", "dataset_scripts.speech_face_pairs", "avspeech"]
            command += [str(listed), "--videos", str(films / "videos"), "--workers", "2"]
            command += ["--output", str(Path(folder, "pairs"))]
            main_mb, workers_mb = peak_megabytes(command)
        yield (
            f"  {count:4} stretches of {STRETCH_S:g} s: main process {main_mb:5.0f} MB, "
            f"a worker {workers_mb:5.0f} MB"
        )


def peak_megabytes(command: Sequence[str]) -> tuple[float, float]:
    """Runs a command; the most resident memory of it, and of any process that it started."""
    import psutil

    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peaks = {"main": 0, "child": 0}

    def watch() -> None:
        while process.poll() is None:
            try:
                main = psutil.Process(process.pid)
                peaks["main"] = max(peaks["main"], main.memory_info().rss)
                for child in main.children(recursive=True):
                    peaks["child"] = max(peaks["child"], child.memory_info().rss)
            except psutil.Error:  # a process that has just ended
                pass
            time.sleep(SAMPLE_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    watcher.join()
    if status:
        sys.exit(f"the build failed with status {status}")
    return peaks["main"] / 1e6, peaks["child"] / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("films", type=Path, help="folder of films of the cast")
    parser.add_argument("--count", type=int, default=24, help="films that are timed")
    parser.add_argument("--lines", type=int, default=360, help="of the films that are timed")
    parser.add_argument("--engines", nargs="*", default=["local", "ray"], help="that are compared")
    parser.add_argument(
        "--memory", nargs="*", type=int, default=[], metavar="N", help="e.g. 50 500"
    )
    options = parser.parse_args(arguments)
    films = films_to_time(options.films, options.lines)[: options.count]
    for line in time_one_core(films):
        print(line, flush=True)
    if options.engines:
        for line in time_engines(films, options.engines):
            print(line, flush=True)
    if options.memory:
        print("largest memory of a whole build, two workers")
        for line in measure_memory(options.films, options.memory):
            print(line, flush=True)


if __name__ == "__main__":
    main()
