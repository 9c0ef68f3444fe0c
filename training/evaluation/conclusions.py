"""What an evaluation says in words: each sentence follows from its figures by a rule written here.

A rule looks at intervals alone: what an interval touches is not claimed to be otherwise. Where the
paired difference of two systems was measured, it decides; else two intervals that overlap are
called level.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from training.evaluation import wording
from training.evaluation.results import (
    DIFFERENCES,
    KINDS,
    LAW_FROM_GENDER_AND_AGE,
    LAW_FROM_VOICE,
    SHOULD,
    SHOULD_NOT,
    WITH_TRUTH,
    Record,
    Results,
)
from training.evaluation.wording import called, figure_text, measure_name, number

GENDER_AND_AGE_FLOORS = {
    "embeddings": "gender-and-age oracle",
    "faces": "average face of the gender and age group",
}
KNOWS_NOTHING = ("constant", "average face")  # must score chance, as shuffled voices must
ROUNDING = 1e-9  # an interval without width may miss its chance by so much
MATCHING = (("association", "auc"), ("retrieval", "recall_at_10"))
WITHIN_GENDER = (("association", "auc_same_gender"), ("association", "matching_1_in_2_same_gender"))
APART = (DIFFERENCES, SHOULD_NOT, SHOULD)  # tables with a form of their own
TRUE_VOICE = "true voice parameters"  # the probe that shows how much a law allows
HARDLY = 0.6  # an AUC whose interval ends below this is called hardly better than chance
NEARLY = 0.9  # of the distance between persons is called nearly as much
A_LITTLE = 0.5  # less than half of what the true voice allows is called a little
# What the Hub shows of a checkpoint: a few figures that stand for the rest.
CARD_FIGURES = (
    ("embeddings", "retrieval", "recall_at_10"),
    ("embeddings", "association", "auc"),
    ("embeddings", "association", "auc_same_gender"),
    ("faces", "attribute_agreement", "gender_balanced_accuracy"),
    ("faces", "attribute_agreement", "age_r"),
    ("faces", "association", "auc"),
    ("faces", "voices", "gender_accuracy_male"),
    ("faces", "voices", "gender_accuracy_female"),
)
FEW_SPEAKERS = 30  # fewer are an anecdote


@dataclass(frozen=True)
class Conclusion:
    """A sentence or two that the figures bear out.

    Attributes:
        part: "can", "cannot" or "rests" (what the figures rest on).
        claim: what is said, in a short sentence.
        text: the figures that it follows from, each with its interval.
        warning: something is wrong with the evaluation or the model: shown first, and in bold.
    """

    part: str
    claim: str
    text: str
    warning: bool = False


def conclude(results: Results) -> list[Conclusion]:
    """All that can be said, the sharper findings first; warnings before everything."""
    found: list[Conclusion] = []
    for system in main_systems(results, "faces"):
        found += gender_is_read(results, system)
    found += unseen_voices(results)
    for rule in (against_the_oracle, tells_apart_within_gender):
        for kind in KINDS:
            for system in main_systems(results, kind):
                found += rule(results, kind, system)
    for system in main_systems(results, "faces"):
        found += age_is_read(results, system)
    for system in main_systems(results, "faces"):
        found += follows_the_true_face(results, system)
    found += told_by_law(results)
    for kind in KINDS:
        for system in main_systems(results, kind):
            found += share_of_the_ceiling(results, kind, system)
    for rule in (identity_and_diversity, not_told, controls, few_speakers, rests_on):
        found += rule(results)
    return sorted(found, key=lambda conclusion: not conclusion.warning)


def by_claim(conclusions: Sequence[Conclusion]) -> list[tuple[str, list[Conclusion]]]:
    """Conclusions under their claims, each claim once, in the order of their first ones."""
    found: dict[str, list[Conclusion]] = {}
    for place, conclusion in enumerate(conclusions):
        alone = f"{place}" if not conclusion.claim else ""  # what claims nothing stands alone
        found.setdefault(conclusion.claim or alone, []).append(conclusion)
    return [(said[0].claim, said) for said in found.values()]


def as_markdown(conclusions: Sequence[Conclusion]) -> list[str]:
    """What stands behind the dash of each item: a claim, and a line of its own for each of several.

    Args:
        conclusions: of one part.
    """
    items = []
    for claim, said in by_claim(conclusions):
        head = f"**{claim}**" if claim else ""
        if len(said) == 1:
            items.append(f"{head} {said[0].text}".strip())
        else:
            items.append("\n".join([head, *(f"  - {one.text}" for one in said)]))
    return items


def main_systems(results: Results, kind: str, table: str | None = None) -> list[str]:
    """The systems of a kind that hear a voice, each with the longest speech that it was given.

    Args:
        results: what was found.
        kind: "embeddings" or "faces".
        table: where they are looked for; everywhere but among recordings without a face and
            differences if None.
    """
    longest: dict[str, tuple[float, str]] = {}
    where = {"table": table} if table else {}
    for record in results.select(kind=kind, role="system", **where):
        if not table and record.table in (*APART, "diversity", "voices"):
            continue
        match = re.search(r", (\d+(?:\.\d+)?) s$", record.system)
        bare = record.system[: match.start()] if match else record.system
        seconds = float(match[1]) if match else 0.0
        if bare not in longest or seconds > longest[bare][0]:
            longest[bare] = (seconds, record.system)
    return [name for _, name in longest.values()]


def headline_records(results: Results) -> list[Record]:
    """The figures that cards show of the systems that hear a voice: of everybody, and known."""
    return [
        record
        for kind in KINDS
        for table, measures in wording.HEADLINES.items()
        for system in main_systems(results, kind, table)
        for measure in measures
        for record in results.select(table=table, kind=kind, system=system, measure=measure)
        if record.value is not None and record.interval is not None
    ]


def card_records(results: Results) -> list[Record]:
    """The few of `headline_records` that the Hub lists of a checkpoint."""
    return [
        record
        for record in headline_records(results)
        if (record.kind, record.table, record.measure) in CARD_FIGURES
    ]


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
    def below(self) -> bool:
        """Whether the whole interval lies below chance: no more is read, but it is not chance."""
        return self.record.interval is not None and self.record.interval[1] < self.chance

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
        text = f"{_begun(system)}: men and women balanced {figure_text(balanced)}, chance 50 %."
        return [Conclusion("cannot", "Gender is not read from the faces.", text)]
    better = {1: "men are read better than women", -1: "women are read better than men"}.get(
        _order(men, women), "the two do not clearly differ"
    )
    text = (
        f"{_begun(system)}: the judge reads men as men in {figure_text(men)} and women as women "
        f"in {figure_text(women)}; {better}."
    )
    return [Conclusion("can", "Gender is read from the faces.", text)]


def age_is_read(results: Results, system: str) -> list[Conclusion]:
    """Whether the judge's age of a system's faces goes with the speaker's.

    Where it does not, but a probe finds age in the embedding that the faces are made of, both are
    said in one place; and what the judge makes of the original faces is said beside it.
    """
    where = {"table": "attribute_agreement", "kind": "faces", "measure": "age_r"}
    r = _known(results, **where, system=system)
    if not r:
        return []
    error = _known(results, **(where | {"measure": "age_mae"}), system=system)
    text = f"{_begun(system)}: r = {figure_text(r)}"
    text += f", mean error {figure_text(error)}" if error else ""
    original = _known(results, **where, system="original")
    if original and (results.about.get("dataset") or {}).get("age_source") != "judge":
        text += f"; of the original faces the judge reads it with r = {figure_text(original)}"
    if _above(r, 0.0):
        return [Conclusion("can", "Age is read from the faces.", f"{text}.")]
    claim = "Age is not read from the faces."
    probe = _age_in_the_embedding(results, system)
    if probe:
        share = _share_of_the_allowed(results, probe)
        little = share is None or share < A_LITTLE
        claim = (
            f"Age is not read from the faces; the embedding knows {'a little' if little else 'it'}."
        )
        text += f". {_begun(probe.record.system)}: a probe finds age with r = "
        text += figure_text(probe.record)
        text += f", {_percent(share)} of what the true voice allows" if share is not None else ""
    return [Conclusion("cannot", claim, f"{text}.")]


def _age_in_the_embedding(results: Results, faces: str) -> Probed | None:
    """The probe that finds age in the embedding which a system's faces are made of, if it does."""
    family = wording.family(faces)[0]
    for (kind, system, role), probes in probed(results, SHOULD).items():
        if kind != "embeddings" or role != "system" or wording.family(system)[0] != family:
            continue
        if wording.family(faces)[1] == "faces":
            continue  # of a folder: nobody knows of which embedding they are made
        for probe in probes:
            if probe.trait == "age" and probe.statistic == "r" and probe.told:
                return probe
    return None


def _share_of_the_allowed(results: Results, probe: Probed) -> float | None:
    """How much a probe finds of what one on the true voice parameters does; None if unknown."""
    for (_, system, _), probes in probed(results, SHOULD).items():
        for best in probes if system == TRUE_VOICE else ():
            if (best.trait, best.statistic) == (probe.trait, probe.statistic) and best.told:
                reached = probe.record.value - probe.chance
                return max(0.0, reached / (best.record.value - best.chance))
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def tells_apart_within_gender(results: Results, kind: str, system: str) -> list[Conclusion]:
    """Whether anything but gender (and age) tells a speaker's face from another's."""
    where = {"table": "association", "kind": kind, "system": system}
    everybody = _known(results, **where, measure="auc")
    same = _known(results, **where, measure="auc_same_gender")
    both = _known(results, **where, measure="auc_same_gender_and_age_group")
    if not (everybody and same):
        return []
    text = (
        f"{_begun(system)}: AUC {figure_text(same)} among one gender, against "
        f"{figure_text(everybody)} among everybody"
    )
    if both:
        text += f"; with the age group held equal, too, {figure_text(both)}"
    if _above(same, 0.5):
        how = "hardly better" if same.interval[1] < HARDLY else "better"
        claim = f"Within one gender it tells speakers apart {how} than chance."
        return [Conclusion("can", claim, f"{text}.")]
    return [Conclusion("cannot", "Within one gender it does not tell speakers apart.", f"{text}.")]


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
            figures = f"{figure_text(own)} against {figure_text(told)}"
            verdicts.append((order, f"{word} in {measure_name(measure)} ({figures})"))
    if not verdicts:
        return []
    orders = {order for order, _ in verdicts}
    claim = {
        frozenset({1}): "It knows more than gender and age.",
        frozenset({0}): "It knows no more than gender and age would tell.",
        frozenset({-1}): "Being told gender and age would be better than hearing the voice.",
    }.get(frozenset(orders), "It is not better in everything than being told gender and age.")
    text = (
        f"{_begun(system)}, against {called(floor)}: "
        f"{wording.joined([said for _, said in verdicts])}."
    )
    return [Conclusion("can" if orders == {1} else "cannot", claim, text)]


def follows_the_true_face(results: Results, system: str) -> list[Conclusion]:
    """How far the measurements of a system's faces go with the true ones, and how far any could."""
    own, law = (_mean_r(results, name) for name in (system, LAW_FROM_VOICE))
    if not own:
        return []
    text = (
        f"{_begun(system)}: r = {figure_text(own)} with the true face, the mean of twelve "
        f"measurements.{_reachable(results, system)}"
    )
    order = _order(own, law) if law else None
    if order == 1:
        text += " Something gives the answer away."
        claim = "The faces follow the true ones more closely than the law allows."
        return [Conclusion("rests", claim, text, True)]
    if not _above(own, 0.0):
        claim = "The measurements of the faces do not follow the true ones."
        return [Conclusion("cannot", claim, text)]
    how = {-1: ", less than the law allows", 0: ", and the law does not clearly allow more"}
    claim = f"The measurements of the faces follow the true ones{how.get(order, '')}."
    return [Conclusion("can", claim, text)]


def _reachable(results: Results, system: str) -> str:
    """What the law allows of the true face, and what is read of it from faces that know it."""
    allowed = [
        f"{whom} {figure_text(record)}"
        for whom, name in (
            ("a listener", LAW_FROM_VOICE),
            ("whoever is told gender and age", LAW_FROM_GENDER_AND_AGE),
        )
        if (record := _mean_r(results, name))
    ]
    reached = [
        f"{called(name)} reach {figure_text(record)}"
        for name in (ceiling_of(results, "faces", system), "original")
        if name and (record := _mean_r(results, name))
    ]
    text = f" The law allows {wording.joined(allowed)}." if allowed else ""
    return text + (f" Read alike, {wording.joined(reached)}." if reached else "")


def _mean_r(results: Results, system: str) -> Record | None:
    where = {"table": WITH_TRUTH, "kind": "faces", "measure": "mean_r"}
    return _known(results, **where, system=system)


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
                f"{_begun(system)}, {measure_name(measure)}: {figure_text(own)} against "
                f"{figure_text(best)} of {called(ceiling)}. Something gives the answer away."
            )
            found.append(Conclusion("rests", "A system scores above its ceiling.", text, True))
        share = (own.value - best.chance) / (best.value - best.chance)
        parts.append(
            f"{_percent(max(share, 0))} in {measure_name(measure)} "
            f"({figure_text(own)} of {figure_text(best)})"
        )
    if not parts:
        return found
    text = f"{_begun(system)}, held against {called(ceiling)}: {wording.joined(parts)}."
    claim = "How far it gets on the way from chance to its ceiling."
    return [*found, Conclusion("cannot", claim, text)]


def ceiling_of(results: Results, kind: str, system: str) -> str | None:
    """The ceiling that a system is held against.

    Faces against what the same decoder makes of the true embedding; embeddings against another
    picture of the speaker, or the true embedding where each speaker has a single picture.
    """
    names = dict.fromkeys(record.system for record in results.select(kind=kind, role="ceiling"))
    family, bare = wording.family(system)
    if kind == "faces" and bare == "faces":  # of a folder; its ceiling is one, too
        folders = [name for name in names if wording.family(name)[1] == bare]
        return folders[0] if len(folders) == 1 else None
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
            f"{_begun(women.system)}, {women.speakers + men.speakers} speakers: the judge reads "
            f"the labelled gender right for men in {figure_text(men)} and for women in "
            f"{figure_text(women)}; {better}."
        )
        if _above(men, 0.5) and _above(women, 0.5):
            claim = "Gender is read from the faces of recordings without a face, too."
            found.append(Conclusion("can", claim, text))
        else:
            claim = "On recordings without a face, gender is not read for both men and women."
            found.append(Conclusion("cannot", claim, text))
    return found


def identity_and_diversity(results: Results) -> list[Conclusion]:
    """What the decoder keeps of what it is asked for, and how much the faces of a voice differ."""
    found = []
    for record in results.select(table="identity_kept", measure="identity_cosine", kind="faces"):
        if record.role == "ceiling" and record.interval is not None:
            text = (
                f"{_begun(record.system)}: the image keeps a centred cosine of "
                f"{figure_text(record)} with the embedding that was asked for; all would be 1."
            )
            part = "can" if _above(record, 0.0) else "cannot"
            found.append(Conclusion(part, "What the decoder keeps of an embedding.", text))
    main = main_systems(results, "faces", "diversity")
    for record in results.select(table="diversity", measure="relative_distance", kind="faces"):
        if record.interval is not None and record.system in main:
            text = (
                f"{_begun(record.system)}: {figure_text(record)} of the distance between "
                "different persons of that gender."
            )
            much = record.value >= NEARLY
            how = "as much as" if record.interval[1] >= 1 else "nearly as much as" if much else ""
            claim = f"The faces of one voice differ {how or 'less than'} persons do."
            found.append(Conclusion("can" if how else "cannot", claim, text))
    return found


def not_told(results: Results) -> list[Conclusion]:
    """Traits that are independent of the voice: none above chance, or a warning."""
    found, below = [], []
    alike: dict[str, list[str]] = {}  # of what is said, who it is said of
    claim = "It does not tell what a voice cannot tell."
    for (_, system, role), probes in probed(results, SHOULD_NOT).items():
        if role != "system":
            continue
        known = [probe for probe in probes if probe.record.interval is not None]
        told = [probe for probe in known if probe.told]
        quiet = [probe for probe in known if not probe.told]
        if told:
            text = (
                f"{_begun(system)}: {'; '.join(probe.said for probe in told)}. That is "
                f"{len(told)} of {len(known)} traits; of {len(known)} that tell nothing, about "
                f"{0.025 * len(known):.1f} would lie above chance by accident."
            )
            found.append(
                Conclusion("cannot", "What a voice should not tell is NOT at chance.", text, True)
            )
        if quiet:
            which = (
                f"{len(quiet)} of {len(known)} traits not"
                if told
                else f"none of {len(known)} traits"
            )
            names = wording.joined([probe.trait for probe in quiet])
            alike.setdefault(f"{which} above chance: {names}.", []).append(called(system))
        if under := [probe.said for probe in quiet if probe.below]:
            text = (
                f"{_begun(system)}, below chance: {'; '.join(under)}. Of {len(known)} that tell "
                f"nothing, about {0.025 * len(known):.1f} would lie there by accident."
            )
            below.append(Conclusion("cannot", claim, text))
    for text, systems in alike.items():
        found.append(Conclusion("cannot", claim, f"{_capital(wording.joined(systems))}, {text}"))
    return found + below


def told_by_law(results: Results) -> list[Conclusion]:
    """Traits under a law: how much of what the true voice parameters allow was learnt."""
    tables = probed(results, SHOULD)
    found = []
    for (_, system, role), probes in tables.items():
        if role != "system":
            continue
        told: dict[str, list[str]] = {"can": [], "cannot": []}
        for probe in probes:
            if probe.record.interval is None:
                continue
            said = probe.said
            share = _share_of_the_allowed(results, probe)
            if share is not None:
                said += f", {_percent(share)} of what the true voice allows"
            told["can" if probe.told else "cannot"].append(said)
        for part, claim in (
            ("can", "Laws of the cast that it has learnt."),
            ("cannot", "Laws of the cast that it has not learnt."),
        ):
            if told[part]:
                text = f"{_begun(system)}: {'; '.join(told[part])}."
                found.append(Conclusion(part, claim, text))
    return found


def controls(results: Results) -> list[Conclusion]:
    """What knows nothing scores no better than chance; if it does, the evaluation is in doubt."""
    found: list[Conclusion] = []
    for (system, _), records in _of_the_ignorant(results).items():
        said: dict[bool, list[str]] = {True: [], False: []}
        for record in records:
            chance = wording.chance_number(record.chance, record.measure)
            text = f"{measure_name(record.measure)} at {figure_text(record)} (chance {chance})"
            said[_above(record, record.chance + ROUNDING)].append(text)
        if said[True]:
            text = (
                f"{_begun(system)}: {'; '.join(said[True])}. Do not trust these figures "
                "before that is understood."
            )
            claim = "What knows nothing does NOT score chance."
            found.append(Conclusion("rests", claim, text, warning=True))
        if said[False]:
            text = f"{_begun(system)}: {'; '.join(said[False])}."
            found.append(Conclusion("rests", "What knows nothing scores no better.", text))
    return found


def _of_the_ignorant(results: Results) -> dict[tuple[str, str], list[Record]]:
    """Figures with a chance of the systems that know nothing, by (system, kind).

    What was shuffled within the gender still knows that, and must be at chance within it alone.
    """
    found: dict[tuple[str, str], list[Record]] = {}
    for record in results.select():
        name = wording.family(record.system)[1]
        if name not in KNOWS_NOTHING and "shuffled" not in name:
            continue
        table, measure = record.table, record.measure
        of_gender = name.endswith("within the gender")
        asked = WITHIN_GENDER if of_gender else (("association", "matching_1_in_2"), *MATCHING)
        if (table, measure) in asked and record.interval is not None and record.chance is not None:
            found.setdefault((record.system, record.kind), []).append(record)
    return found


def few_speakers(results: Results) -> list[Conclusion]:
    """A warning where so few speakers were measured that most figures can show nothing."""
    count = (results.about.get("dataset") or {}).get("speakers")
    if count is None or count >= FEW_SPEAKERS:
        return []
    text = (
        f"{count} speakers: what is not clear among so few may still be there, and what looks "
        "clear may be an accident. Measure more before concluding anything."
    )
    return [Conclusion("rests", "Too few speakers for conclusions.", text, warning=True)]


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
    texts += fallback_shares(about.get("shares") or {})
    if about.get("rounds"):
        drawn = data.get("drawn_together", "speakers")
        if drawn != "speakers":  # as many members of the cast speak with one
            drawn += ", with everybody who speaks with them,"
        texts.append(
            f"Brackets hold 95 % intervals: {drawn} drawn again {about['rounds']:,} times, with "
            f"all that is theirs (seed {about.get('seed', 0)})."
        )
    return [Conclusion("rests", "", text) for text in [*texts, *results.notes]]


def _sources(data: dict[str, Any]) -> list[str]:
    texts = []
    said = {
        "label": "what the data set states",
        "judge": "what the judge reads from the original face",
    }
    sources = {name: data.get(f"{name}_source") for name in ("gender", "age")}
    if sources["gender"] == sources["age"] and sources["age"] in said:
        texts.append(f"Gender and age are {said[sources['age']]}.")
    else:
        for name, source in sources.items():
            if source:
                be = f" is {said[source]}" if source in said else f": {source}"
                texts.append(f"{name.capitalize()}{be}.")
    if data.get("centred_by"):
        texts.append(f"Embeddings are centred by {data['centred_by']}.")
    return texts


def fallback_shares(shares: dict[str, Any]) -> list[str]:
    """How often a stand-in was measured, in a sentence: nothing is dropped.

    Args:
        shares: name to share, 0 to 1, also nested.
    """
    known = dict(_flat(shares))
    if not known:
        return []
    some = [f"{name} {number(share, 'share')}" for name, share in known.items() if share]
    if not some:
        return ["No stand-in was measured: every instrument found what it looked for."]
    text = "Nothing is dropped; where something was missing, a stand-in was measured: "
    text += "; ".join(some)
    return [text + ("; for all else, none." if len(some) < len(known) else ".")]


def _flat(shares: dict[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    for name, share in shares.items():
        name = f"{within}, {name}" if within else str(name)
        if isinstance(share, dict):
            yield from _flat(share, name)
        elif isinstance(share, float | int):
            yield name.replace("_", " "), float(share)


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


def _begun(system: str) -> str:
    """What a system is called where a sentence begins."""
    return _capital(called(system))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _known(results: Results, **where: Any) -> Record | None:
    """The one record of everybody there, if it has a figure and an interval."""
    found = [r for r in results.select(**where) if r.interval is not None]
    return found[0] if len(found) == 1 else None
