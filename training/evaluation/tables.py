"""Every instrument applied to every system, for everybody and by group.

Letters: N pairs, D size of the embedding, K classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.evaluation.results import DIFFERENCES, WITH_TRUTH, Record, Results
from training.evaluation.subjects import Subjects
from training.evaluation.systems import System
from training.measures import (
    association,
    attributes,
    consistency,
    craniofacial,
    generated_faces,
    retrieval,
    similarity,
)
from training.measures.resampling import Figure, SpeakerBootstrap

GALLERY_SIZES = (100, 5000)
FEWEST_IN_A_GROUP = 5  # speakers; of fewer, a figure would be an anecdote
GENDERS = ("female", "male")

# What is measured by group, too; the rest is measured for everybody alone.
BY_GROUP = {
    "feature_similarity": ("angle_centred", "cosine_centred"),
    "retrieval": ("recall_at_1", "recall_at_10", "median_rank"),
    "association": ("matching_1_in_2", "auc", "matching_1_in_2_same_gender", "auc_same_gender"),
    "attribute_agreement": (
        "gender_accuracy",
        "gender_balanced_accuracy",
        "age_mae",
        "age_r",
        "age_group_accuracy",
    ),
    "craniofacial_correlation": ("mean_r",),
    WITH_TRUTH: ("mean_r",),
    "identity_kept": ("identity_cosine",),
}


@dataclass
class Labels:
    """Gender and age of each pair, and who says so.

    Attributes:
        genders: (N,) "female", "male" or "".
        ages: (N,) years, NaN where unknown.
        gender_source: "label" (the data set states it) or "judge" (read from the original face).
        age_source: the same for age.
    """

    genders: np.ndarray
    ages: np.ndarray
    gender_source: str
    age_source: str

    @property
    def age_groups(self) -> np.ndarray:
        return attributes.age_group(self.ages)

    def restrictions(self, gallery_rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What may be held equal between a voice and the faces that it is compared with.

        Args:
            gallery_rows: (M,) for each face of the gallery, a pair of that speaker.
        """
        ages = self.age_groups
        known = (self.genders != "") & (ages != "")
        both = np.where(known, np.char.add(np.char.add(self.genders, ", "), ages), "")
        labels = {
            "same_gender": self.genders,
            "same_age_group": ages,
            "same_gender_and_age_group": both,
        }
        return {name: (of, of[gallery_rows]) for name, of in labels.items()}


@dataclass
class Tables:
    """Collects figures; those of everybody keep their replicates, so that they can be subtracted.

    Attributes:
        results: where the records go.
        bootstrap: of the pairs.
        groups: by, group, and (N,) booleans: who is in it.
        figures: (table, kind, system, measure) to the figure of everybody.
    """

    results: Results
    bootstrap: SpeakerBootstrap
    groups: list[tuple[str, str, np.ndarray]] = field(default_factory=list)
    figures: dict[tuple[str, str, str, str], Figure] = field(default_factory=dict)

    def add(
        self,
        table: str,
        system: System,
        measure: Callable[..., dict[str, Figure]],
        *arguments: Any,
        **options: Any,
    ) -> None:
        """Measures a system for everybody and, but for controls, what `BY_GROUP` names by group.

        Args:
            table: its name.
            system: whose figures these are.
            measure: takes the bootstrap, `arguments`, `kept=` and `options`; returns figures.
        """
        where = {"table": table, "kind": system.kind, "system": system.name, "role": system.role}
        overall = measure(self.bootstrap, *arguments, kept=None, **options)
        self.results.add(overall, **where)
        for name, figure in overall.items():
            self.figures[table, system.kind, system.name, name] = figure
        wanted = [name for name in BY_GROUP.get(table, ()) if name in overall]
        if not wanted or system.role == "control":
            return
        for by, group, kept in self.groups:
            figures = measure(self.bootstrap, *arguments, kept=kept, **options)
            chosen = {name: figures[name] for name in wanted if name in figures}
            self.results.add(chosen, **where, by=by, group=group)

    def subtract(self, one: System, other: System) -> None:
        """Adds by how much one system lies above another, for each figure that both have."""
        for (table, kind, name, measure), figure in list(self.figures.items()):
            rival = self.figures.get((table, kind, other.name, measure))
            if (kind, name) != (one.kind, one.name) or rival is None:
                continue
            self.results.records.append(
                Record.of(
                    figure.minus(rival),
                    table=DIFFERENCES,
                    kind=kind,
                    system=one.name,
                    role=one.role,
                    measure=f"{table}: {measure}",
                    other=other.name,
                )
            )


def groups_of(subjects: Subjects, labels: Labels) -> Iterator[tuple[str, str, np.ndarray]]:
    """By what, which group, and who is in it; only groups of at least five speakers."""
    known = subjects.groups() | {"gender": labels.genders, "age group": labels.age_groups}
    for by, names in known.items():
        for group in np.unique(names[names != ""]).tolist():
            kept = names == group
            if len(np.unique(subjects.speakers[kept])) >= FEWEST_IN_A_GROUP:
                yield by, group, kept


def compare_embeddings(tables: Tables, subjects: Subjects, labels: Labels, system: System) -> None:
    """Feature similarity, retrieval and association of a system's embeddings, of either kind."""
    truth = subjects.embeddings
    for suffix, predicted, actual in (
        ("_centred", system.centred, truth - subjects.centre),
        ("_raw", system.raw, truth),
    ):
        tables.add(
            "feature_similarity",
            system,
            similarity.feature_similarity,
            predicted,
            actual,
            suffix=suffix,
        )
    gallery, speakers, _ = gallery_of(subjects)
    for score in ("cosine", "l1", "l2"):
        ranks = retrieval.ranks(system.centred, gallery, subjects.speakers, speakers, score)
        suffix = "" if score == "cosine" else f"_{score}"
        tables.add("retrieval", system, _retrieval, ranks, suffix)
    tables.add("association", system, _associate, compare_with_gallery(subjects, labels, system))


def compare_with_gallery(
    subjects: Subjects, labels: Labels, system: System
) -> association.Comparison:
    """Every answer of a system scored against every speaker's face."""
    gallery, speakers, rows = gallery_of(subjects)
    restrictions = labels.restrictions(rows)
    return association.compare(system.centred, gallery, subjects.speakers, speakers, restrictions)


def _associate(bootstrap, compared: association.Comparison, kept=None) -> dict[str, Figure]:
    """Association; in a group, only the restrictions that are measured by group."""
    restrictions = None if kept is None else ("", "same_gender")
    return association.associate(bootstrap, compared, kept, restrictions=restrictions)


def _retrieval(bootstrap, ranks, suffix: str, kept=None) -> dict[str, Figure]:
    """Retrieval; the suffix of the names says by which score, where it is not the cosine."""
    figures = retrieval.retrieval(bootstrap, ranks, GALLERY_SIZES, kept=kept)
    return {f"{name}{suffix}": figure for name, figure in figures.items()}


def gallery_of(subjects: Subjects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One face a speaker: the mean of their centred embeddings (M, D), who (M,), a pair of each."""
    faces, names = retrieval.speaker_gallery(
        subjects.embeddings - subjects.centre, subjects.speakers
    )
    return faces, names, np.unique(subjects.speakers, return_index=True)[1]


def judge_faces(
    tables: Tables, subjects: Subjects, labels: Labels, system: System, original: System
) -> None:
    """Gender and age that the judge reads from faces, and the measurements of their landmarks."""
    readings = system.readings
    for measure, *arguments in (
        (attributes.class_agreement, labels.genders, readings.genders, GENDERS, "gender"),
        (attributes.age_agreement, labels.ages, readings.ages),
    ):
        tables.add("attribute_agreement", system, measure, *arguments)
    measured = craniofacial.measure(readings.landmarks)
    for table, landmarks in _landmarks_beside(subjects, system, original):
        expected = craniofacial.measure(landmarks)
        tables.add(table, system, craniofacial.craniofacial_correlation, expected, measured)


def _landmarks_beside(
    subjects: Subjects, system: System, original: System
) -> Iterator[tuple[str, np.ndarray]]:
    """By table, the landmarks (N, 68, 2) that those of a system's faces are compared with."""
    if system is not original:
        yield "craniofacial_correlation", original.readings.landmarks
    if system.from_true is not None:
        yield "craniofacial_correlation_from_true", system.from_true.readings.landmarks
    if subjects.true_landmarks is not None:
        yield WITH_TRUTH, subjects.true_landmarks


def judge_decoding(tables: Tables, subjects: Subjects, system: System) -> None:
    """Whether faces are of the embedding that was asked for, and distributed as real ones."""
    if system.conditions is not None:
        tables.add(
            "identity_kept",
            system,
            generated_faces.identity_kept,
            system.centred,
            system.conditions,
        )
    measure = generated_faces.kernel_distance
    tables.add("kernel_distance", system, measure, system.raw, subjects.embeddings)


def judge_consistency(
    tables: Tables, subjects: Subjects, labels: Labels, system: System, recordings: np.ndarray
) -> None:
    """How alike the predictions from several recordings of one speaker are.

    Args:
        tables: where the figures go.
        subjects: the pairs.
        labels: for the figures among one gender.
        system: embeddings.
        recordings: (N,) which recording each pair has; one that serves several pairs counts once.
    """
    _, rows = np.unique(recordings, return_index=True)
    speakers, genders = subjects.speakers[rows], labels.genders[rows]
    if len(np.unique(speakers)) == len(speakers):
        return
    of = tables.bootstrap
    families = of.families[of.index][rows]
    bootstrap = SpeakerBootstrap(speakers, of.rounds, of.seed, families)
    figures = consistency.consistency(bootstrap, system.centred[rows], speakers, genders)
    where = {"kind": system.kind, "system": system.name, "role": system.role}
    tables.results.add(figures, table="consistency", **where)
