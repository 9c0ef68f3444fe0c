"""The report: an evaluation's records as tables, charts, pictures and words.

`report.md` holds words and tables and no picture, so that it can be committed; `report.html` holds
everything in one file that asks for nothing from elsewhere. Embeddings and faces never share a
table.
"""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation import wording
from training.evaluation.charts import (
    Chart,
    angle_chart,
    colours_of,
    confusion_chart,
    craniofacial_chart,
    interval_chart,
    recall_chart,
    roc_chart,
    tsne_chart,
)
from training.evaluation.conclusions import (
    APART,
    KNOWS_NOTHING,
    Conclusion,
    as_markdown,
    by_claim,
    card_records,
    conclude,
    main_systems,
    probed,
    sign_of,
)
from training.evaluation.results import (
    DIFFERENCES,
    KINDS,
    SHOULD,
    SHOULD_NOT,
    WITH_TRUTH,
    Record,
    Results,
)

MOST_COLUMNS = 7  # more cannot be read side by side
MOST_OTHERS = 4  # systems that one is compared with in a table
TOLD_BY_ANOTHER = {"gender_balanced_accuracy", "cosine_centred"}  # gender, right; angle, centred
OF_NO_SYSTEM = {"permuted_mean_r", "real_halves"}  # what others are read against
TRANSPOSED = ("craniofacial_correlation", "craniofacial_correlation_from_true", WITH_TRUTH)
GROUPS_IN_MARKDOWN = ("gender", "age group")  # the others are in report.html
TASK = "audio-to-image"
PROBED_BY = {"r": "Pearson's r with the trait", "balanced accuracy": "balanced accuracy, %"}
READ_FROM = {"embeddings": "Read from embeddings", "faces": "Read from faces"}


@dataclass(frozen=True)
class Case:
    """One pair in pictures: the speaker's face beside the faces made of it.

    Attributes:
        title: why it is shown, for example "best" or "random".
        original: (S, S, 3) uint8 RGB.
        from_face: by what made it (a decoder, a folder), the image made of the true embedding.
        from_voice: likewise, the image made of the voice.
        similarity: centred cosine between the first face from voice and the original, -1 to 1.
    """

    title: str
    original: np.ndarray
    from_face: dict[str, np.ndarray]
    from_voice: dict[str, np.ndarray]
    similarity: float


@dataclass(frozen=True)
class Pictures:
    """What may be shown of an evaluation: never of people who did not agree to it.

    Attributes:
        cases: best, median, worst and random ones alike.
        averages: (title, average face, certainty), both (S, S, 3) uint8.
    """

    cases: list[Case] = field(default_factory=list)
    averages: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """One figure of a table: as a text, and what is said of it where something has to be said."""

    value: str
    interval: str
    mark: str = ""  # "higher", "clear", "warning"


@dataclass(frozen=True)
class Row:
    """One line of a table; `heading` rows name the group that the following ones belong to."""

    name: str
    role: str
    cells: list[Cell | None] = field(default_factory=list)
    heading: bool = False


@dataclass(frozen=True)
class Table:
    """A table as it is printed: what its columns are called, its rows, and what chance scores."""

    title: str
    columns: list[str]
    rows: list[Row]
    chance: list[str] = field(default_factory=list)
    corner: str = ""


@dataclass(frozen=True)
class Section:
    """All that is shown of one table of the results, of one kind.

    `few` and `few_groups` are what the Markdown has of `more` and `groups`: without what is read
    there by nobody.
    """

    anchor: str
    title: str
    explained: str
    headline: Table | None
    more: list[Table] = field(default_factory=list)
    groups: list[tuple[str, list[Table]]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    basis: str = ""
    few: list[Table] = field(default_factory=list)
    few_groups: list[Table] = field(default_factory=list)


def write_report(
    folder: Path, results: Results, pictures: Pictures | None = None
) -> tuple[Path, Path]:
    """Writes `report.md` and the self-contained `report.html`.

    Args:
        folder: made if it is missing.
        results: what was found.
        pictures: faces for the page; the Markdown never has any.

    Returns:
        Both files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = _content(results)
    written = []
    for name, more in (
        ("report.md", {}),
        ("report.html", {"pictures": pictures or Pictures()}),
    ):
        text = environment(html=name.endswith("html")).get_template(f"{name}.jinja")
        path = folder / name
        path.write_text(text.render(**content, **more), encoding="utf-8")
        written.append(path)
    return written[0], written[1]


def model_index(results: Results, checkpoint_name: str) -> list[dict[str, Any]]:
    """A few figures that stand for the rest, as the Hub's model-index.

    Args:
        results: what was found.
        checkpoint_name: whose figures: of several compared ones, those named "NAME: ...".

    Returns:
        What stands under `model-index` in a model card; empty if nothing was measured.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    data = results.about.get("dataset") or {}
    name = str(data.get("name") or "a data set")
    identifier = wording.slug(name.split("/")[-1]) or "data-set"
    found = [
        EvalResult(
            task_type=TASK,
            task_name="Speech to face",
            dataset_type=identifier,
            dataset_name=name,
            dataset_split=data.get("split"),
            metric_type=f"{record.kind}_{record.table}_{record.measure}",
            metric_name=f"{wording.measure_name(record.measure)} ({record.kind}; {record.system})",
            metric_value=round(record.value, 4),
            metric_args={
                "system": record.system,
                "interval": [round(end, 4) for end in record.interval],
                "speakers": record.speakers,
            },
        )
        for record in card_records(results)
        if wording.family(record.system)[0] in ("", checkpoint_name)
    ]
    return eval_results_to_model_index(checkpoint_name, found) if found else []


def sections(results: Results, kind: str) -> list[Section]:
    """The sections of a kind, in the order of `wording.TITLES`; probes and differences apart."""
    colours = colours_of(_ordered(r for r in results.records if r.kind == kind))
    known = [r for r in results.records if r.kind == kind]
    names = [*wording.TITLES, *dict.fromkeys(r.table for r in known)]
    found = []
    for name in dict.fromkeys(name for name in names if name not in APART):
        records = [r for r in known if r.table == name]
        if records:
            found.append(_section(name, kind, records, results, colours))
    return found


def _section(
    name: str, kind: str, records: list[Record], results: Results, colours: dict[str, str]
) -> Section:
    overall = [r for r in records if r.by is None]
    measures = list(dict.fromkeys(r.measure for r in overall))
    wanted = wording.HEADLINES.get(name, ())
    first = [m for m in wanted if m in measures] or measures[:MOST_COLUMNS]
    rest = [m for m in measures if m not in first]
    by = {}
    for record in records:
        alone = (record.by, record.measure) == ("gender", "gender_balanced_accuracy")
        if record.by is not None and not alone:  # nothing is balanced within one gender
            by.setdefault(record.by, []).append(record)
    return Section(
        anchor=f"{kind}-{wording.slug(name)}",
        title=wording.TITLES.get(name, name.replace("_", " ").capitalize()),
        explained=wording.explained(name, kind),
        headline=table_of(overall, first) if overall else None,
        more=_further(name, overall, rest),
        groups=[(group, grouped(rows)) for group, rows in by.items()],
        charts=list(_charts(name, kind, results, colours)),
        basis=_basis(overall or records),
        few=_further(name, [r for r in overall if _is_in_markdown(r, results)], rest),
        few_groups=by_measure(
            [
                record
                for group in GROUPS_IN_MARKDOWN
                for record in by.get(group, [])
                if _is_in_markdown(record, results)
            ]
        ),
    )


def _is_in_markdown(record: Record, results: Results) -> bool:
    """Whether the Markdown tells a figure below the headline: that of no control, of nothing that
    knows nothing, of no shorter speech, and by L1 and L2 in the whole gallery alone."""
    if record.role == "control" or record.system in KNOWS_NOTHING:
        return False
    if (record.kind, record.system) == ("embeddings", "true embedding"):
        return False  # the answer itself is right everywhere
    if re.search(r"_of_\d+_l[12]$", record.measure):
        return False
    if record.by is not None and record.measure in TOLD_BY_ANOTHER:
        return False
    return record.role != "system" or record.system in main_systems(
        results, record.kind, record.table
    )


def table_of(records: Sequence[Record], measures: Sequence[str], title: str = "") -> Table:
    """Floors, systems, ceilings and controls below each other; measures side by side.

    Args:
        records: of one table and kind, one a system and measure.
        measures: the columns.
        title: of the table.
    """
    by_place = {(r.system, r.measure): r for r in records}
    rows = [
        Row(system, role, [_cell(by_place.get((system, measure))) for measure in measures])
        for system, role in _ordered(records)
    ]
    rows = [row for row in rows if any(row.cells)]
    chance = [_chance([r for r in records if r.measure == measure]) for measure in measures]
    columns = [wording.measure_name(measure) for measure in measures]
    return Table(title, columns, rows, chance if any(chance) else [])


def transposed(records: Sequence[Record], measures: Sequence[str], title: str = "") -> Table:
    """Systems side by side, measures below each other."""
    by_place = {(r.system, r.measure): r for r in records}
    systems = [system for system, _ in _ordered(records)]
    rows = [
        Row(
            wording.measure_name(measure),
            "",
            [_cell(by_place.get((system, measure))) for system in systems],
        )
        for measure in measures
    ]
    return Table(title, systems, rows)


def by_measure(records: Sequence[Record]) -> list[Table]:
    """Figures by group: a table a measure, its groups below each other, systems side by side."""
    tables = []
    for measure in dict.fromkeys(r.measure for r in records):
        here = [r for r in records if r.measure == measure]
        systems = [system for system, _ in _ordered(here)]
        by_place = {(r.by, r.group, r.system): r for r in here}
        chance = any(r.chance is not None for r in here)
        rows = []
        for by, group in _in_order(here):
            mine = [r for r in here if (r.by, r.group) == (by, group)]
            cells = [_cell(by_place.get((by, group, system))) for system in systems]
            cells += [Cell(_chance(mine), "")] if chance else []
            speakers = max(r.speakers for r in mine)
            rows.append(Row(f"{wording.people(str(group))} ({speakers} speakers)", "", cells))
        columns = [*systems, *(["chance"] if chance else [])]
        tables.append(Table("", columns, rows, corner=wording.measure_name(measure)))
    return tables


def _in_order(records: Iterable[Record]) -> list[tuple[str | None, str | None]]:
    """(by, group) of records: ages and thirds from low to high, others as they come."""
    from training.measures.attributes import AGE_GROUPS

    order = [*AGE_GROUPS, "low third", "middle third", "high third"]
    found = dict.fromkeys((r.by, r.group) for r in records)
    names = list(dict.fromkeys(by for by, _ in found))
    return sorted(
        found,
        key=lambda place: (
            names.index(place[0]),
            order.index(place[1]) if place[1] in order else len(order),
        ),
    )


def grouped(records: Sequence[Record]) -> list[Table]:
    """Figures by group: under each group's name its systems."""
    measures = list(dict.fromkeys(r.measure for r in records))
    tables = []
    for start in range(0, len(measures), MOST_COLUMNS):
        part = measures[start : start + MOST_COLUMNS]
        rows: list[Row] = []
        for _, group in _in_order(records):
            here = [r for r in records if r.group == group]
            speakers = max(r.speakers for r in here)
            rows.append(Row(f"{group} ({speakers} speakers)", "", heading=True))
            table = table_of(here, part)
            rows += table.rows
            if table.chance:
                cells = [Cell(text, "") if text else None for text in table.chance]
                rows.append(Row("chance", "chance", cells))
        tables.append(Table("", [wording.measure_name(m) for m in part], rows))
    return tables


def probe_tables(results: Results, name: str) -> list[tuple[str, Table, list[Chart]]]:
    """What probes read: a table a kind, traits below each other, systems side by side."""
    probes = probed(results, name)
    found = []
    for kind in KINDS:
        here = {(s, role): probe for (k, s, role), probe in probes.items() if k == kind}
        systems = sorted(here, key=lambda place: wording.ROLE_ORDER.index(place[1]))
        if not systems:
            continue
        traits = dict.fromkeys((p.trait, p.statistic) for key in systems for p in here[key])
        rows = []
        for trait, statistic in traits:
            read = [
                next((p for p in here[key] if (p.trait, p.statistic) == (trait, statistic)), None)
                for key in systems
            ]
            rows.append(Row(f"{trait}, {statistic}", "", [_probe_cell(p, name) for p in read]))
        table = Table(READ_FROM[kind], [system for system, _ in systems], rows, [], "")
        found.append((kind, table, list(_probe_charts(name, here))))
    return found


def difference_tables(
    results: Results, kind: str, headlines: bool, systems: Sequence[str] | None = None
) -> list[Table]:
    """A table a system: measures below each other, what is subtracted side by side.

    Args:
        results: what was found.
        kind: "embeddings" or "faces".
        headlines: the measures that the report shows first, or all others.
        systems: whose differences, in this order; everybody's, those with the longest speech
            first, if None.
    """
    first = {m for measures in wording.HEADLINES.values() for m in measures} - OF_NO_SYSTEM
    records = [
        record
        for record in results.records
        if (record.table, record.kind) == (DIFFERENCES, kind)
        and (record.measure.split(": ")[-1] in first) == headlines
    ]
    if systems is None:
        systems = list(dict.fromkeys([*main_systems(results, kind), *(r.system for r in records)]))
    found = []
    for system in systems:
        mine = [record for record in records if record.system == system]
        others = list(dict.fromkeys(record.other or "" for record in mine))
        for start in range(0, len(others), MOST_OTHERS):
            found.append(_difference_table(system, others[start : start + MOST_OTHERS], mine))
    return found


def _difference_table(system: str, others: Sequence[str], records: Sequence[Record]) -> Table:
    """One system minus others; a heading where another table's measures begin."""
    by_place: dict[tuple, dict[str, Record]] = {}
    for record in records:
        if (record.other or "") in others:
            table, _, measure = record.measure.rpartition(": ")
            place = (table, measure, record.by, record.group)
            by_place.setdefault(place, {})[record.other or ""] = record
    order = list(dict.fromkeys([*wording.TITLES, *(place[0] for place in by_place)]))
    rows, last = [], ""
    for place in sorted(by_place, key=lambda place: order.index(place[0])):
        table, measure, by, group = place
        if table != last:
            rows.append(Row(wording.TITLES.get(table, table), "", heading=True))
        last = table
        name = wording.measure_name(measure) + (f", {by}: {group}" if by else "")
        rows.append(Row(name, "", [_difference_cell(by_place[place].get(o)) for o in others]))
    return Table("", [f"minus {other}" for other in others], rows, corner=system)


def _difference_cell(record: Record | None) -> Cell | None:
    cell = _cell(record)
    if cell is None:
        return None
    better = sign_of(record) * (-1 if wording.lower_is_better(record.measure) else 1)
    return Cell(cell.value, cell.interval, {1: "better", -1: "worse", 0: ""}[better])


def _probe_cell(probe: Any, name: str) -> Cell | None:
    if probe is None:
        return None
    cell = _cell(probe.record)
    chance = wording.chance_number(probe.chance, probe.record.measure)
    said = f"{cell.interval}, chance {chance}"
    wrong = name == SHOULD_NOT and probe.told and probe.record.role == "system"
    return Cell(cell.value, said, "NOT at chance" if wrong else "")


def _probe_charts(name: str, here: dict[tuple[str, str], list]) -> Iterable[Chart]:
    for (system, role), probes in here.items():
        for statistic in dict.fromkeys(p.statistic for p in probes):
            rows = [
                (p.trait, p.record, p.chance)
                for p in probes
                if p.statistic == statistic and p.record.value is not None
            ]
            if role == "system" and rows:
                caption = (
                    f"{wording.TITLES[name]}: {statistic} of a probe on {system}; dashed: chance."
                )
                yield interval_chart(rows, caption, PROBED_BY[statistic])


def _cell(record: Record | None) -> Cell | None:
    if record is None:
        return None
    return Cell(wording.number(record.value, record.measure), wording.interval_text(record))


def _chance(records: Sequence[Record]) -> str:
    """What chance scores in a column; a range where systems differ in it."""
    known = sorted({r.chance for r in records if r.chance is not None})
    if not known:
        return ""
    ends = dict.fromkeys(
        wording.chance_number(chance, records[0].measure) for chance in (known[0], known[-1])
    )
    return " to ".join(ends)


def _ordered(records: Iterable[Record]) -> list[tuple[str, str]]:
    """(system, role): floors, systems, ceilings, controls, each in the order of its records."""
    seen = dict.fromkeys((r.system, r.role) for r in records if r.table != DIFFERENCES)
    return sorted(seen, key=lambda place: wording.ROLE_ORDER.index(place[1]))


def _basis(records: Sequence[Record]) -> str:
    """On how many samples and speakers the figures rest."""
    samples = {r.samples for r in records}
    speakers = {r.speakers for r in records}
    return f"{_range(samples)} samples of {_range(speakers)} speakers"


def _range(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _further(name: str, records: Sequence[Record], measures: Sequence[str]) -> list[Table]:
    """The measures beyond the headline, a table for each that belong together."""
    known = {record.measure for record in records}
    measures = [measure for measure in measures if measure in known]
    if name in TRANSPOSED:
        return [transposed(records, measures)] if measures else []
    together: dict[str, list[str]] = {}
    for measure in measures:
        together.setdefault(_belonging(name, measure), []).append(measure)
    return [
        table_of(records, part[start : start + MOST_COLUMNS], title)
        for title, part in together.items()
        for start in range(0, len(part), MOST_COLUMNS)
    ]


def _belonging(name: str, measure: str) -> str:
    """Under which heading a measure stands that is not in the headline."""
    if name == "retrieval":
        score = {"_l1": "by L1", "_l2": "by L2"}.get(measure[-3:], "by cosine")
        size = re.search(r"_of_(\d+)", measure)
        return f"{score}, gallery of {int(size[1]):,}" if size else f"{score}, the whole gallery"
    if name == "association":
        found = re.search(r"_(same_.+)$", measure)
        return wording.RESTRICTIONS.get(found[1] if found else "", measure)
    if name == "feature_similarity":
        return "raw" if measure.endswith("_raw") else "centred"
    return ""


def _charts(name: str, kind: str, results: Results, colours: dict[str, str]) -> Iterable[Chart]:
    """The charts that stand in a section."""
    data = results.charts
    mine = {
        key: [c for c in data.get(key, []) if c.get("kind", kind) == kind]
        for key in ("recall", "roc", "angles")
    }
    for curve in (c for curves in mine.values() for c in curves):
        colours.setdefault(curve["system"], "#56b4e9")
    if name == "feature_similarity" and mine["angles"]:
        yield angle_chart(_by_role(mine["angles"]), colours)
    if name == "feature_similarity" and kind == "embeddings" and data.get("tsne"):
        yield tsne_chart(data["tsne"])
    if name == "retrieval":
        for gallery in dict.fromkeys(c["gallery"] for c in mine["recall"]):
            curves = [c for c in mine["recall"] if c["gallery"] == gallery]
            yield recall_chart(_by_role(curves), colours)
    if name == "association":
        yield from _auc_charts(kind, results, colours)
        for restriction in dict.fromkeys(c["restriction"] for c in mine["roc"]):
            curves = [c for c in mine["roc"] if c["restriction"] == restriction]
            title = wording.RESTRICTIONS.get(restriction or "", str(restriction))
            yield roc_chart(_by_role(curves), colours, title)
    if kind == "faces" and name == "attribute_agreement":
        main = main_systems(results, kind, name)
        confusions = [
            c
            for c in data.get("confusions", [])
            if c.get("role") != "floor"
            and (c["system"] in main or c.get("role") != "system")
            and not _is_its_own_truth(c)
        ]
        for attribute in dict.fromkeys(c["attribute"] for c in confusions):
            yield confusion_chart([c for c in confusions if c["attribute"] == attribute])
    if kind == "faces" and name == "craniofacial_correlation_from_true":
        scatters = data.get("craniofacial", [])
        main = main_systems(results, kind, name)  # of shorter speech the tables tell enough
        for system in dict.fromkeys(s["system"] for s in scatters if s["system"] in main):
            yield craniofacial_chart([s for s in scatters if s["system"] == system])
    if name == WITH_TRUTH:
        caption = "Mean r of twelve measurements with the true face, and what the laws allow"
        yield from _dots(name, kind, "mean_r", f"{caption}; dashed: chance.", results, colours)


def _is_its_own_truth(confusion: dict[str, Any]) -> bool:
    """Whether the judge is the source of the truth: on the originals it agrees with itself."""
    counts = np.asarray(confusion["counts"])
    return confusion["system"] == "original" and counts.sum() == np.trace(counts)


def _auc_charts(kind: str, results: Results, colours: dict[str, str]) -> Iterable[Chart]:
    """The AUC of each system, among everybody and among one gender, as dots with intervals."""
    for measure, whom in (("auc", "everybody"), ("auc_same_gender", "one gender")):
        caption = f"AUC of telling a speaker's face from others, among {whom}; dashed: chance."
        yield from _dots("association", kind, measure, caption, results, colours)


def _dots(
    table: str, kind: str, measure: str, caption: str, results: Results, colours: dict[str, str]
) -> Iterable[Chart]:
    """One measure of every system that has it, as dots with intervals; none if none has."""
    records = results.select(table=table, kind=kind, measure=measure)
    records = [r for r in records if r.value is not None]
    order = [system for system, _ in _ordered(records)]
    records.sort(key=lambda r: order.index(r.system))
    if records:
        rows = [(r.system, r, r.chance) for r in records]
        yield interval_chart(rows, caption, wording.measure_name(measure), colours)


def _by_role(curves: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(curves, key=lambda curve: wording.ROLE_ORDER.index(curve["role"]))


def _content(results: Results) -> dict[str, Any]:
    """What both templates are filled with."""
    about = results.about
    checkpoints = [c.get("name", "") for c in about.get("checkpoints", []) if isinstance(c, dict)]
    conclusions = conclude(results)
    parts = (
        ("can", "What it can do"),
        ("cannot", "What it cannot do"),
        ("rests", "What the figures rest on"),
    )
    kinds = [kind for kind in KINDS if any(r.kind == kind for r in results.records)]
    return {
        "title": f"Speech2Face: {wording.joined(checkpoints) or 'an evaluation'}",
        "date": str(about.get("created") or "")[:10],
        "command": about.get("command") or "",
        "data": dict.fromkeys(("name", "split", "pairs", "speakers"))
        | (about.get("dataset") or {}),
        "warnings": [c for c in conclusions if c.warning],
        "parts": [(title, key, by_claim(_of_part(conclusions, key))) for key, title in parts],
        "kinds": [(kind, wording.KIND_TITLES[kind], sections(results, kind)) for kind in kinds],
        "conclusions_of": {key: as_markdown(_of_part(conclusions, key)) for key, _ in parts},
        "should_not": probe_tables(results, SHOULD_NOT),
        "should": probe_tables(results, SHOULD),
        "differences": _differences(results),
        "explained": wording.EXPLAINED,
        "titles": wording.TITLES,
        "made": _made(about),
    }


def _differences(results: Results) -> list[tuple[str, list[Table], list[Table], list[Table]]]:
    """Kind, headline figures, all others, and the headline figures of the longest speech."""
    found = []
    for kind in KINDS:
        every = [difference_tables(results, kind, headlines) for headlines in (True, False)]
        if any(every):
            few = difference_tables(results, kind, True, main_systems(results, kind))
            found.append((wording.KIND_TITLES[kind], *every, few))
    return found


def _of_part(conclusions: Sequence[Conclusion], part: str) -> list[Conclusion]:
    return [c for c in conclusions if c.part == part and not c.warning]


def _made(about: dict[str, Any]) -> list[tuple[str, str]]:
    """By what command, of what, with what: as names and texts."""
    shown = {name: about.get(name) for name in ("command", "created", "python", "seed", "rounds")}
    rows = [(name, str(value)) for name, value in shown.items() if value is not None]
    for name in ("versions", "dataset"):
        if isinstance(about.get(name), dict):
            rows.append((name, _in_a_line(about[name])))
    for checkpoint in about.get("checkpoints", []):
        rows.append(("checkpoint", _in_a_line(checkpoint)))
    return rows


def _in_a_line(values: Any) -> str:
    if not isinstance(values, dict):
        return str(values)
    known = {name: value for name, value in values.items() if value is not None}
    return ", ".join(
        f"{name.replace('_', ' ')} {', '.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in known.items()
    )


def environment(html: bool) -> Any:
    """Jinja2 as the report's and the cards' templates expect it; unknown names are refused."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "picture": picture_uri,
        "cell": _markdown_cell,
        "anchor": wording.slug,
        "unbroken": unbroken,
    }
    return found


def unbroken(text: str) -> str:
    """A text whose figures stay on one line each, with their units and within their brackets."""
    return re.sub(r" (?=%)|(?<=\d,) (?=[^ ]+\])|(?<=\d) (?=s\b)", "\N{NO-BREAK SPACE}", text)


def picture_uri(image: np.ndarray) -> str:
    """An image (S, S, 3) uint8 RGB as a PNG data URI."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(np.asarray(image, np.uint8)).save(target, format="png")
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def _markdown_cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
