"""The comparison as records (`results.json`) and as tables to read (`report.md`)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.compare_voice_encoders.answers import Answer, Measurer
from training.evaluation.results import DIFFERENCES, Record, Results
from training.evaluation.wording import Unit, chance_number, figure_text, measure_name, number

SHOWN = ("auc", "auc_same_gender", "auc_same_gender_and_age_group")
RECALLS = ("recall_at_1", "recall_at_5", "recall_at_10")
COMPARED = ("auc", "auc_same_gender", "recall_at_10")
FINE = Unit(1, 3)  # of an AUC: rows differ in the third digit
REAL, OWN = "the real faces", "the same system's faces of the real faces"
EMBEDDINGS, FACES, ABLATIONS, SEEDS = "embeddings", "faces", "ablations", "seeds"


def results_of(
    about: dict[str, Any],
    measurer: Measurer,
    answers: Sequence[Answer],
    faces: Sequence[Answer],
) -> Results:
    """All figures, and by how much each row lies above the one that it is compared with.

    Embeddings are compared with the first ridge row, faces with the first row of faces held against
    the same gallery, and ablations with what they are an ablation of, on the pairs that both were
    asked.
    """
    results = Results(about | {"notes": {a.name: a.note for a in answers if a.note}})
    by_name = {answer.name: answer for answer in answers}
    reference = by_name[about["reference"]]
    for answer in answers:
        rival = by_name.get(answer.ablated, reference)
        _add(results, measurer, answer, rival, ABLATIONS if answer.ablated else EMBEDDINGS)
        for seed, centred in enumerate(answer.centred if len(answer.centred) > 1 else []):
            figures = measurer.of_seed(answer, centred, answer.asked)
            where = {"table": SEEDS, "kind": "embeddings", "system": answer.name}
            results.add(figures, **where, role=answer.role, by="seed", group=str(seed))
    for answer in faces:
        held_against = [row for row in faces if (row.faces is None) == (answer.faces is None)]
        _add(results, measurer, answer, held_against[0], FACES)
    return results


def _add(results: Results, measurer: Measurer, answer: Answer, rival: Answer, table: str) -> None:
    """Adds a row's figures, and what lies between them and its rival's."""
    kind = FACES if table == FACES else EMBEDDINGS
    gallery = {} if kind == EMBEDDINGS else {"by": "gallery", "group": REAL}
    if answer.faces is not None:
        gallery["group"] = OWN
    where = {"kind": kind, "system": answer.name, "role": answer.role} | gallery
    figures = measurer.figures(answer)
    results.add(figures, table=table, **where)
    if rival is answer:
        return
    both = answer.asked & rival.asked
    if not both.any():
        return
    others = measurer.figures(rival, both)
    apart = {
        name: figure.minus(others[name]) for name, figure in measurer.figures(answer, both).items()
    }
    results.records += [
        Record.of(figure, table=DIFFERENCES, measure=f"{table}: {name}", other=rival.name, **where)
        for name, figure in apart.items()
    ]


def write(folder: Path, results: Results) -> None:
    """Writes `results.json` and `report.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(results.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(markdown(results), encoding="utf-8")


def markdown(results: Results) -> str:
    """The report: figures alone, with 95 % intervals from drawing families again."""
    about = results.about
    parts = [
        "# Voice encoders on real people",
        f"{about['pairs']} pairs of {about['families']} families (people who share neither speaker "
        f"nor face) in {about['folds']} folds; every family is held out once and no pair is left "
        f"out. Measured on {about['created'][:10]} with",
        f"```bash\n{about['command']}\n```",
        "AUC: how often a voice's embedding lies nearer to its own person's face than to another "
        "person's; among one gender, and one gender and age group, the easy part of the answer is "
        f"taken away (gender by the {about['gender_source']}, age by the {about['age_source']}). "
        f"R@k: how often its own is among the first k of {about['families']} faces. Embeddings are "
        "centred. Brackets hold 95 % intervals from drawing families again, differences are on the "
        "same draws, and of several seeds a figure is the mean of theirs. Regularisation and the "
        "number of steps are chosen within the training folds alone.",
    ]
    parts += ["## Embeddings with embeddings", *_table(results, EMBEDDINGS)]
    if seeds := results.select(table=SEEDS, by="seed", measure="auc"):
        parts += ["Seed by seed:", _seeds(results, dict.fromkeys(row.system for row in seeds))]
    if results.select(table=ABLATIONS):
        parts += [
            "## Ablations",
            "Each differs in one thing from the row that it is subtracted from, on the pairs that "
            "both were asked; see the last column for how much was run.",
            *_table(results, ABLATIONS),
        ]
    if results.select(table=FACES, by="gallery"):
        parts += [
            "## Faces with faces",
            "Predictions decoded by one decoder and embedded again, beside faces that another "
            "system made from the same voices. A system's faces are centred by their own mean.",
        ]
        for gallery in (REAL, OWN):
            parts += [f"Held against {gallery}:", *_table(results, FACES, gallery)]
    return "\n\n".join(parts) + "\n"


def _table(results: Results, table: str, gallery: str | None = None) -> Iterable[str]:
    """A table of figures, and one of differences."""
    where = {"by": "gallery", "group": gallery} if gallery else {}
    rows = [r for r in results.select(table=table, **where) if r.measure == "auc"]
    found = {(r.system, r.measure): r for r in results.select(table=table, **where)}
    notes = {} if gallery else results.about["notes"]
    head = [measure_name(name) for name in (*SHOWN, *RECALLS)]
    lines = []
    for row in rows:
        cells = [_cell(found[row.system, name]) for name in (*SHOWN, *RECALLS)]
        lines.append([row.system, *cells, notes.get(row.system, "")])
    chance = [
        chance_number(found[rows[0].system, name].chance, name) for name in (*SHOWN, *RECALLS)
    ]
    lines.append(["chance", *chance, ""])
    yield _grid(["", *head, "note"], lines)
    differences = {
        (r.system, r.measure.split(": ")[1]): r
        for r in results.select(table=DIFFERENCES, **where)
        if r.measure.startswith(f"{table}: ")
    }
    lines = [
        [row.system, differences[row.system, "auc"].other]
        + [_cell(differences[row.system, name], signed=True) for name in COMPARED]
        for row in rows
        if (row.system, "auc") in differences
    ]
    if lines:
        yield _grid(["", "minus", *[measure_name(name) for name in COMPARED]], lines)


def _seeds(results: Results, systems: Iterable[str]) -> str:
    lines = []
    for system in systems:
        line = [system]
        for name in SHOWN[:2]:
            of = results.select(table=SEEDS, system=system, measure=name, by="seed")
            line.append(", ".join(number(r.value, name, FINE) for r in of))
            line.append(f"{np.std([r.value for r in of], ddof=1):.3f}")
        lines.append(line)
    head = [text for name in SHOWN[:2] for text in (measure_name(name), "spread")]
    return _grid(["", *head], lines)


def _cell(record: Record, signed: bool = False) -> str:
    unit = None if "recall" in record.measure else FINE
    text = figure_text(record, unit)
    return f"+{text}" if signed and record.value and record.value > 0 else text


def _grid(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
