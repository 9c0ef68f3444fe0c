"""How long all tables of an evaluation take from given embeddings.

`python -m tests.benchmarks.evaluation [--pairs 1000]`: people of numbers, all floors, two lengths
of speech, shuffled voices, ceilings, and faces by one decoder with what the instruments read from
them; some 60 groups as the cast has them; every interval, probe, chart and page. Nothing is
decoded, and no face is looked at.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests.evaluated import labels_of, make_subjects, readings_of
from training.evaluation import controls, run
from training.evaluation.chart_data import chart_data
from training.evaluation.report import write_report
from training.evaluation.results import Results
from training.evaluation.subjects import Subjects
from training.evaluation.systems import (
    System,
    embedding_ceilings,
    embedding_floors,
    faces_system,
)

MORE_TRAITS = 13


def make_systems(subjects: Subjects) -> tuple[list[System], list[System], System]:
    """Embeddings, faces and the original faces, as one checkpoint with one decoder has them."""
    rng, labels = np.random.default_rng(0), labels_of(subjects)
    truth = subjects.embeddings - subjects.centre
    heard = []
    for seconds in (3.0, 6.0):
        centred = 0.3 * truth + 0.3 * rng.standard_normal(truth.shape)
        raw = centred + subjects.centre
        heard.append(
            System(f"voice, {seconds:g} s", "system", "embeddings", raw, centred, "", seconds)
        )
    embeddings = embedding_floors(subjects, labels.genders, labels.age_groups)
    embeddings += heard
    embeddings += [
        controls.shuffled(heard[-1], subjects.speakers, within, 0)
        for within in (None, labels.genders)
    ]
    embeddings += embedding_ceilings(subjects)
    original = faces_system("original", "ceiling", readings_of(subjects, subjects.embeddings))
    from_true = faces_system(
        "diffusion from true embedding",
        "ceiling",
        readings_of(subjects, subjects.embeddings, 1),
        conditions=truth,
    )
    faces = [
        faces_system(
            f"diffusion from {system.name}",
            "system",
            readings_of(subjects, system.raw, 2),
            conditions=system.centred,
            from_true=from_true,
            seconds=system.seconds,
        )
        for system in heard
    ]
    floors = [
        faces_system(f"average face {number}", "floor", readings_of(subjects, floor.raw, 3))
        for number, floor in enumerate(embeddings[:3])
    ]
    return embeddings, [*floors, *faces, from_true], original


def with_more_traits(subjects: Subjects) -> Subjects:
    """As many traits as members of the synthetic cast have; each makes three groups."""
    rng = np.random.default_rng(0)
    more = rng.random((len(subjects), MORE_TRAITS))
    for traits, values in zip(subjects.traits, more, strict=True):
        traits |= {f"trait {number}": float(value) for number, value in enumerate(values)}
    return subjects


def measure(pairs: int, rounds: int) -> dict[str, float]:
    """Seconds of each part, and of all, for so many pairs of half as many speakers."""
    subjects = with_more_traits(make_subjects(max(2, pairs // 2), 2))
    labels = labels_of(subjects)
    embeddings, faces, original = make_systems(subjects)
    results = Results(about={"rounds": rounds, "seed": 0})
    bench = SimpleNamespace(subjects=subjects, original=original)
    probed = [embeddings[4], embeddings[-2], *faces[3:5]]
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "tables": lambda: run.measure(results, bench, labels, embeddings, faces),
            "probes": lambda: controls.probe_traits(results, subjects, labels, probed, rounds, 0),
            "charts": lambda: results.charts.update(
                chart_data(subjects, labels, [*embeddings, *faces], original)
            ),
            "report": lambda: (results.save(Path(folder)), write_report(Path(folder), results)),
        }
        seconds = {}
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            seconds[name] = time.perf_counter() - start
    return seconds | {"all": sum(seconds.values()), "records": len(results.records)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time all tables from given embeddings.")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1000, help="resamples of the speakers")
    options = parser.parse_args(arguments)
    figures = measure(options.pairs, options.rounds)
    print(f"{options.pairs} pairs, {figures.pop('records'):.0f} records")
    for name, seconds in figures.items():
        print(f"{name:8} {seconds:6.1f} s")


if __name__ == "__main__":
    main()
