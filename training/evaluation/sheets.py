"""Pictures for a report: faces beside their originals, best, median, worst and random alike.

Only of people who cannot mind, unless it is asked for: see `training.evaluation.run`.
"""

import numpy as np

from training.evaluation.report import Case, Pictures
from training.evaluation.systems import System
from training.evaluation.tables import GENDERS, Labels
from training.evaluation.workbench import Checkpoint, Workbench
from training.measures.similarity import unit

CASES = 4  # of each kind
AVERAGES = 2  # voices of each gender
FACES_IN_AN_AVERAGE = 8


def pictures_of(
    bench: Workbench, labels: Labels, checkpoints: list[Checkpoint], faces: list[System]
) -> Pictures | None:
    """The sheet of cases of the longest speech, and averages of a few voices.

    Args:
        bench: with the images of all systems.
        labels: of the pairs.
        checkpoints: the first one's averages are shown.
        faces: everybody's faces; the cases are chosen by the first system that heard the most.

    Returns:
        The pictures, or None where nothing made faces.
    """
    heard = [system for system in faces if system.role == "system"]
    longest = max((system.seconds or 0 for system in heard), default=0)
    heard = [system for system in heard if system.seconds in (longest, None)]
    if not heard:
        return None
    averages = _averages(bench, labels, checkpoints[0]) if checkpoints else []
    return Pictures(cases=_cases(bench, heard), averages=averages)


def _cases(bench: Workbench, heard: list[System]) -> list[Case]:
    """One pair a speaker: those whose face from voice is most and least like the original, ..."""
    subjects = bench.subjects
    truth = unit(subjects.embeddings - subjects.centre)
    alike = (unit(heard[0].centred) * truth).sum(1)  # (N,)
    first = np.unique(subjects.speakers, return_index=True)[1]
    order = first[np.argsort(-alike[first], kind="stable")]
    middle = max(0, len(order) // 2 - CASES // 2)
    rows = {
        "best": order[:CASES],
        "median": order[middle : middle + CASES],
        "worst": order[-CASES:],
        "random": np.random.default_rng(bench.seed).permutation(first)[:CASES],
    }

    def case(title: str, row: int) -> Case:
        return Case(
            title=title,
            original=np.asarray(subjects.faces[row]),
            from_face={
                _maker(system): np.asarray(bench.images[system.from_true.name][row])
                for system in heard
                if system.from_true is not None
            },
            from_voice={
                _maker(system): np.asarray(bench.images[system.name][row]) for system in heard
            },
            similarity=float(alike[row]),
        )

    return [case(title, row) for title, chosen in rows.items() for row in chosen]


def _maker(system: System) -> str:
    """What made a system's faces: "diffusion", of several checkpoints "demo: diffusion"."""
    return ": ".join(filter(None, (system.family, system.decoder)))


def _averages(
    bench: Workbench, labels: Labels, checkpoint: Checkpoint
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """A title, the average of several faces of a voice, and where they agree, for a few voices."""
    from training.data import SAMPLING_RATE
    from training.evaluation.generation import seeds_of

    subjects = bench.subjects
    first = np.unique(subjects.speakers, return_index=True)[1]
    genders = labels.genders[first]
    chosen = [row for gender in GENDERS for row in first[genders == gender][:AVERAGES]]
    names = [subjects.pair_ids[row] for row in chosen]
    averages = []
    for row, seed in zip(chosen, seeds_of(bench.seed, names, "average"), strict=True):
        output = _imagine(checkpoint.pipeline, subjects.speech(row), SAMPLING_RATE, int(seed))
        if output is not None:
            title = f"a {labels.genders[row]} voice"
            averages.append((title, np.asarray(output.average_face), np.asarray(output.certainty)))
    return averages


def _imagine(pipeline, speech: np.ndarray, sampling_rate: int, seed: int):
    import torch

    from modeling_speech2face import NoSpeechError

    try:
        return pipeline(
            speech,
            sampling_rate=sampling_rate,
            num_images_per_prompt=FACES_IN_AN_AVERAGE,
            generator=torch.Generator().manual_seed(seed),
        )
    except NoSpeechError:
        return None
