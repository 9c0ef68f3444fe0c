"""What an evaluation found: records that tables, cards and comparisons are made from.

A record is one figure of one system; everything that is printed anywhere about a checkpoint is a
record of its `results.json`, so that no figure is typed by hand.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.measures.resampling import Figure

FORMAT = 1
KINDS = ("embeddings", "faces")
DIFFERENCES = "differences"
SHOULD_NOT, SHOULD = "what_the_voice_should_not_tell", "what_it_should"
WITH_TRUTH = "craniofacial_correlation_with_truth"  # the cast's, whose geometry knows it
# Rows of that table: what the cast's laws allow to say of a face from what is told of its person.
LAW_FROM_GENDER = "law from gender"
LAW_FROM_GENDER_AND_AGE = "law from gender and age"
LAW_FROM_VOICE = "law from the true voice"
BRIEF_GROUPS = ("gender", "age group")
BRIEF_DIFFERENCES = (": auc", ": recall_at_10", ": gender_balanced_accuracy", ": age_r")


@dataclass(frozen=True)
class Record:
    """One figure.

    Attributes:
        table: which table it stands in, for example "retrieval".
        kind: "embeddings" or "faces": what was compared. The two never share a table.
        system: what was measured, for example "voice, 6 s".
        role: "system", "floor", "ceiling" or "control".
        measure: the figure's name, for example "recall_at_10".
        value: the figure, None where nobody was there to measure.
        interval: its 95 % interval over speakers, or None.
        speakers: how many it rests on.
        samples: how many pairs, recordings or images.
        chance: what knowing nothing would score, where that is known.
        by: what the group is a group of, for example "gender"; None for everybody.
        group: the group's name, for example "female".
        other: in a table of differences, the system that was subtracted.
    """

    table: str
    kind: str
    system: str
    role: str
    measure: str
    value: float | None
    interval: tuple[float, float] | None
    speakers: int
    samples: int
    chance: float | None = None
    by: str | None = None
    group: str | None = None
    other: str | None = None

    @classmethod
    def of(cls, figure: Figure, **where: Any) -> "Record":
        """A record, to six digits, of a figure and where it stands (table, kind, system, ...)."""
        return cls(**where, **{name: _rounded(v) for name, v in figure.to_json().items()})


@dataclass
class Results:
    """All that one evaluation found.

    Attributes:
        about: command, versions, seed, rounds, data set, checkpoints, and the shares of samples
            for which a stand-in was measured.
        records: the figures.
        charts: what the charts are drawn from, JSON-able.
        notes: sentences on what the figures rest on.
        model_index: the headline figures as the Hub reads them from a model card.
    """

    about: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    charts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    model_index: list[dict[str, Any]] = field(default_factory=list)
    _index: tuple[int, dict[str, list[Record]]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def add(self, figures: dict[str, Figure], **where: Any) -> None:
        """Adds a measure's figures, each under its name."""
        self.records += [Record.of(f, measure=name, **where) for name, f in figures.items()]

    def select(self, **where: Any) -> list[Record]:
        """Records whose fields equal those named; without `by`, only those of everybody."""
        where = {"by": None} | where if "group" not in where else where
        records = self._by_table().get(where["table"], []) if "table" in where else self.records
        return [r for r in records if all(getattr(r, k) == v for k, v in where.items())]

    def _by_table(self) -> dict[str, list[Record]]:
        """Records by table: a report selects some hundred times among ten thousand."""
        if self._index is None or self._index[0] != len(self.records):
            tables: dict[str, list[Record]] = {}
            for record in self.records:
                tables.setdefault(record.table, []).append(record)
            self._index = len(self.records), tables
        return self._index[1]

    def find(self, **where: Any) -> Record:
        """The one record that `select` finds.

        Raises:
            KeyError: if there is none, or more than one.
        """
        found = self.select(**where)
        if len(found) != 1:
            named = ", ".join(f"{name}={value!r}" for name, value in where.items())
            raise KeyError(f"{len(found)} records have {named}: name one of the results")
        return found[0]

    def save(self, folder: Path) -> None:
        """Writes `results.json` and, apart because it is large, `charts.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "charts.json", json.dumps(self.charts, allow_nan=False))
        _write(folder / "results.json", self.to_json())

    def to_json(self) -> str:
        """What `results.json` holds: no charts, a record a line."""
        head = {
            "format": FORMAT,
            "about": self.about,
            "notes": self.notes,
            "model-index": self.model_index,
        }
        rows = [
            json.dumps({k: v for k, v in asdict(r).items() if v is not None}, allow_nan=False)
            for r in self.records
        ]
        text = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
        return text + ',\n "records": [\n' + ",\n".join(rows) + "\n]}\n"

    def brief(self) -> "Results":
        """What travels with a checkpoint: of groups gender and age, of differences the headlines.

        Charts do not.
        """
        kept = [
            r
            for r in self.records
            if r.by in (None, *BRIEF_GROUPS)
            and (r.table != DIFFERENCES or r.measure.endswith(BRIEF_DIFFERENCES))
        ]
        return Results(self.about, kept, {}, self.notes, self.model_index)

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Reads a `results.json`, or the folder of one, with its charts if they lie beside it.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is of another kind.
        """
        path = Path(path)
        path = path / "results.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path}: make it with python -m training.evaluation --output {path.parent}"
            )
        stored = json.loads(path.read_text())
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise ValueError(f"{path} is not a results.json of this version: evaluate again")
        charts = path.with_name("charts.json")
        return cls(
            about=stored["about"],
            records=list(_records(stored["records"])),
            charts=json.loads(charts.read_text()) if charts.is_file() else {},
            notes=stored["notes"],
            model_index=stored["model-index"],
        )


def _records(stored: Iterable[dict]) -> Iterable[Record]:
    for row in stored:
        interval = row.get("interval")
        row = {"value": None} | row | {"interval": tuple(interval) if interval else None}
        yield Record(**row)


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_rounded(part) for part in value)
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _write(path: Path, text: str) -> None:
    """Whole or not at all: an evaluation that is killed leaves the earlier file."""
    work = path.with_name(path.name + ".part")
    work.write_text(text, encoding="utf-8")
    work.replace(path)
