"""Controls that would catch a cheat: shuffled voices, and what a voice should and should not tell.

The traits of the synthetic cast fall into three kinds (`dataset_scripts/synthetic_cast/laws.py`
draws them so; a test holds these lists against it): independent of the voice; independent of it
given gender and age; and under a law. A probe, fitted on some speakers and asked about others,
looks for each of them in the predicted embeddings and in the generated faces. What is independent
must stay at chance, however good the probe; the same probe on the true embedding shows that it
could have found it.

Several members speak with one base voice. A probe that knows the base voice would know those
members' traits as well as chance made them alike; so probes are fitted and resampled by base voice.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from training.evaluation.results import Results
from training.evaluation.subjects import Subjects
from training.evaluation.systems import System
from training.evaluation.tables import Labels
from training.measures import probes
from training.measures.resampling import Figure, SpeakerBootstrap

INDEPENDENT = ("ancestry", "skin_tone", "skin_hue", "eye_colour", "hair_colour")
INDEPENDENT_GIVEN_GENDER_AND_AGE = (
    "hair_cut",
    "hair_grey",
    "hair_recession",
    "beard",
    "brow_thickness",
    "make_up",
    "weight",
    "muscle",
    "masculinity",
)
NOSE_SHAPE = ("nose width", "nose length", "nose hump", "nose tip", "nose depth", "nose tip width")
UNDER_A_LAW = ("gender", "age", "lower_face")
NOT_PROBED = ("shape", "seed")  # of the shape, the nose is; the seed is of freckles and strands
VOICE_PARAMETERS = ("pitch_hz", "formant_ratio", "rate_ratio", "breathiness")
SHOULD_NOT, SHOULD = "what_the_voice_should_not_tell", "what_it_should"


def shuffled(system: System, speakers: np.ndarray, labels: np.ndarray | None, seed: int) -> System:
    """The same answers, each given to another speaker: what knows nothing must score chance.

    Args:
        system: embeddings.
        speakers: (N,).
        labels: (N,) within which answers change hands, for example genders; None for anybody.
        seed: of the shuffling.
    """
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
    return System(
        f"{system.name}, shuffled" + (" within the gender" if len(np.unique(labels)) > 1 else ""),
        "control",
        system.kind,
        system.raw[source],
        system.centred[source],
        family=system.family,
    )


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
    voices = np.asarray([p["voice_id"] for p in subjects.voice_parameters])
    bootstrap = SpeakerBootstrap(voices, rounds, seed)
    given = np.stack([labels.genders == "male", labels.ages], axis=1).astype(float)  # (N, 2)
    male = given[:, :1]

    def probe(system: System, table: str, trait: str, values: np.ndarray, **options: Any) -> None:
        figures = _probe(values)(bootstrap, system.centred, values, voices, **options)
        where = {"table": table, "kind": system.kind, "system": system.name, "role": system.role}
        results.add({f"{trait}: {name}": f for name, f in figures.items()}, **where)

    for system in systems:
        for trait in INDEPENDENT:
            probe(system, SHOULD_NOT, _spoken(trait), trait_values(subjects, trait))
        for trait in INDEPENDENT_GIVEN_GENDER_AND_AGE:
            values = trait_values(subjects, trait)
            kept = labels.genders == "male" if trait == "beard" else None  # women have none
            probe(system, SHOULD_NOT, _spoken(trait), values, within=given, kept=kept)
        for index, name in enumerate(NOSE_SHAPE):
            values = np.asarray([traits["shape"][index] for traits in subjects.traits])
            probe(system, SHOULD_NOT, name, values, within=given)
    parameters = voice_parameters(subjects)
    law = System("true voice parameters", "ceiling", "embeddings", parameters, parameters)
    for system in [*systems, law]:
        probe(system, SHOULD, "gender", trait_values(subjects, "gender"))
        probe(system, SHOULD, "age", trait_values(subjects, "age"))
        probe(system, SHOULD, "age given gender", trait_values(subjects, "age"), within=male)
        probe(system, SHOULD, "lower face", trait_values(subjects, "lower_face"))


def trait_values(subjects: Subjects, trait: str) -> np.ndarray:
    """A trait of every pair's speaker, (N,): numbers, or names; of ancestry the largest share."""
    values = [traits[trait] for traits in subjects.traits]
    if trait == "ancestry":
        return np.asarray(["african", "asian", "caucasian"])[np.argmax(values, axis=1)]
    return np.asarray(values)


def voice_parameters(subjects: Subjects) -> np.ndarray:
    """What each voice was made with, (N, 10): the four parameters by gender, and the gender.

    Pitch falls with women's age, and with men's falls and rises: a straight line through the
    parameters and through their squares, for each gender, can follow the laws.
    """
    rows = np.asarray([[p[name] for name in VOICE_PARAMETERS] for p in subjects.voice_parameters])
    rows[:, :2] = np.log(rows[:, :2])
    male = np.asarray([traits["gender"] == "male" for traits in subjects.traits], float)
    for gender in (0.0, 1.0):
        rows[male == gender] -= rows[male == gender].mean(0)
        rows[male == gender] /= rows[male == gender].std(0).clip(1e-9)
    squares = rows[:, :1] ** 2
    signed = 2 * male[:, None] - 1
    return np.hstack([rows, rows * signed, squares, signed])


def _probe(values: np.ndarray) -> Callable[..., dict[str, Figure]]:
    return probes.probe_number if values.dtype.kind == "f" else probes.probe_class


def _spoken(trait: str) -> str:
    return trait.replace("_", " ")
