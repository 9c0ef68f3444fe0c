"""Fits the probes that read a face's traits from its embedding: what a voice tells, in words.

`python -m training.fit_face_traits DATASET --output FOLDER`

Each is a ridge or a logistic regression on the faces of the training split, whose strength is found
by cross-validation between persons, and is asked about the faces of the validation split's people.
One that does not read its trait from them is left out. The folder is a component for
`python -m training.assemble_checkpoint ... --face-traits FOLDER`.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LEAST_AUC = 0.8  # of a yes or no, on held-out people
LEAST_R = 0.5  # of a number, within a gender: a quarter of its variance there
LEAST_OF_A_KIND = 20  # faces of either answer, in either split: fewer are one or two persons
FOLDS = 5
STRENGTHS = np.logspace(-3, 3, 13)  # of a penalty on weights for values of norm 0.5

# How far a hair cut falls, from the shaved head to the shoulders.
HAIR_LENGTHS = {
    "shaved": 0.0,
    "buzz": 0.1,
    "short": 0.3,
    "side_parted": 0.4,
    "curly": 0.5,
    "tied_back": 0.5,
    "bob": 0.8,
    "long": 1.0,
}
HAIR_DARKNESS = {"blond": 0.0, "auburn": 0.4, "brown": 0.5, "dark_brown": 0.75, "black": 1.0}

# A trait's value in a member's traits, None where they do not state it; see `FaceTraitProbe`.
READERS: dict[str, Callable[[dict], Any]] = {
    "fullness": lambda traits: traits.get("weight"),
    "lower_face": lambda traits: traits.get("lower_face"),
    "hair_length": lambda traits: HAIR_LENGTHS.get(traits.get("hair_cut")),
    "hair_darkness": lambda traits: HAIR_DARKNESS.get(traits.get("hair_colour")),
    "hair_grey": lambda traits: traits.get("hair_grey"),
    "beard": lambda traits: _differs(traits.get("beard"), "none"),
    "make_up": lambda traits: _above(traits.get("make_up"), 0.4),
    "glasses": lambda traits: _differs(traits.get("glasses"), "none"),
    "skin_tone": lambda traits: traits.get("skin_tone"),
    "eye_colour": lambda traits: _differs(traits.get("eye_colour"), "brown"),
}


@dataclass
class Faces:
    """The faces of one split.

    Attributes:
        embeddings: (N, D) centred by the training split's mean.
        speakers: (N,) whose faces they are.
        genders: (N,) "female", "male" or "".
        values: of every trait that is stated of anybody, (N,) numbers, NaN where it is not.
    """

    embeddings: np.ndarray
    speakers: np.ndarray
    genders: np.ndarray
    values: dict[str, np.ndarray]


@dataclass
class Probe:
    """A fitted line; `score` is its AUC or r, `mean` and `deviation` those of its readings."""

    weights: np.ndarray
    intercept: float
    score: float
    mean: float
    deviation: float


def fit_face_traits(dataset: str, output: str | Path, cache: str = ".cache/training") -> Any:
    """Fits a probe for each trait that a data set states, and writes those that work.

    Args:
        dataset: folder with Parquet files, or a name on the Hub.
        output: folder of the component.
        cache: folder for what `datasets` keeps.

    Returns:
        The `FaceTraitProbe`.

    Raises:
        FileNotFoundError: if the data set lacks a split.
        ValueError: if it names no teacher, or no trait can be read.
    """
    import torch

    from modeling_speech2face import FaceTraitProbe
    from training.data import teacher_of

    teacher = teacher_of(dataset)
    train = read_faces(dataset, "train", cache)
    held_out = read_faces(dataset, "validation", cache)
    mean = train.embeddings.mean(0)
    train.embeddings -= mean
    held_out.embeddings -= mean
    kept = {}
    for name, trait in FaceTraitProbe.known_traits.items():
        probe = fit(train, held_out, name, trait.is_binary, trait.among)
        if probe is None:
            continue
        works = probe.score >= (LEAST_AUC if trait.is_binary else LEAST_R)
        measure = "AUC" if trait.is_binary else "r"
        print(f"{trait.noun:24} {measure:3} {probe.score:.2f}  {'' if works else 'left out'}")
        if works:
            kept[name] = probe
    if not kept:
        raise ValueError(f"no trait can be read from the faces of {dataset}: nothing is written")
    component = FaceTraitProbe(
        face_embedding_size=len(mean),
        face_recogniser=teacher,
        names=list(kept),
        held_out=[round(probe.score, 4) for probe in kept.values()],
        held_out_people=len(np.unique(held_out.speakers)),
    )
    for field in ("weights", "intercept", "mean", "deviation"):
        values = np.stack([getattr(probe, field) for probe in kept.values()])
        getattr(component, field if field == "weights" else f"{field}s").copy_(
            torch.from_numpy(values)
        )
    component.save_pretrained(output)
    return component


def read_faces(dataset: str, split: str, cache: str) -> Faces:
    """The faces' embeddings of a split and what is stated of them; no picture is decoded."""
    from training.data import column_of, open_split

    table = open_split(dataset, split, cache)
    traits = column_of(table, "traits", {})
    genders = np.asarray(column_of(table, "gender", ""))
    values = {name: [reader(of) for of in traits] for name, reader in READERS.items()}
    values["gender"] = [{"female": 0, "male": 1}.get(gender) for gender in genders]
    values["age"] = column_of(table, "age", None)
    return Faces(
        embeddings=np.asarray(table["face_embedding"], np.float64),
        speakers=np.asarray(table["speaker_id"]),
        genders=genders,
        values={name: np.asarray(them, float) for name, them in values.items()},
    )


def fit(
    train: Faces, held_out: Faces, name: str, is_binary: bool, among: str | None
) -> Probe | None:
    """Fits one trait's probe on some people and asks it about others.

    Args:
        train: whom it is fitted on.
        held_out: whom it is asked about.
        name: of the trait.
        is_binary: whether it is a yes or no.
        among: the gender that is looked at alone, if any.

    Returns:
        The probe, or None where too little is stated, or always the same.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GridSearchCV, GroupKFold

    def known(of: Faces) -> tuple[np.ndarray, np.ndarray]:
        rows = np.isfinite(of.values[name]) & (True if among is None else of.genders == among)
        return np.flatnonzero(rows), of.values[name][rows]

    (rows, target), (asked, truth) = known(train), known(held_out)
    for values in (target, truth):
        kinds = (values > 0.5, values <= 0.5) if is_binary else (values != values[:1],)
        if min(map(np.count_nonzero, kinds)) < LEAST_OF_A_KIND:
            return None
    if is_binary:
        line, strengths, loss = LogisticRegression(max_iter=2000), {"C": 1 / STRENGTHS}, "log_loss"
    else:
        line, strengths, loss = Ridge(), {"alpha": STRENGTHS}, "mean_squared_error"
    search = GridSearchCV(line, strengths, scoring=f"neg_{loss}", cv=GroupKFold(FOLDS))
    search.fit(train.embeddings[rows], target, groups=train.speakers[rows])
    weights = search.best_estimator_.coef_.reshape(-1)
    intercept = float(np.squeeze(search.best_estimator_.intercept_))
    # What follows from the gender alone shall not count as read, nor as what people differ by.
    # Draws of women's and men's voices have one covariance, so people's is of both genders, too.
    by_gender = np.zeros(len(held_out.genders)) if name == "gender" else held_out.genders
    readings = held_out.embeddings @ weights + intercept
    within = _within(readings, by_gender)
    if is_binary:
        score = roc_auc_score(truth, readings[asked])
    else:
        score = np.corrcoef(within[asked], _within(truth, by_gender[asked]))[0, 1]
    return Probe(weights, intercept, float(score), float(readings.mean()), float(within.std()))


def _within(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Values (N,) less the mean of their group."""
    _, index = np.unique(groups, return_inverse=True)
    return values - (np.bincount(index, values) / np.bincount(index))[index]


def _differs(value: Any, from_what: str) -> float | None:
    return None if value is None else float(value != from_what)


def _above(value: float | None, limit: float) -> float | None:
    return None if value is None else float(value > limit)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.fit_face_traits",
        description="Fit the probes that say what a voice tells of a face.",
    )
    parser.add_argument("dataset", help="folder of a data set, or its name on the Hub")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="of the component")
    parser.add_argument("--cache", default=".cache/training", help="for what is read")
    options = parser.parse_args(arguments)
    try:
        fit_face_traits(options.dataset, options.output, options.cache)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"{error}\n")
    print(options.output)


if __name__ == "__main__":
    main()
