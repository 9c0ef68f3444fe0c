"""Controls that would catch a cheat: shuffled voices, and what a voice should and should not tell.

The traits of the synthetic cast fall into three kinds (`dataset_scripts/synthetic_cast/laws.py`
draws them so; a test holds these lists against it): independent of the voice; independent of it
given gender and age; and under a law. A probe, fitted on some speakers and asked about others,
looks for each of them in the predicted embeddings and in the generated faces. What is independent
must stay at chance, however good the probe; the same probe on the true embedding shows that it
could have found it.

The same probes tell what the laws allow at all: how well the measurements of a true face follow
from the true parameters of its voice, which is all that a voice and a face have in common.

Several members speak with one base voice. A probe that knows the base voice would know those
members' traits as well as chance made them alike; so probes are fitted and resampled by base voice.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from training.evaluation.results import (
    LAW_FROM_GENDER,
    LAW_FROM_GENDER_AND_AGE,
    LAW_FROM_VOICE,
    SHOULD,
    SHOULD_NOT,
    WITH_TRUTH,
    Results,
)
from training.evaluation.subjects import ANCESTRIES, People, Subjects
from training.evaluation.systems import System
from training.evaluation.tables import Labels
from training.measures import craniofacial, probes
from training.measures.resampling import SpeakerBootstrap

INDEPENDENT = ("ancestry", "skin_tone", "skin_hue", "eye_colour", "hair_colour")
INDEPENDENT_GIVEN_GENDER_AND_AGE = (
    "hair_cut",
    "hair_grey",
    "hair_recession",
    "beard",
    "brow_thickness",
    "make_up",
    "glasses",
    "weight",
    "muscle",
    "masculinity",
)
NOSE_SHAPE = (
    "nose_width",
    "nose_length",
    "nose_hump",
    "nose_tip",
    "nose_depth",
    "nose_tip_width",
)
UNDER_A_LAW = ("gender", "age", "lower_face")
NOT_PROBED = ("shape", "seed")  # of the shape, the nose is; the seed is of freckles and strands
VOICE_PARAMETERS = ("pitch_hz", "formant_ratio", "rate_ratio", "breathiness")


def shuffled(system: System, speakers: np.ndarray, labels: np.ndarray | None, seed: int) -> System:
    """The same answers, each given to another speaker: what knows nothing must score chance.

    Who is alone with a label has nobody to exchange with, and is given the mean face.

    Args:
        system: embeddings.
        speakers: (N,).
        labels: (N,) within which answers change hands, for example genders; None for anybody.
        seed: of the shuffling.
    """
    title = f"{system.name}, shuffled" + (" within the gender" if labels is not None else "")
    source = np.arange(len(speakers))
    labels = np.full(len(speakers), "") if labels is None else labels
    rng = np.random.default_rng([seed, 7])
    for label in np.unique(labels):
        names = rng.permutation(np.unique(speakers[labels == label]))
        successor = dict(zip(names, np.roll(names, 1), strict=True))
        rows = {name: np.flatnonzero((speakers == name) & (labels == label)) for name in names}
        for name in names:
            theirs = rows[successor[name]]
            source[rows[name]] = np.resize(rng.permutation(theirs), len(rows[name]))
    alone = speakers[source] == speakers
    centred = np.where(alone[:, None], 0, system.centred[source])
    raw = system.raw[source] - system.centred[source] + centred
    return System(title, "control", system.kind, raw, centred, system.family)


def probe_traits(
    results: Results,
    subjects: Subjects,
    labels: Labels,
    systems: list[System],
    rounds: int,
    seed: int,
) -> None:
    """Adds the tables "what the voice should not tell" and "what it should".

    Args:
        results: where the records go.
        subjects: pairs of the cast.
        labels: gender and age, which some traits are independent given.
        systems: whose embeddings are probed.
        rounds: resamples.
        seed: of the folds and the resamples.
    """
    voices = base_voices(subjects)
    bootstrap = SpeakerBootstrap(voices, rounds, seed)
    given = [labels.genders, labels.ages]

    def probe(system: System, table: str, trait: str, values: Any, **options: Any) -> None:
        if values is None:
            return
        is_number = values.dtype.kind == "f"
        measure = probes.probe_number if is_number else probes.probe_class
        people = (values, subjects.speakers)
        figures = measure(bootstrap, system.centred, *people, families=voices, **options)
        name = "r" if is_number else "balanced_accuracy"
        figure = figures[name]
        if figure.chance is not None and "above_covariates" in figures and not is_number:
            # What is tested is how far it lies above its chance; shown as where it lies.
            above = figures["above_covariates"].replicates
            figure = replace(figure, replicates=figure.chance + above)
        where = {"table": table, "kind": system.kind, "system": system.name, "role": system.role}
        results.add({f"{trait}_{name}": figure}, **where)

    for system in systems:
        for trait in INDEPENDENT:
            probe(system, SHOULD_NOT, trait, trait_values(subjects, trait))
        for trait in INDEPENDENT_GIVEN_GENDER_AND_AGE:
            values = trait_values(subjects, trait)
            kept = labels.genders == "male" if trait == "beard" else None  # women have none
            probe(system, SHOULD_NOT, trait, values, within=given, kept=kept)
        shape = trait_values(subjects, "shape")
        for index, name in enumerate(() if shape is None else NOSE_SHAPE):
            probe(system, SHOULD_NOT, name, shape[:, index], within=given)
    parameters = voice_parameters(subjects, labels.genders == "male")
    laws = [System("true voice parameters", "ceiling", "embeddings", p, p) for p in parameters]
    for system in [*systems, *laws]:
        probe(system, SHOULD, "gender", trait_values(subjects, "gender"))
        probe(system, SHOULD, "age", trait_values(subjects, "age"))
        probe(system, SHOULD, "age_given_gender", trait_values(subjects, "age"), within=given[:1])
        probe(system, SHOULD, "lower_face", trait_values(subjects, "lower_face"))


def probe_measurements(results: Results, people: People, rounds: int, seed: int) -> None:
    """Adds to the table of the true faces what the laws allow: from gender, age, and the voice.

    Args:
        results: where the records go.
        people: as many as are known: a probe that few people teach finds less than there is.
        rounds: resamples.
        seed: of the folds and the resamples.
    """
    measured, voices = craniofacial.measure(people.landmarks), base_voices(people)
    bootstrap = SpeakerBootstrap(voices, rounds, seed)
    male = people.genders == "male"
    told = [(LAW_FROM_GENDER, "floor", _sign(male))]
    if np.isfinite(people.ages).all():
        told.append((LAW_FROM_GENDER_AND_AGE, "floor", _gender_and_age(male, people.ages)))
    told += [(LAW_FROM_VOICE, "ceiling", known) for known in voice_parameters(people, male)]
    for system, role, features in told:
        figures = craniofacial.predictable(bootstrap, features, measured, people.speakers, voices)
        # Voices are drawn, but the table counts persons, as for the faces beside it.
        count = len(people.speakers)
        figures = {name: replace(figure, speakers=count) for name, figure in figures.items()}
        results.add(figures, table=WITH_TRUTH, kind="faces", system=system, role=role)


def _sign(male: np.ndarray) -> np.ndarray:
    """(N, 1): 1 for men, -1 for women."""
    return np.where(male, 1.0, -1.0)[:, None]


def _gender_and_age(male: np.ndarray, ages: np.ndarray) -> np.ndarray:
    """(N, 5): gender, age and its square, and these apart by gender."""
    standard = (ages - ages.mean()) / ages.std().clip(1e-9)
    numbers = np.stack([standard, standard**2], axis=1)
    return np.hstack([numbers, numbers * _sign(male), _sign(male)])


def base_voices(subjects: Subjects | People) -> np.ndarray:
    """(N,) whose voice each member speaks with; the member's own where that is not stated."""
    stated = [parameters.get("voice_id") for parameters in subjects.voice_parameters]
    pairs = zip(stated, subjects.speakers.tolist(), strict=True)
    return np.asarray([voice or speaker for voice, speaker in pairs])


def trait_values(subjects: Subjects, trait: str) -> np.ndarray | None:
    """A trait of every pair's speaker: numbers or names (N,), of ancestry the largest share's name.

    NaN or "" where the data set does not state it of one; None where it states it of nobody.
    """
    values = [traits.get(trait) for traits in subjects.traits]
    stated = [value for value in values if value is not None]
    if not stated:
        return None
    if trait == "ancestry":
        values = [None if value is None else ANCESTRIES[np.argmax(value)] for value in values]
        stated = list(ANCESTRIES)
    is_name = isinstance(stated[0], str)
    unknown = "" if is_name else np.full(np.shape(stated[0]), np.nan)
    values = [unknown if value is None else value for value in values]
    return np.asarray(values, None if is_name else float)


def voice_parameters(subjects: Subjects | People, male: np.ndarray) -> list[np.ndarray]:
    """What each voice was made with, for a straight line through it to follow the laws.

    Pitch falls with women's age; with men's it falls and rises. So the parameters, in units of
    their spread within the gender, enter as they are and apart by gender, and pitch squared.

    Args:
        subjects: pairs of the cast, or its people.
        male: (N,) booleans.

    Returns:
        One array (N, 10); none where the data set does not state all four parameters.
    """
    stated = [[p.get(name) for name in VOICE_PARAMETERS] for p in subjects.voice_parameters]
    if any(value is None for row in stated for value in row):
        return []
    rows = np.log(np.asarray(stated, float).clip(1e-2))
    for gender in (male, ~male):
        if gender.any():
            rows[gender] -= rows[gender].mean(0)
            rows[gender] /= rows[gender].std(0).clip(1e-9)
    sign = _sign(male)
    return [np.hstack([rows, rows * sign, rows[:, :1] ** 2, sign])]
