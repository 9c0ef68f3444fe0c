"""Results as an evaluation of a checkpoint would find them: seeded, of both kinds, with groups."""

import numpy as np

from training.evaluation.report import Case, Pictures
from training.evaluation.results import (
    LAW_FROM_GENDER,
    LAW_FROM_GENDER_AND_AGE,
    LAW_FROM_VOICE,
    WITH_TRUTH,
    Record,
    Results,
)

PAIRS, SPEAKERS = 656, 164
GROUPS = {
    "gender": ("female", "male"),
    "age group": ("under 30", "30 to 44", "45 to 59", "60 and over"),
    "skin_tone": ("low third", "middle third", "high third"),
    "eye_colour": ("brown", "hazel", "green", "blue", "grey"),
    "hair_cut": ("shaved", "buzz", "short", "side_parted", "curly", "bob", "long", "tied_back"),
    "beard": ("none", "stubble", "moustache", "goatee", "full"),
}
# How much each system knows, 0 (nothing) to 1 (the face itself): of gender, and beyond it.
EMBEDDINGS = [
    ("constant", "floor", 0.0, 0.0),
    ("gender oracle", "floor", 0.6, 0.0),
    ("gender-and-age oracle", "floor", 0.6, 0.12),
    ("voice, 3 s", "system", 0.5, 0.05),
    ("voice, 6 s", "system", 0.55, 0.08),
    ("true embedding", "ceiling", 1.0, 1.0),
    ("another picture of the speaker", "ceiling", 0.95, 0.9),
    ("voice, 6 s, shuffled", "control", 0.0, 0.0),
    ("voice, 6 s, shuffled within the gender", "control", 0.5, 0.0),
]
FACES = [
    ("average face", "floor", 0.0, 0.0),
    ("average face of the gender", "floor", 0.6, 0.0),
    ("average face of the gender and age group", "floor", 0.6, 0.12),
    ("diffusion from voice, 3 s", "system", 0.45, 0.02),
    ("diffusion from voice, 6 s", "system", 0.5, 0.04),
    ("original", "ceiling", 1.0, 1.0),
    ("diffusion from true embedding", "ceiling", 0.9, 0.7),
]
INDEPENDENT = ("skin_tone", "african", "asian", "eye_colour", "hair_cut", "hair_colour", "beard")
LAWS = (("masculinity", 0.8, 0.9), ("age", 0.05, 0.6), ("lower_face", 0.2, 0.45))
ALLOWED = (  # what the laws allow of the true face's measurements: mean r
    (LAW_FROM_GENDER, "floor", 0.2),
    (LAW_FROM_GENDER_AND_AGE, "floor", 0.25),
    (LAW_FROM_VOICE, "ceiling", 0.35),
)
MEASUREMENTS = (
    "upper_lip_height lateral_upper_lip_heights jaw_width nose_height nose_width "
    "labio_oral_region mandibular_index intercanthal_index nasal_index vermilion_height_index "
    "mouth_face_width_index nose_area"
).split()
RESTRICTIONS = ("", "_same_gender", "_same_age_group", "_same_gender_and_age_group")


def results(seed: int = 0) -> Results:
    """About three thousand records, with charts, of a checkpoint called "demo"."""
    rng = np.random.default_rng(seed)
    found = Results(
        about={
            "command": "python -m training.evaluation --checkpoint demo --dataset data/demo_cast",
            "created": "2026-11-22",
            "versions": {"speech2face": "0.1.0", "torch": "2.13.0"},
            "seed": 0,
            "rounds": 1000,
            "dataset": {
                "name": "data/demo_cast",
                "split": "test",
                "fingerprint": "0123abcd",
                "teacher": "dlib",
                "pairs": PAIRS,
                "speakers": SPEAKERS,
                "gender_source": "label",
                "age_source": "label",
                "centred_by": "the mean face of the training split",
            },
            "checkpoints": [
                {
                    "name": "demo",
                    "fingerprint": "4567ef",
                    "decoders": ["diffusion"],
                    "steps": 6,
                    "guidance_scale": 1.5,
                }
            ],
            "shares": {
                "diffusion from voice, 6 s: no face found to align": 0.003,
                "voice, 6 s: no speech heard": 0.0,
            },
        },
        notes=["The faces are synthetic, and the laws are the cast's."],
    )
    for kind, systems in (("embeddings", EMBEDDINGS), ("faces", FACES)):
        for name, role, gender, beyond in systems:
            where = {"kind": kind, "system": name, "role": role}
            for table, figures in _figures(kind, role, gender, beyond).items():
                for measure, (value, chance) in figures.items():
                    _add(found, rng, table, measure, value, chance, where)
        _probes(found, rng, kind, "voice, 6 s" if kind == "embeddings" else systems[4][0])
    _allowed(found)
    _differences(found, rng)
    _voices(found, rng)
    found.charts = charts(rng)
    return found


def _figures(kind: str, role: str, gender: float, beyond: float) -> dict[str, dict]:
    """Value and chance of each measure, from how much a system knows."""
    knows = 0.35 * gender + 0.65 * beyond
    tables: dict[str, dict] = {
        "feature_similarity": {
            f"{name}{suffix}": (value, None)
            for suffix, most in (("_centred", 90), ("_raw", 24))
            for name, value in (
                ("angle", most * (1 - knows)),
                ("cosine", float(np.cos(np.radians(most * (1 - knows))))),
                ("l1", 12 * (1 - knows)),
                ("l2", 1.4 * (1 - knows)),
            )
        },
        "retrieval": {},
        "association": {},
    }
    for score in ("", "_l1", "_l2"):
        for gallery in ("", "_of_100"):
            for k in (1, 2, 5, 10):
                chance = k / (100 if gallery else SPEAKERS)
                value = chance + (1 - chance) * (knows**2)
                tables["retrieval"][f"recall_at_{k}{gallery}{score}"] = (value, chance)
        tables["retrieval"][f"median_rank{score}"] = (82.5 - 81.5 * knows, None)
        tables["retrieval"][f"mean_average_precision{score}"] = (0.03 + 0.97 * knows**2, 0.034)
    for restriction in RESTRICTIONS:
        of = knows if not restriction else beyond if "gender" in restriction else 0.9 * knows
        for n in (2, 5, 10):
            name = f"matching_1_in_{n}{restriction}"
            tables["association"][name] = (1 / n + (1 - 1 / n) * of, 1 / n)
        tables["association"][f"auc{restriction}"] = (0.5 + 0.5 * of, 0.5)
        tables["association"][f"eer{restriction}"] = (0.5 - 0.5 * of, 0.5)
    if kind == "embeddings":
        if role == "system":
            tables["consistency"] = {
                "within": (0.81, None),
                "between": (0.03, None),
                "between_same_gender": (0.42, None),
                "same_speaker_auc": (0.93, 0.5),
            }
        return tables
    tables["attribute_agreement"] = {
        "gender_accuracy": (0.5 + 0.48 * gender**0.5, 0.5),
        "gender_balanced_accuracy": (0.5 + 0.48 * gender**0.5, 0.5),
        "gender_accuracy_female": (0.5 + 0.45 * gender**0.5, None),
        "gender_accuracy_male": (0.5 + 0.49 * gender**0.5, None),
        "age_mae": (16 - 10 * beyond, None),
        "age_r": (0.8 * max(0, beyond - 0.04), 0.0),
        "age_group_accuracy": (0.27 + 0.4 * beyond, None),
        "age_group_balanced_accuracy": (0.25 + 0.4 * beyond, 0.25),
    }
    tables["craniofacial_correlation"] = {
        **{f"{name}_r": (0.9 * knows, None) for name in MEASUREMENTS},
        "mean_r": (0.9 * knows, None),
        "permuted_mean_r": (0.0, None),
    }
    tables["craniofacial_correlation_from_true"] = tables["craniofacial_correlation"]
    tables[WITH_TRUTH] = tables["craniofacial_correlation"]
    if role == "system" or role == "ceiling" and beyond < 1:  # what a decoder made
        tables["identity_kept"] = {"identity_cosine": (0.70, None)}
        tables["kernel_distance"] = {"kernel_distance": (0.0123, None)}
    return tables


def _add(found, rng, table, measure, value, chance, where) -> None:
    scale = {"angle": 4.0, "median_rank": 8.0, "age_mae": 1.2}
    width = next((w for name, w in scale.items() if measure.startswith(name)), 0.03)
    width = 0.002 if "kernel" in measure else width

    def record(by=None, group=None, of=1.0):
        moved = value + (rng.normal(0, width / 3) if by else 0.0)
        half = width / np.sqrt(of)
        found.records.append(
            Record(
                table=table,
                measure=measure,
                value=float(moved),
                interval=(float(moved - half), float(moved + half)),
                speakers=max(5, int(SPEAKERS * of)),
                samples=max(20, int(PAIRS * of)),
                chance=chance,
                by=by,
                group=group,
                **where,
            )
        )

    record()
    if measure in ("cosine_centred", "recall_at_10", "auc", "auc_same_gender", "mean_r", "age_r"):
        for by, groups in GROUPS.items():
            for group in groups:
                record(by, group, 1 / len(groups))


def _probes(found: Results, rng, kind: str, system: str) -> None:
    def add(table, trait, name, role, value, chance):
        number = trait in ("skin_tone", "african", "asian", *(law for law, _, _ in LAWS))
        measure = f"{trait}_r" if number else f"{trait}_balanced_accuracy"
        interval = (value - 0.08, value + 0.08)
        found.records.append(
            Record(table, kind, name, role, measure, value, interval, SPEAKERS, PAIRS, chance)
        )

    for trait in INDEPENDENT:
        chance = 0.0 if trait in ("skin_tone", "african", "asian") else 0.25
        value = chance + float(rng.uniform(-0.04, 0.04))
        add("what_the_voice_should_not_tell", trait, system, "system", value, chance)
        add(
            "what_the_voice_should_not_tell", trait, f"true {kind}", "ceiling", chance + 0.5, chance
        )
    for trait, learnt, allowed in LAWS:
        add("what_it_should", trait, system, "system", learnt, 0.0)
        if kind == "embeddings":
            add("what_it_should", trait, "true embedding", "ceiling", 0.95, 0.0)
            add("what_it_should", trait, "true voice parameters", "ceiling", allowed, 0.0)


def _allowed(found: Results) -> None:
    for name, role, r in ALLOWED:
        for measure in (*(f"{name}_r" for name in MEASUREMENTS), "mean_r"):
            interval = (r - 0.05, r + 0.05)
            found.records.append(
                Record(WITH_TRUTH, "faces", name, role, measure, r, interval, SPEAKERS, PAIRS, 0.0)
            )


def _differences(found: Results, rng) -> None:
    for kind, one, other in (
        ("embeddings", "voice, 6 s", "gender-and-age oracle"),
        ("embeddings", "voice, 6 s", "voice, 3 s"),
        ("faces", "diffusion from voice, 6 s", "average face of the gender and age group"),
    ):
        for mine in found.select(kind=kind, system=one):
            theirs = found.select(kind=kind, system=other, table=mine.table, measure=mine.measure)
            if not theirs:
                continue
            value = mine.value - theirs[0].value
            width = mine.interval[1] - mine.interval[0]
            found.records.append(
                Record(
                    "differences",
                    kind,
                    one,
                    "system",
                    f"{mine.table}: {mine.measure}",
                    value,
                    (value - width / 3, value + width / 3),
                    SPEAKERS,
                    PAIRS,
                    other=other,
                )
            )


def _voices(found: Results, rng) -> None:
    for table, measure, value in (
        ("diversity", "relative_distance", 0.98),
        ("diversity", "distance", 0.61),
        ("voices", "gender_accuracy_male", 0.869),
        ("voices", "gender_accuracy_female", 0.859),
        ("voices", "age_mean_male", 29.8),
        ("voices", "age_mean_female", 28.9),
        ("voices", "relative_distance", 0.98),
        ("voices", "skin_deviation", 0.99),
        ("voices", "face_found", 0.997),
    ):
        half = 0.02 * value
        found.records.append(
            Record(
                table,
                "faces",
                "diffusion from voice",
                "system",
                measure,
                value,
                (value - half, value + half),
                40,
                160,
            )
        )


def charts(rng) -> dict:
    """What the charts are drawn from, for the systems above."""
    drawn: dict = {"recall": [], "roc": [], "angles": [], "confusions": [], "craniofacial": []}
    k = np.unique(np.round(np.geomspace(1, 100, 30)).astype(int))
    edges = np.linspace(0, 180, 61)
    for kind, systems in (("embeddings", EMBEDDINGS), ("faces", FACES)):
        for name, role, gender, beyond in systems:
            knows = 0.35 * gender + 0.65 * beyond
            which = {"system": name, "role": role, "kind": kind}
            chance = k / SPEAKERS
            recall = 1 - (1 - chance) ** (1 + 20 * knows**2)
            curve = {"k": k.tolist(), "recall": recall.tolist(), "chance": chance.tolist()}
            drawn["recall"].append({**which, "gallery": SPEAKERS, **curve})
            for restriction, of in (("", knows), ("same_gender", beyond)):
                x = np.linspace(0, 1, 120)
                y = x ** (1 - 0.95 * of)
                drawn["roc"].append(
                    {
                        **which,
                        "restriction": restriction,
                        "false_positive": x.tolist(),
                        "true_positive": y.tolist(),
                        "auc": 0.5 + 0.5 * of,
                    }
                )
            angles = np.clip(rng.normal(90 * (1 - knows), 12, PAIRS), 0, 180)
            counts = np.histogram(angles, edges)[0]
            drawn["angles"].append({**which, "edges": edges.tolist(), "counts": counts.tolist()})
    for name, _, gender, beyond in FACES[3:7]:
        right = 0.5 + 0.48 * gender
        drawn["confusions"].append(
            {
                "attribute": "gender",
                "system": name,
                "classes": ["female", "male"],
                "counts": np.round(
                    328 * np.array([[right, 1 - right], [1 - right, right]])
                ).tolist(),
            }
        )
        ages = rng.integers(5, 60, (4, 4)) + np.diag([int(200 * beyond)] * 4)
        classes = list(GROUPS["age group"])
        drawn["confusions"].append(
            {"attribute": "age group", "system": name, "classes": classes, "counts": ages.tolist()}
        )
    for measurement in MEASUREMENTS:
        one = rng.normal(10, 2, SPEAKERS)
        other = 0.3 * one + rng.normal(0, 1.5, SPEAKERS)
        drawn["craniofacial"].append(
            {
                "measurement": measurement,
                "r": float(np.corrcoef(one, other)[0, 1]),
                "p": 0.0004,
                "one": one.tolist(),
                "other": other.tolist(),
                "system": "diffusion from voice, 6 s",
            }
        )
    gender = rng.choice(["female", "male"], PAIRS)
    drawn["tsne"] = {
        "x": (rng.normal(0, 6, PAIRS) + np.where(gender == "male", 14, -14)).tolist(),
        "y": rng.normal(0, 12, PAIRS).tolist(),
        "gender": gender.tolist(),
        "age": rng.uniform(18, 80, PAIRS).tolist(),
        "system": "voice, 6 s",
    }
    return drawn


def pictures(seed: int = 0, size: int = 64) -> Pictures:
    """Ovals in colours: no person's."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5

    def face() -> np.ndarray:
        inside = (x / 0.32) ** 2 + (y / 0.42) ** 2 < 1
        image = np.full((size, size, 3), rng.integers(60, 200, 3), np.uint8)
        image[inside] = rng.integers(90, 240, 3)
        return image

    cases = [
        Case(title, face(), {"diffusion": face()}, {"diffusion": face()}, similarity)
        for title, similarity in (
            ("best", 0.81),
            ("median", 0.42),
            ("worst", -0.35),
            ("random 1", 0.51),
            ("random 2", 0.22),
        )
    ]
    return Pictures(cases, [("random 1", face(), face()), ("random 2", face(), face())])
