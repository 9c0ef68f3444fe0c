"""What the charts of a report are drawn from: curves, histograms and points, JSON-able.

Letters: N pairs, V speakers.
"""

from typing import Any

import numpy as np

from training.evaluation.subjects import Subjects
from training.evaluation.systems import System
from training.evaluation.tables import GENDERS, Labels, compare_with_gallery, gallery_of
from training.measures import association, attributes, craniofacial, retrieval, similarity

ANGLE_EDGES = np.arange(0, 181, 4)  # degrees
MOST_RANKS = 100  # a curve of R@K goes no further
MOST_POINTS = 400  # of a scatter
FEWEST_ON_A_MAP = 8  # speakers; fewer have no neighbourhood
CURVES = ("", "same_gender")


def chart_data(
    subjects: Subjects, labels: Labels, systems: list[System], original: System
) -> dict[str, Any]:
    """Data of every chart.

    Args:
        subjects: the pairs.
        labels: their genders and ages.
        systems: all that was measured, of either kind.
        original: the real faces, as the judge saw them.
    """
    answering = [s for s in systems if s.role != "control"]
    heard = [s for s in answering if s.kind == "embeddings" and s.role == "system"]
    data = {
        "recall": [_recall(subjects, s) for s in answering],
        "roc": [row for s in answering for row in _roc(subjects, labels, s)],
        "angles": [_angles(subjects, s) for s in answering],
        "confusions": [
            row
            for s in [original, *answering]
            if s.readings is not None
            for row in _confusions(labels, s)
        ],
        "craniofacial": [
            row
            for s in answering
            if s.role == "system" and s.from_true is not None
            for row in _craniofacial(subjects, s)
        ],
    }
    if heard and len(np.unique(subjects.speakers)) >= FEWEST_ON_A_MAP:
        data["tsne"] = _tsne(subjects, labels, max(heard, key=lambda s: s.seconds))
    return data


def _where(system: System) -> dict[str, str]:
    return {"system": system.name, "role": system.role, "kind": system.kind}


def _recall(subjects: Subjects, system: System) -> dict[str, Any]:
    gallery, speakers, _ = gallery_of(subjects)
    ranks = retrieval.ranks(system.centred, gallery, subjects.speakers, speakers, "cosine")
    at = np.arange(1, min(MOST_RANKS, len(gallery)) + 1)
    recall, chance = retrieval.recall_curve(ranks, at)
    return _where(system) | {
        "gallery": len(gallery),
        "k": at.tolist(),
        "recall": recall.tolist(),
        "chance": chance.tolist(),
    }


def _roc(subjects: Subjects, labels: Labels, system: System) -> list[dict[str, Any]]:
    compared = compare_with_gallery(subjects, labels, system)
    rows = []
    for restriction in CURVES:
        false, true = association.roc_curve_points(compared, restriction)
        if not np.isfinite([*false, *true]).all():
            continue  # nobody to compare with
        rows.append(
            _where(system)
            | {
                "restriction": restriction,
                "false_positive": false.tolist(),
                "true_positive": true.tolist(),
                "auc": float(np.trapezoid(true, false)),
            }
        )
    return rows


def _angles(subjects: Subjects, system: System) -> dict[str, Any]:
    truth = subjects.embeddings - subjects.centre
    counts = similarity.angle_histogram(system.centred, truth, ANGLE_EDGES)
    return _where(system) | {"edges": ANGLE_EDGES.tolist(), "counts": np.asarray(counts).tolist()}


def _confusions(labels: Labels, system: System) -> list[dict[str, Any]]:
    readings = system.readings
    group, decade = attributes.age_group, attributes.decade
    tables = {
        "gender": (labels.genders, readings.genders, GENDERS),
        "age group": (group(labels.ages), group(readings.ages), attributes.AGE_GROUPS),
        "decade of age": (decade(labels.ages), decade(readings.ages), attributes.DECADES),
    }
    return [
        _where(system)
        | {
            "attribute": attribute,
            "classes": list(classes),
            "counts": np.asarray(attributes.confusion(truth, read, classes)).tolist(),
        }
        for attribute, (truth, read, classes) in tables.items()
    ]


def _craniofacial(subjects: Subjects, system: System) -> list[dict[str, Any]]:
    """One pair a speaker, because two of one speaker are not independent."""
    first = np.unique(subjects.speakers, return_index=True)[1]
    one = craniofacial.measure(system.from_true.readings.landmarks[first])
    other = craniofacial.measure(system.readings.landmarks[first])
    p_values = craniofacial.p_values(one, other)
    shown = np.random.default_rng(0).permutation(len(first))[:MOST_POINTS]
    rows = []
    for index, measurement in enumerate(craniofacial.MEASUREMENTS):
        x, y = one[:, index], other[:, index]
        varies = x.std() > 0 and y.std() > 0
        p = float(p_values[measurement])
        rows.append(
            {
                "system": system.name,
                "measurement": measurement,
                "r": float(np.corrcoef(x, y)[0, 1]) if varies else None,
                "p": p if np.isfinite(p) else None,
                "one": x[shown].tolist(),
                "other": y[shown].tolist(),
            }
        )
    return rows


def _tsne(subjects: Subjects, labels: Labels, system: System) -> dict[str, Any]:
    """Predictions in a plane, one recording a speaker (van der Maaten and Hinton, 2008)."""
    from sklearn.manifold import TSNE

    first = np.unique(subjects.speakers, return_index=True)[1]
    perplexity = min(30, (len(first) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(
        system.centred[first].astype(np.float32)
    )
    ages = [float(age) if np.isfinite(age) else None for age in labels.ages[first]]
    return _where(system) | {
        "x": plane[:, 0].tolist(),
        "y": plane[:, 1].tolist(),
        "gender": labels.genders[first].tolist(),
        "age": ages,
    }
