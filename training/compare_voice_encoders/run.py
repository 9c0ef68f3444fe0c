"""One comparison from beginning to end: the people, every row's answers, the tables."""

import argparse
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dataset_scripts.faces import FaceRecogniser, get_recogniser
from training.compare_voice_encoders import report
from training.compare_voice_encoders.answers import (
    Answer,
    Measurer,
    average_of,
    decoded,
    published,
)
from training.compare_voice_encoders.baselines import oracle, ridge
from training.compare_voice_encoders.encoders import Encoder, predict
from training.compare_voice_encoders.experiment import Experiment, load_experiment
from training.compare_voice_encoders.people import Fold, families_of, folds_of, pairs_of
from training.data import Pairs
from training.evaluation.generation import decoders_of, load_checkpoint
from training.evaluation.instruments import Judge
from training.evaluation.run import labels_of
from training.evaluation.store import Store, key_of
from training.evaluation.subjects import Subjects, load_subjects
from training.evaluation.tables import Labels
from training.evaluation.workbench import Workbench
from training.measures.resampling import SpeakerBootstrap
from training.voice_teacher import voice_embeddings


def compare(options: argparse.Namespace) -> None:
    """Runs the whole comparison and writes its report.

    Raises:
        FileNotFoundError: if a data set, checkpoint, configuration or folder is not there.
        ValueError: if they do not belong together.
        Stopped: if a training was stopped.
    """
    # 1. What is compared, and on whom
    given = {"folds": options.folds, "seeds": options.seeds}
    given = {name: value for name, value in given.items() if value is not None}
    experiment, encoders = load_experiment(options.config, **given)
    trainings = [encoder.name for encoder in encoders]
    _check_names("--only", options.only, trainings)
    decodable = [*experiment.ridge, *experiment.encoders, *experiment.averages]
    _check_names("--decode", options.decode, decodable)
    cache = Path(options.cache)
    subjects = load_subjects(options.dataset, options.split, cache)
    recogniser = get_recogniser(subjects.teacher)
    labels = labels_of(Workbench(subjects, recogniser, Judge(), cache, experiment.seconds, 0))
    families = families_of(subjects)
    folds = folds_of(families, experiment.folds)
    pairs = pairs_of(subjects, families, labels, cache)
    subjects = dataclasses.replace(subjects, speakers=families)
    bootstrap = SpeakerBootstrap(families, options.rounds)
    measurer = Measurer(subjects, labels, bootstrap)

    # 2. Every row's answers, from people who were not trained on
    answers = [
        *floors(subjects, labels, folds),
        *regressions(experiment, pairs, folds, Store(cache / "evaluation")),
        *trained(experiment, encoders, pairs, folds, options),
    ]
    by_name = {answer.name: answer for answer in answers}
    answers += averages(experiment, by_name)
    faces = as_faces(options, answers, measurer, recogniser, cache)

    # 3. Tables
    about = {
        "command": "python -m training.compare_voice_encoders " + " ".join(options.arguments),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": subjects.name,
        "pairs": len(subjects),
        "families": int(families.max()) + 1,
        "folds": experiment.folds,
        "rounds": options.rounds,
        "teacher": subjects.teacher,
        "gender_source": labels.gender_source,
        "age_source": labels.age_source,
        "reference": next(iter(experiment.ridge)),
    }
    results = report.results_of(about, measurer, answers, faces)
    report.write(Path(options.output), results)


def _check_names(option: str, given: Sequence[str] | None, known: Sequence[str]) -> None:
    if unknown := sorted(set(given or ()) - set(known)):
        choices = ", ".join(map(repr, known))
        raise ValueError(f"{option} {unknown[0]!r} is no row of it: choose among {choices}")


def floors(subjects: Subjects, labels: Labels, folds: Sequence[Fold]) -> list[Answer]:
    """The oracles, which are told what no encoder is."""
    nothing = np.full(len(subjects), "")
    told = {
        "gender oracle": (labels.genders, nothing),
        "gender-and-age oracle": (labels.genders, labels.age_groups),
    }
    return [
        Answer(name, "floor", [oracle(subjects, *known, folds)]) for name, known in told.items()
    ]


def regressions(
    experiment: Experiment, pairs: Pairs, folds: Sequence[Fold], store: Store
) -> list[Answer]:
    """The ridge rows, which are kept."""
    given = pairs.embeddings, pairs.speakers, pairs.genders, folds
    found = []
    for name in experiment.ridge:
        voices = [voice_embeddings(pairs, teacher) for teacher in experiment.teachers(name)]

        def make(start: int, stop: int, voices: list = voices) -> dict[str, np.ndarray]:
            predicted, chosen = ridge(voices, *given)
            penalties = np.zeros(len(pairs))
            for (_, held_out), penalty in zip(folds, chosen, strict=True):
                penalties[held_out] = penalty
            return {"predicted": predicted, "penalties": penalties}

        key = key_of(name, *voices, *given[:2], given[2].tolist(), [f.tolist() for _, f in folds])
        rows = store.rows(key, len(pairs), make, len(pairs))
        chosen = [float(rows["penalties"][held_out[0]]) for _, held_out in folds]
        note = "penalties " + ", ".join(f"{penalty:.3g}" for penalty in chosen)
        found.append(Answer(name, "system", [np.asarray(rows["predicted"])], note))
    return found


def trained(
    experiment: Experiment,
    encoders: Sequence[Encoder],
    pairs: Pairs,
    folds: Sequence[Fold],
    options: argparse.Namespace,
) -> list[Answer]:
    """The rows of trained encoders, at every length of speech; those alone that have been run."""
    found = []
    for encoder in encoders:
        may_train = options.only is None or encoder.name in options.only
        longest = experiment.seconds[-1]
        seconds = [longest] if encoder.ablated else experiment.seconds[::-1]
        heard = predict(encoder, pairs, folds, seconds, Path(options.output), may_train)
        for each in seconds if heard[longest] else ():
            name, ablated = encoder.name, encoder.ablated
            if each != longest:
                name, ablated = f"{name}, hears {each:g} s", name
            run = sum(bool(heard[each][0][held_out].any()) for _, held_out in folds)
            note = f"{run} of {len(folds)} folds, seeds {len(heard[each])}"
            found.append(Answer(name, "system", heard[each], note, ablated))
    return found


def averages(experiment: Experiment, by_name: dict[str, Answer]) -> list[Answer]:
    """The rows that average others, where all of these have been run."""
    return [
        average_of(name, [by_name[part] for part in parts])
        for name, parts in experiment.averages.items()
        if all(part in by_name for part in parts)
    ]


def as_faces(
    options: argparse.Namespace,
    answers: Sequence[Answer],
    measurer: Measurer,
    recogniser: FaceRecogniser,
    cache: Path,
) -> list[Answer]:
    """Rows of faces, of the published ones first: each against the real faces, and against its own.

    Its own are those that the same system makes of the real faces.
    """
    subjects, made = measurer.subjects, []
    if options.faces:
        folders = options.faces, options.true_faces
        theirs = [published(folder, subjects, recogniser, cache) for folder in folders]
        made.append((Path(options.faces).name, *theirs))
    wanted = [
        answer
        for answer in answers
        if answer.role == "system"
        and not answer.ablated
        and answer.asked.all()
        and (options.decode is None or answer.name in options.decode)
    ]
    if wanted:
        made += own_faces(options.checkpoint, wanted, subjects, recogniser, cache)
    found = []
    for name, from_voice, from_face in made:
        found.append(Answer(name, "system", [from_voice]))
        found.append(Answer(name, "system", [from_voice], faces=from_face))
    return found


def own_faces(
    checkpoint: str,
    answers: Sequence[Answer],
    subjects: Subjects,
    recogniser: FaceRecogniser,
    cache: Path,
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Each row's name, and centred embeddings (N, D) of its faces and of those of the real faces.

    Raises:
        ValueError: if the checkpoint has no decoder that does not draw.
    """
    pipeline, _ = load_checkpoint(checkpoint)
    decoder = decoders_of(pipeline).get("normalized")
    if decoder is None:
        raise ValueError(f"{checkpoint} has no normalized decoder: name one that has")
    mean = pipeline.voice_encoder.face_embedding_mean.float().numpy()
    tools = mean, decoder, recogniser, Store(cache / "evaluation")
    own = decoded(subjects.embeddings - subjects.centre, *tools, "compared true faces")
    return [
        (answer.name, decoded(answer.mean, *tools, f"compared {answer.name}"), own)
        for answer in answers
    ]
