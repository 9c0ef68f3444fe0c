"""Figures in words: what a measure is called, in which unit it is read, and which way is better.

Report and cards print through these functions alone, so that one figure reads the same everywhere.
"""

import re
from dataclasses import dataclass

from training.evaluation.results import WITH_TRUTH, Record

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EM DASH}"  # nobody was there to measure

RESTRICTIONS = {
    "": "among everybody",
    "same_gender": "among one gender",
    "same_age_group": "among one age group",
    "same_gender_and_age_group": "among one gender and age group",
}
TITLES = {
    "feature_similarity": "Feature similarity",
    "retrieval": "Retrieval",
    "association": "Association",
    "consistency": "Consistency over recordings of one speaker",
    "attribute_agreement": "Gender and age, as the judge reads them",
    "craniofacial_correlation": "Craniofacial correlation with the original",
    "craniofacial_correlation_from_true": "Craniofacial correlation with the face decoded from "
    "the true embedding",
    WITH_TRUTH: "Craniofacial correlation with the true face",
    "identity_kept": "Identity kept by the decoder",
    "diversity": "Diversity among the faces of one voice",
    "kernel_distance": "Kernel distance to the original faces",
    "voices": "Recordings without a face",
    "what_the_voice_should_not_tell": "What the voice should not tell",
    "what_it_should": "What the voice should tell",
    "differences": "Differences",
}
EXPLAINED = {
    "feature_similarity": "How near the embedding lies to that of the speaker's face. Raw cosines "
    "are high for everybody, because face embeddings share a large mean: read the centred ones.",
    "retrieval": "How often the speaker's face is among the first k of a gallery with one face a "
    "speaker. Ties count as the expected place.",
    "association": "Whether a voice's embedding is nearer to the speaker's face than to another "
    "person's: matching 1 of n, the area under the ROC curve, the equal error rate. Within one "
    "gender, or one gender and age group, the easy part of the answer is taken away.",
    "consistency": "How alike the predictions from several recordings are: of one speaker "
    "(within), of different ones (between).",
    "attribute_agreement": "An independent network looks at the image alone.",
    "craniofacial_correlation": "Pearson's r of twelve facial measurements with those of the "
    "speaker's own face.",
    "craniofacial_correlation_from_true": "Pearson's r of twelve facial measurements with those of "
    "the face that the same decoder makes of the true embedding, as the paper measures it.",
    WITH_TRUTH: "Pearson's r of twelve facial measurements, read from the faces, with those of the "
    "person's true face (frontal, neutral; the cast's geometry knows its landmarks). Beside them, "
    "what the cast's laws allow: a probe predicts the true measurements, of people it never saw "
    "(of the training split, too), from gender, from gender and age, and from the true parameters "
    "of the voice. The last is what the best listener could reach.",
    "identity_kept": "Centred cosine between the embedding that the decoder was asked for and that "
    "of its image.",
    "diversity": "Distance among several faces of one voice, against that between different "
    "persons of that gender: 1 where a voice leaves as much open as persons differ.",
    "kernel_distance": "Squared maximum mean discrepancy on the teacher's features (KID's kernel); "
    "0 for faces that are distributed as the originals are.",
    "voices": "Faces decoded for speakers whose own face nobody knows: the judge's gender against "
    "the label, and how much the faces of one voice differ, where a decoder makes several.",
    "what_the_voice_should_not_tell": "A probe tries to read each trait that is independent of the "
    "voice by construction. Nothing should be read above chance: where it is, something leaks.",
    "what_it_should": "A probe reads each trait that a law ties to the voice, beside a probe from "
    "the true parameters of the voice.",
    "differences": "One system minus others, on the same resampled speakers. Better or worse is "
    "what leaves out 0; nothing is said of the rest.",
}
EXPLAINED_OF = {  # where a kind needs other words
    ("feature_similarity", "faces"): "How near the embedding of the face lies to that of the "
    "speaker's own face, both as the recogniser sees them. Read the centred figures: raw cosines "
    "are high for everybody.",
    ("retrieval", "faces"): "How often the speaker's own face is among the first k of a gallery of "
    "original faces, one a speaker, asked with the face of the row. Ties count as the expected "
    "place.",
    ("association", "faces"): "Whether the face is nearer to the speaker's own than to another "
    "person's: matching 1 of n, the area under the ROC curve, the equal error rate. Within one "
    "gender, or one gender and age group, the easy part of the answer is taken away.",
    ("voices", "embeddings"): "Recordings whose speaker's face nobody knows: how alike the "
    "embeddings predicted from them are, of one speaker (within) and of different ones (between).",
}
# What the report shows first; everything else stands below it.
HEADLINES = {
    "feature_similarity": ("angle_centred", "cosine_centred", "cosine_raw"),
    "retrieval": ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank"),
    "association": ("matching_1_in_2", "auc", "auc_same_gender", "auc_same_gender_and_age_group"),
    "consistency": ("within", "between", "between_same_gender", "same_speaker_auc"),
    "attribute_agreement": (
        "gender_balanced_accuracy",
        "gender_accuracy_male",
        "gender_accuracy_female",
        "age_mae",
        "age_r",
    ),
    "craniofacial_correlation": ("mean_r", "permuted_mean_r"),
    "craniofacial_correlation_from_true": ("mean_r", "permuted_mean_r"),
    WITH_TRUTH: ("mean_r", "permuted_mean_r"),
    "identity_kept": ("identity_cosine",),
    "diversity": ("relative_distance", "distance", "skin_deviation"),
    "kernel_distance": ("kernel_distance", "real_halves"),
    "voices": (
        "gender_accuracy_male",
        "gender_accuracy_female",
        "relative_distance",
        "skin_deviation",
        "face_found",
        "within",
        "between",
        "same_speaker_auc",
    ),
}
KIND_TITLES = {"embeddings": "Embeddings with embeddings", "faces": "Faces with faces"}
ROLE_ORDER = ("floor", "system", "ceiling", "control")

_PERCENT = re.compile(
    r"recall_at_|matching_1_in_|accuracy|mean_average_precision|face_found|eer|share"
)
_LOWER = re.compile(r"angle|l1|l2|median_rank|mae|eer|kernel_distance")
_SUFFIXES = (  # (pattern, words), longest first
    (r"_same_gender_and_age_group$", ", same gender and age group"),
    (r"_same_age_group$", ", same age group"),
    (r"_same_gender$", ", same gender"),
    (r"_centred$", ", centred"),
    (r"_raw$", ", raw"),
    (r"_l1$", ", by L1"),
    (r"_l2$", ", by L2"),
)
_NAMES = (
    (r"^recall_at_(\d+)_of_(\d+)$", lambda m: f"R@{m[1]} of {int(m[2]):,}"),
    (r"^recall_at_(\d+)$", lambda m: f"R@{m[1]}"),
    (r"^matching_1_in_(\d+)$", lambda m: f"matching 1 of {m[1]}"),
    (r"^auc$", lambda m: "AUC"),
    (r"^same_speaker_auc$", lambda m: "same-speaker AUC"),
    (r"^eer$", lambda m: "equal error rate"),
    (r"^mean_average_precision$", lambda m: "mAP"),
    (r"^(l1|l2)$", lambda m: m[1].upper()),
    (r"^age_r$", lambda m: "age, r"),
    (r"^age_mae$", lambda m: "age, mean error"),
    (r"^(.*)_balanced_accuracy$", lambda m: f"{_plain(m[1])}, balanced"),
    (r"^(.*)_accuracy$", lambda m: f"{_plain(m[1])}, right"),
    (r"^(.*)_accuracy_(.+)$", lambda m: f"{_plain(m[1])}, {people(m[2])}"),
    (r"^age_mean_(.+)$", lambda m: f"mean age, {people(m[1])}"),
    (r"^permuted_mean_r$", lambda m: "mean r, persons permuted"),
    (r"^mean_r$", lambda m: "mean r"),
    (r"^(.*)_r$", lambda m: _plain(m[1])),
    (r"^identity_cosine$", lambda m: "cosine with the condition"),
    (r"^relative_distance$", lambda m: "distance, relative"),
    (r"^kernel_distance$", lambda m: "kernel distance × 1,000"),
    (r"^real_halves$", lambda m: "between halves of the originals × 1,000"),
    (r"^skin_deviation$", lambda m: "skin tone's spread, relative"),
)


@dataclass(frozen=True)
class Unit:
    """How a measure's numbers are written.

    Attributes:
        factor: the number is multiplied by this.
        decimals: after the point.
        sign: what follows, with its space.
    """

    factor: float = 1
    decimals: int = 2
    sign: str = ""


PERCENT, PLAIN = Unit(100, 1, " %"), Unit()


def unit_of(measure: str) -> Unit:
    """In which unit a measure is read; a difference's, "table: measure", like its measure's."""
    name = _bare(measure)
    if _PERCENT.search(name):
        return Unit(100, 1, " %")
    if name.startswith("angle"):
        return Unit(1, 1, "°")
    if name.startswith(("age_mae", "age_mean")):
        return Unit(1, 1, " years")
    if name.startswith("median_rank"):
        return Unit(1, 1)
    if name in ("kernel_distance", "real_halves"):
        return Unit(1000, 2)  # as their names say
    # the differences of what lies between 0 and 1 are small, but may be clear
    return Unit(1, 3) if ": " in measure else Unit()


def lower_is_better(measure: str) -> bool:
    """Whether a smaller number is the better one."""
    name = _bare(measure)
    return bool(_LOWER.search(name)) and not re.match(r"(recall|mean_average)", name)


def number(value: float | None, measure: str, unit: Unit | None = None) -> str:
    """A number as its measure is read, "86.9 %", "−0.03"; a dash for None.

    Args:
        value: the number.
        measure: what it measures.
        unit: another unit than the measure's.
    """
    if value is None:
        return NONE
    unit = unit or unit_of(measure)
    return _digits(value * unit.factor, unit.decimals) + unit.sign


def chance_number(value: float, measure: str) -> str:
    """The same for chance, with as many decimals as show that it is not nothing."""
    of = unit_of(measure)
    scaled = value * of.factor
    text = _digits(scaled, of.decimals)
    if scaled and not float(text.replace(MINUS, "-")):
        text = f"{scaled:.1g}".replace("-", MINUS)
    return text + of.sign


def interval_text(record: Record, unit: Unit | None = None) -> str:
    """Its ends, "[79.4, 93.1]", or nothing where there is no interval."""
    if record.interval is None:
        return ""
    unit = unit or unit_of(record.measure)
    low, high = (_digits(end * unit.factor, unit.decimals) for end in record.interval)
    return f"[{low}, {high}]"


def figure_text(record: Record, unit: Unit | None = None) -> str:
    """A record's figure with its interval: "86.9 % [79.4, 93.1]"; see `number`."""
    figure = number(record.value, record.measure, unit)
    return f"{figure} {interval_text(record, unit)}".strip()


def measure_name(measure: str) -> str:
    """What a measure is called: "recall_at_10_of_100" is "R@10 of 100"."""
    name, said = _bare(measure), ""
    for pattern, words in _SUFFIXES:
        if re.search(pattern, name) and not re.fullmatch(r"between_same_gender", name):
            name, said = re.sub(pattern, "", name), words + said
    for pattern, words in _NAMES:
        if match := re.match(pattern, name):
            return words(match) + said
    return _plain(name) + said


def slug(text: str) -> str:
    """A name as an anchor or an identifier of the Hub."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def family(system: str) -> tuple[str, str]:
    """("demo", "voice, 6 s") of "demo: voice, 6 s"; ("", ...) of what belongs to no checkpoint."""
    name, colon, rest = system.partition(": ")
    return (name, rest) if colon else ("", system)


def explained(table: str, kind: str) -> str:
    """What a table of a kind measures, in a sentence or two."""
    return EXPLAINED_OF.get((table, kind), EXPLAINED.get(table, ""))


_CALLED = {  # systems that are not called by their name in a sentence
    "gender oracle": "an oracle that is told the gender",
    "gender-and-age oracle": "an oracle that is told gender and age group",
    "average face": "the average face",
    "average face of the gender": "the average face of the gender",
    "average face of the gender and age group": "the average face of the gender and age group",
    "another picture of the speaker": "another picture of the speaker",
    "true embedding": "the true embedding",
    "original": "the original faces",
    "constant": "the constant",
}
_MAKES = {"diffusion": "faces", "normalized": "normalized faces"}  # by decoder


def called(system: str) -> str:
    """What a system is called in a sentence; its name in quotes where there is no better word.

    "demo: voice, 6 s" is "the embedding that “demo” predicts from 6 s of voice".
    """
    name, bare = family(system)
    if bare in _CALLED and not name:
        return _CALLED[bare]
    quoted = f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}"
    if name and bare == "faces":
        return f"the faces of {quoted}"
    match = re.fullmatch(
        r"(?:(.+) from )?(voice|true embedding)(?:, ([\d.]+) s)?(, shuffled.*)?", bare
    )
    if not match:
        return f"\N{LEFT DOUBLE QUOTATION MARK}{system}\N{RIGHT DOUBLE QUOTATION MARK}"
    decoder, source, seconds, shuffled = match.groups()
    heard = (
        f"{seconds} s of voice" if seconds else "voice" if source == "voice" else f"the {source}"
    )
    made, makes = "embedding", "predicts"
    if decoder:
        made, makes = _MAKES.get(decoder, "faces"), "decodes"
    said = f"that {quoted} {makes}" if name else "decoded" if decoder else "predicted"
    said = f"the {made} {said} from {heard}"
    if decoder and decoder not in _MAKES:
        said += f" by {decoder}"
    return said + (shuffled or "")


def joined(words: list[str]) -> str:
    """Words as a list in a sentence."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _bare(measure: str) -> str:
    """A difference's measure is named with its table, "retrieval: recall_at_10"."""
    return measure.split(": ")[-1]


def _digits(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    if not float(text):
        text = text.lstrip("-")  # there is no less than nothing
    return text.replace("-", MINUS)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def people(name: str) -> str:
    """ "men" for "male", "women" for "female", any other group by its own name."""
    return {"male": "men", "female": "women"}.get(name, _plain(name))
