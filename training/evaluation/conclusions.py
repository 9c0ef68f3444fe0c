"""What an evaluation says in words: each sentence follows from its figures by a rule written here.

A rule looks at intervals alone: what an interval touches is not claimed to be otherwise. Where the
paired difference of two systems was measured, it decides; else two intervals that overlap are
called level.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.evaluation import wording
from training.evaluation.results import DIFFERENCES, Record, Results
from training.evaluation.wording import figure_text, measure_name, number

GENDER_AND_AGE_FLOORS = {
    "embeddings": "gender-and-age oracle",
    "faces": "average face of the gender and age group",
}
KNOWS_NOTHING = ("constant", "average face")  # must score chance, as shuffled voices must
ROUNDING = 1e-9  # an interval without width may miss its chance by so much
MATCHING = (("association", "auc"), ("retrieval", "recall_at_10"))
SHOULD_NOT, SHOULD = "what_the_voice_should_not_tell", "what_it_should"
OF_KIND = {"embeddings": "embedding", "faces": "faces"}


@dataclass(frozen=True)
class Conclusion:
    """A sentence or two that the figures bear out.

    Attributes:
        part: "can", "cannot" or "rests" (what the figures rest on).
        text: in words, each figure with its interval.
        warning: something is wrong with the evaluation or the model: shown first, and in bold.
    """

    part: str
    text: str
    warning: bool = False


def conclude(results: Results) -> list[Conclusion]:
    """All that can be said, in the order of the report; warnings first."""
    found: list[Conclusion] = []
    for system in main_systems(results, "faces"):
        for rule in (gender_is_read, age_is_read):
            found += rule(results, system)
    for kind in ("embeddings", "faces"):
        for system in main_systems(results, kind):
            for rule in (tells_apart_within_gender, against_the_oracle, share_of_the_ceiling):
                found += rule(results, kind, system)
    for rule in (unseen_voices, identity_and_diversity, told_by_law, not_told, controls):
        found += rule(results)
    found += rests_on(results)
    return sorted(found, key=lambda conclusion: not conclusion.warning)


def main_systems(results: Results, kind: str) -> list[str]:
    """The systems of a kind that hear a voice, each with the longest speech that it was given."""
    longest: dict[str, tuple[float, str]] = {}
    for record in results.select(kind=kind, role="system"):
        if record.table in (DIFFERENCES, "voices"):
            continue
        match = re.search(r", (\d+(?:\.\d+)?) s$", record.system)
        bare = record.system[: match.start()] if match else record.system
        seconds = float(match[1]) if match else 0.0
        if bare not in longest or seconds > longest[bare][0]:
            longest[bare] = (seconds, record.system)
    return [name for _, name in longest.values()]


def gender_is_read(results: Results, system: str) -> list[Conclusion]:
    """Men, women, and whether one of them is read better, from a system's faces."""
    where = {"table": "attribute_agreement", "kind": "faces", "system": system}
    balanced = _known(results, **where, measure="gender_balanced_accuracy")
    men = _known(results, **where, measure="gender_accuracy_male")
    women = _known(results, **where, measure="gender_accuracy_female")
    if not (balanced and men and women):
        return []
    chance = 0.5 if balanced.chance is None else balanced.chance
    if not _above(balanced, chance):
        said = f"balanced over men and women {figure_text(balanced)}, chance 50 %"
        return [Conclusion("cannot", f"Gender is not read from the faces of {system}: {said}.")]
    better = {1: "men are read better than women", -1: "women are read better than men"}.get(
        _order(men, women), "the two do not clearly differ"
    )
    text = (
        f"From the faces of {system} the judge reads the gender of men right in "
        f"{figure_text(men)} and of women in {figure_text(women)}: {better}."
    )
    return [Conclusion("can", text)]


def age_is_read(results: Results, system: str) -> list[Conclusion]:
    """Whether the judge's age of a system's faces goes with the speaker's."""
    where = {"table": "attribute_agreement", "kind": "faces", "system": system}
    r = _known(results, **where, measure="age_r")
    if not r:
        return []
    error = _known(results, **where, measure="age_mae")
    said = f"r = {figure_text(r)}" + (f", mean error {figure_text(error)}" if error else "")
    if _above(r, 0.0):
        return [Conclusion("can", f"Age is read from the faces of {system}: {said}.")]
    return [Conclusion("cannot", f"Age is not read from the faces of {system}: {said}.")]


def tells_apart_within_gender(results: Results, kind: str, system: str) -> list[Conclusion]:
    """Whether anything but gender (and age) tells a speaker's face from another's."""
    where = {"table": "association", "kind": kind, "system": system}
    everybody = _known(results, **where, measure="auc")
    same = _known(results, **where, measure="auc_same_gender")
    both = _known(results, **where, measure="auc_same_gender_and_age_group")
    if not (everybody and same):
        return []
    figures = f"AUC {figure_text(same)}, against {figure_text(everybody)} among everybody"
    if both:
        figures += f"; with the age group held equal, too, {figure_text(both)}"
    of = f"the {OF_KIND[kind]} of {system}"
    if _above(same, 0.5):
        verb = "tells" if kind == "embeddings" else "tell"
        text = (
            f"Among speakers of one gender, {of} {verb} who is who better than chance: {figures}."
        )
        return [Conclusion("can", text)]
    verb = "does" if kind == "embeddings" else "do"
    text = f"Among speakers of one gender, {of} {verb} not tell who is who: {figures}."
    return [Conclusion("cannot", text)]


def against_the_oracle(results: Results, kind: str, system: str) -> list[Conclusion]:
    """Better, level or worse than being told gender and age group, and nothing else."""
    floor = GENDER_AND_AGE_FLOORS[kind]
    verdicts = []
    for table, measure in MATCHING:
        where = {"table": table, "kind": kind, "measure": measure}
        own, told = (_known(results, **where, system=name) for name in (system, floor))
        if own and told:
            order = order_of(results, own, told)
            word = {1: "better", 0: "level", -1: "worse"}[order]
            figures = f"{measure_name(measure)} {figure_text(own)} against {figure_text(told)}"
            verdicts.append((order, f"{word} ({figures})"))
    if not verdicts:
        return []
    beaten = all(order > 0 for order, _ in verdicts)
    text = (
        f"Compared with an oracle that is told gender and age group ({floor}), the "
        f"{OF_KIND[kind]} of {system} scored {wording.joined([said for _, said in verdicts])}."
    )
    return [Conclusion("can" if beaten else "cannot", text)]


def share_of_the_ceiling(results: Results, kind: str, system: str) -> list[Conclusion]:
    """How much of the way from chance to its ceiling a system goes."""
    ceiling = ceiling_of(results, kind, system)
    if ceiling is None:
        return []
    measures = (
        MATCHING
        if kind == "embeddings"
        else (
            ("attribute_agreement", "gender_balanced_accuracy"),
            *MATCHING,
        )
    )
    parts, found = [], []
    for table, measure in measures:
        where = {"table": table, "kind": kind, "measure": measure}
        own, best = (_known(results, **where, system=name) for name in (system, ceiling))
        if not (own and best and best.chance is not None and _above(best, best.chance)):
            continue
        if own.interval[0] > best.interval[1]:
            text = (
                f"{system} scores above its ceiling, {ceiling}: {measure_name(measure)} "
                f"{figure_text(own)} against {figure_text(best)}. Something gives the answer away."
            )
            found.append(Conclusion("rests", text, warning=True))
        share = (own.value - own.chance) / (best.value - best.chance)
        parts.append(
            f"{max(share, 0):.0%} in {measure_name(measure)} "
            f"({figure_text(own)} of {figure_text(best)})".replace("%", " %", 1)
        )
    if not parts:
        return found
    of = f"the {OF_KIND[kind]} of {system}"
    verb = "goes" if kind == "embeddings" else "go"
    text = (
        f"Of the way from chance to the ceiling ({ceiling}), {of} {verb} {wording.joined(parts)}."
    )
    return [*found, Conclusion("cannot", text)]


def ceiling_of(results: Results, kind: str, system: str) -> str | None:
    """The ceiling that a system is held against.

    Faces against what the same decoder makes of the true embedding; embeddings against another
    picture of the speaker, or the true embedding where each speaker has a single picture.
    """
    names = dict.fromkeys(record.system for record in results.select(kind=kind, role="ceiling"))
    family, bare = wording.family(system)
    if kind == "faces":
        decoder = bare.split(" from ")[0]
        wanted = [f"{family}: {decoder} from true embedding" if family else None]
        wanted.append(f"{decoder} from true embedding")
    else:
        wanted = ["another picture of the speaker", "true embedding"]
    return next((name for name in wanted if name in names), None)


def unseen_voices(results: Results) -> list[Conclusion]:
    """Gender on the faces for recordings whose speaker's face nobody knows."""
    found = []
    for women in results.select(table="voices", measure="gender_accuracy_female", role="system"):
        where = {"table": "voices", "kind": women.kind, "system": women.system}
        men = _known(results, **where, measure="gender_accuracy_male")
        if not men or women.interval is None:
            continue
        better = {1: "men are read better", -1: "women are read better"}.get(
            _order(men, women), "the two do not clearly differ"
        )
        text = (
            f"On recordings without a face ({women.speakers + men.speakers} speakers), the judge "
            f"reads the labelled gender from the faces of {women.system} right for men in "
            f"{figure_text(men)} and for women in {figure_text(women)}: {better}."
        )
        read = _above(men, 0.5) and _above(women, 0.5)
        found.append(Conclusion("can" if read else "cannot", text))
    return found


def identity_and_diversity(results: Results) -> list[Conclusion]:
    """What the decoder keeps of what it is asked for, and how much the faces of a voice differ."""
    found = []
    for record in results.select(table="identity_kept", measure="identity_cosine", kind="faces"):
        if record.role == "ceiling" and record.interval is not None:
            text = (
                f"A face by {record.system} keeps a centred cosine of {figure_text(record)} with "
                "the embedding that was asked for (1 would be all of it)."
            )
            found.append(Conclusion("can" if _above(record, 0.0) else "cannot", text))
    for record in results.select(table="diversity", measure="relative_distance", role="system"):
        if record.interval is not None:
            text = (
                f"The several {'faces' if record.kind == 'faces' else 'draws'} of one voice by "
                f"{record.system} differ by {figure_text(record)} of the distance between "
                "different persons of that gender."
            )
            found.append(Conclusion("can" if record.interval[1] >= 1 else "cannot", text))
    return found


@dataclass(frozen=True)
class Probed:
    """What a probe read of one trait.

    Attributes:
        trait: its name in words.
        record: the probe's figure.
        chance: what is to be expected without the voice: by chance, or from gender and age alone.
    """

    trait: str
    record: Record
    chance: float

    @property
    def told(self) -> bool:
        return _above(self.record, self.chance)

    @property
    def statistic(self) -> str:
        return "r" if re.search(r"(^|_)r$", self.record.measure) else "balanced accuracy"

    @property
    def said(self) -> str:
        chance = wording.chance_number(self.chance, self.record.measure)
        return f"{self.trait} {figure_text(self.record)}, chance {chance}"


COMPANION = "from_covariates"  # the probe that sees gender and age alone


def probed(results: Results, table: str) -> dict[tuple[str, str, str], list[Probed]]:
    """The probes of a table by (kind, system, role).

    A trait is the measure's name without `_r` or `_balanced_accuracy`, or the group where a table
    is by "trait". Where a record `..._from_covariates` stands beside it, that is its chance, unless
    the true chance is above it.
    """
    records = [r for r in results.records if r.table == table and r.by in (None, "trait")]
    companions = {
        _probe_key(record): record.value
        for record in records
        if record.measure.endswith(COMPANION) and record.value is not None
    }
    found: dict[tuple[str, str, str], list[Probed]] = {}
    for record in records:
        if record.measure.endswith(COMPANION):
            continue
        chance = max(record.chance or 0.0, companions.get(_probe_key(record), 0.0))
        found.setdefault((record.kind, record.system, record.role), []).append(
            Probed(_trait(record), record, chance)
        )
    return found


def _probe_key(record: Record) -> tuple[str, str, str]:
    return record.kind, record.system, _trait(record)


def _trait(record: Record) -> str:
    name = record.group if record.by == "trait" else record.measure
    name = re.sub(rf"_?({COMPANION}|balanced_accuracy|r)$", "", name)
    return name.replace("_", " ")


def not_told(results: Results) -> list[Conclusion]:
    """Traits that are independent of the voice: at chance, or a warning."""
    found = []
    for (kind, system, role), probes in probed(results, SHOULD_NOT).items():
        if role != "system":
            continue
        known = [probe for probe in probes if probe.record.interval is not None]
        told = [probe for probe in known if probe.told]
        quiet = [probe for probe in known if not probe.told]
        of = f"the {OF_KIND[kind]} of {system}"
        if told:
            text = (
                f"What a voice should not tell is read from {of}: "
                f"{'; '.join(probe.said for probe in told)}. That is {len(told)} of {len(known)} "
                f"traits; of {len(known)} that tell nothing, about {0.025 * len(known):.1f} would "
                "lie above chance by accident."
            )
            found.append(Conclusion("cannot", text, warning=True))
        if quiet:
            names = wording.joined([probe.trait for probe in quiet])
            which = f"{len(quiet)} of {len(known)} traits" if told else f"All {len(known)} traits"
            text = (
                f"{which} that are independent of the voice are read no better than chance from "
                f"{of}: {names}."
            )
            found.append(Conclusion("cannot", text))
    return found


def told_by_law(results: Results) -> list[Conclusion]:
    """Traits under a law: how much of what the true voice parameters allow was learnt."""
    tables = probed(results, SHOULD)
    allowed = {
        (kind, probe.trait, probe.statistic): probe
        for (kind, _, role), probes in tables.items()
        if role == "ceiling"
        for probe in probes
    }
    found = []
    for (kind, system, role), probes in tables.items():
        if role != "system":
            continue
        told: dict[str, list[str]] = {"can": [], "cannot": []}
        for probe in probes:
            best = allowed.get((kind, probe.trait, probe.statistic))
            if probe.record.interval is None:
                continue
            said = probe.said
            if best and best.told:
                share = (probe.record.value - probe.chance) / (best.record.value - best.chance)
                said += (
                    f", {max(share, 0):.0%}".replace("%", " %")
                    + f" of what the true voice allows ({figure_text(best.record)})"
                )
            told["can" if probe.told else "cannot"].append(said)
        of = f"the {OF_KIND[kind]} of {system}"
        if told["can"]:
            text = f"Traits under a law are read from {of}: {'; '.join(told['can'])}."
            found.append(Conclusion("can", text))
        if told["cannot"]:
            text = f"Under a law, but not read from {of}: {'; '.join(told['cannot'])}."
            found.append(Conclusion("cannot", text))
    return found


def controls(results: Results) -> list[Conclusion]:
    """What knows nothing scores chance; if not, the evaluation itself is in doubt."""
    found: list[Conclusion] = []
    for (system, kind), records in _of_the_ignorant(results).items():
        said = {True: [], False: []}
        for record in records:
            low, high = record.interval
            at_chance = low - ROUNDING <= record.chance <= high + ROUNDING
            chance = wording.chance_number(record.chance, record.measure)
            text = f"{measure_name(record.measure)} {figure_text(record)}, chance {chance}"
            said[at_chance].append(text)
        if said[False]:
            text = (
                f"The control {system} ({kind}) does not score chance: {'; '.join(said[False])}. "
                "Do not trust these figures before that is understood."
            )
            found.append(Conclusion("rests", text, warning=True))
        if said[True]:
            text = f"{system} ({kind}) scores chance, as it must: {'; '.join(said[True])}."
            found.append(Conclusion("rests", text[0].upper() + text[1:]))
    return found


def _of_the_ignorant(results: Results) -> dict[tuple[str, str], list[Record]]:
    """Figures with a chance of the systems that know nothing, by (system, kind)."""
    found: dict[tuple[str, str], list[Record]] = {}
    for table, measure in (("association", "matching_1_in_2"), *MATCHING):
        for record in results.select(table=table, measure=measure):
            name = wording.family(record.system)[1]
            ignorant = name in KNOWS_NOTHING or "shuffled" in name
            if ignorant and record.interval is not None and record.chance is not None:
                found.setdefault((record.system, record.kind), []).append(record)
    return found


def rests_on(results: Results) -> list[Conclusion]:
    """Data, teacher, labels, stand-ins and resamples, and the notes of the evaluation."""
    about = results.about
    data = about.get("dataset") or {}
    texts = []
    if data:
        split = f", split {data['split']}" if data.get("split") else ""
        counts = [
            f"{data[name]:,} {name}" for name in ("pairs", "speakers") if data.get(name) is not None
        ]
        teacher = f"; face embeddings by {data['teacher']}" if data.get("teacher") else ""
        texts.append(
            f"Data: {data.get('name', 'a data set')}{split}, {' of '.join(counts)}{teacher}."
        )
        texts += _sources(data)
    texts += [f"{said}." for said in fallback_shares(about.get("shares") or {})]
    if about.get("rounds"):
        texts.append(
            f"Brackets hold 95 % intervals: speakers drawn again {about['rounds']:,} times, with "
            f"all that is theirs (seed {about.get('seed', 0)})."
        )
    return [Conclusion("rests", text) for text in [*texts, *results.notes]]


def _sources(data: dict[str, Any]) -> list[str]:
    texts = []
    for name in ("gender", "age"):
        source = data.get(f"{name}_source")
        if source == "label":
            texts.append(f"{name.capitalize()} is what the data set states.")
        elif source == "judge":
            texts.append(f"{name.capitalize()} is what the judge reads from the original face.")
        elif source:
            texts.append(f"{name.capitalize()}: {source}.")
    if data.get("centred_by"):
        texts.append(f"Embeddings are centred by {data['centred_by']}.")
    return texts


def fallback_shares(shares: dict[str, Any], within: str = "") -> Iterator[str]:
    """How often a stand-in was measured, in words: nothing is dropped.

    Args:
        shares: name to share (0 to 1), also nested.
        within: the name of what `shares` belongs to.
    """
    for name, share in shares.items():
        name = f"{within}, {name}" if within else str(name).replace("_", " ")
        if isinstance(share, dict):
            yield from fallback_shares(share, name)
        elif isinstance(share, float | int):
            yield f"Stand-ins, {name}: {number(float(share), 'share')}"


def order_of(results: Results, one: Record, other: Record) -> int:
    """1 if one system is clearly better than another, -1 if clearly worse, else 0.

    By the interval of the paired difference where that was measured, else by whether the two
    intervals overlap.
    """
    better = -1 if wording.lower_is_better(one.measure) else 1
    for measure in (f"{one.table}: {one.measure}", one.measure):
        pair = {"table": DIFFERENCES, "kind": one.kind, "measure": measure}
        paired = _known(results, **pair, system=one.system, other=other.system)
        if paired:
            return better * sign_of(paired)
        paired = _known(results, **pair, system=other.system, other=one.system)
        if paired:
            return -better * sign_of(paired)
    return better * _order(one, other)


def sign_of(difference: Record) -> int:
    """1 or -1 where the interval of a difference leaves out 0, else 0."""
    if difference.interval is None:
        return 0
    low, high = difference.interval
    return int(low > 0) - int(high < 0)


def _order(one: Record, other: Record) -> int:
    """1 if one interval lies above another, -1 if below, 0 if they overlap."""
    return int(one.interval[0] > other.interval[1]) - int(one.interval[1] < other.interval[0])


def _above(record: Record, chance: float) -> bool:
    """Whether the whole interval lies above chance."""
    return record.interval is not None and record.interval[0] > chance


def _known(results: Results, **where: Any) -> Record | None:
    """The one record of everybody there, if it has a figure and an interval."""
    found = [r for r in results.select(**where) if r.interval is not None]
    return found[0] if len(found) == 1 else None
