"""Probes find what is there, and call chance what is not, in as many cases as they claim."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from training.measures import probes
from training.measures.probes import probe_class, probe_number
from training.measures.resampling import SpeakerBootstrap

PEOPLE = np.repeat(np.arange(60), 3)


def crowd(seed: int):
    """Sixty people of three rows; features tell gender and age, and nothing else."""
    rng = np.random.default_rng(seed)
    gender, age = rng.choice(["female", "male"], 60), rng.uniform(20, 80, 60)
    features = rng.standard_normal((60, 12))
    features[:, 0] += 3 * (gender == "male")
    features[:, 1] += age / 10
    rows = features[PEOPLE] + 0.3 * rng.standard_normal((180, 12))
    return rng, rows, gender[PEOPLE], age[PEOPLE]


def bootstrap(seed: int = 0) -> SpeakerBootstrap:
    return SpeakerBootstrap(PEOPLE, rounds=200, seed=seed)


def holds(figure, chance: float) -> bool:
    low, high = figure.interval
    return low <= chance <= high


def test_a_number_that_is_there_is_found():
    rng, rows, _, age = crowd(0)
    figure = probe_number(bootstrap(), rows, age, PEOPLE)["r"]
    assert figure.chance == 0 and figure.interval[0] > 0.6
    assert figure.speakers == 60 and figure.samples == 180


def test_a_class_that_is_there_is_found():
    _, rows, gender, _ = crowd(0)
    figure = probe_class(bootstrap(), rows, gender, PEOPLE)["balanced_accuracy"]
    assert figure.chance == 0.5 and figure.interval[0] > 0.75


def test_what_is_not_there_is_at_chance():
    rs, shares, held = [], [], {"r": 0, "share": 0, "within": 0, "above": 0, "class": 0}
    for seed in range(24):
        rng, rows, gender, age = crowd(seed)
        noise = rng.standard_normal(60)[PEOPLE]
        kind = rng.choice(["a", "b", "b"], 60)[PEOPLE]
        resamples = bootstrap(seed)
        r = probe_number(resamples, rows, noise, PEOPLE)["r"]
        share = probe_class(resamples, rows, kind, PEOPLE)["balanced_accuracy"]
        rs.append(r.value), shares.append(share.value - 0.5)
        held["r"] += holds(r, 0)
        held["share"] += holds(share, 0.5)
        # A number and a class that go with gender and age, and with nothing else.
        number = noise + 2 * (gender == "male") + 0.002 * (age - 40) ** 2
        within = probe_number(resamples, rows, number, PEOPLE, [gender, age])
        held["within"] += holds(within["r"], 0)
        held["above"] += holds(within["above_covariates"], 0)
        beard = np.where((gender == "male") & (kind == "b"), "beard", "none")
        compared = probe_class(resamples, rows, beard, PEOPLE, [gender, age])
        held["class"] += holds(compared["above_covariates"], 0)
    # 95 % of 24 is 23; fewer than 19 happen less than once in 500 runs.
    assert min(held.values()) >= 19, held
    for biases in (rs, shares):
        assert abs(np.mean(biases)) < 3 * np.std(biases) / np.sqrt(len(biases))


def test_what_only_follows_from_gender_is_told_apart_from_what_does_not():
    rng, rows, gender, age = crowd(1)
    lip = rows[:, 2] + 4 * (gender == "male")  # the features tell it within the genders, too
    jaw = rng.standard_normal(60)[PEOPLE] + 4 * (gender == "male")  # only through gender
    resamples, equal = bootstrap(), [gender, age]
    assert probe_number(resamples, rows, jaw, PEOPLE)["r"].interval[0] > 0.3
    assert holds(probe_number(resamples, rows, jaw, PEOPLE, equal)["r"], 0)
    told = probe_number(resamples, rows, lip, PEOPLE, equal)
    assert told["r"].interval[0] > 0.5 and told["above_covariates"].interval[0] > 0
    assert told["from_covariates"].value > 0.6
    big = np.where(rows[:, 2] + (gender == "male") > 0.5, "big", "small")
    told = probe_class(resamples, rows, big, PEOPLE, equal)
    assert told["above_covariates"].interval[0] > 0
    assert told["balanced_accuracy"].chance == told["from_covariates"].value
    difference = told["balanced_accuracy"].value - told["from_covariates"].value
    assert told["above_covariates"].value == pytest.approx(difference)


def test_the_ridge_is_scikit_learns():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 5)), rng.standard_normal((2, 30, 3))
    y[1] += 3 * x[:, :3]
    slopes = probes._ridge(x, y, 1)

    def gcv(strength: float, outputs: np.ndarray) -> float:
        hat = x @ np.linalg.solve(x.T @ x + strength * np.eye(5), x.T)
        return np.sum((outputs - hat @ outputs) ** 2) / (29 - np.trace(hat)) ** 2

    for fitted, outputs in zip(slopes, y, strict=True):
        best = min(probes.STRENGTHS, key=lambda strength: gcv(strength, outputs))  # noqa: B023
        expected = Ridge(alpha=best, fit_intercept=False).fit(x, outputs).coef_.T
        assert fitted == pytest.approx(expected)


def test_nobody_is_in_two_folds_and_classes_are_dealt_alike():
    kinds = np.repeat(["a", "b"], [40, 20])[PEOPLE]
    folds = probes._deal(PEOPLE, kinds, seed=0)
    assert all(len(set(folds[PEOPLE == person])) == 1 for person in range(60))
    assert set(folds) == set(range(10))
    assert all((kinds[folds == fold] == "b").sum() == 6 for fold in range(10))


def test_unknown_rows_and_rare_classes_take_no_part():
    rng, rows, gender, age = crowd(0)
    kind = np.where(PEOPLE < 5, "rare", np.where(PEOPLE % 2, "odd", "even")).astype(object)
    kind[PEOPLE == 59] = ""
    assert probes.classes_probed(kind, PEOPLE) == ("even", "odd")
    figure = probe_class(bootstrap(), rows, kind, PEOPLE)["balanced_accuracy"]
    assert figure.speakers == 54 and figure.chance == 0.5
    target = np.where(PEOPLE < 10, np.nan, age)
    unknown = np.where(PEOPLE == 30, "", gender)
    figures = probe_number(bootstrap(), rows, target, PEOPLE, [unknown])
    assert figures["r"].speakers == 49
    mixed = np.stack([gender.astype(object), age.astype(object)], axis=1)
    one = probe_number(bootstrap(), rows, rows[:, 2], PEOPLE, mixed)["r"]
    other = probe_number(bootstrap(), rows, rows[:, 2], PEOPLE, [gender, age])["r"]
    assert one.value == other.value


def test_too_few_people_have_no_figure():
    rng, rows, gender, age = crowd(0)
    few = PEOPLE < 19
    for figures in (
        probe_number(bootstrap(), rows, age, PEOPLE, [gender], few),
        probe_class(bootstrap(), rows, gender, PEOPLE, [age], few),
        probe_number(bootstrap(), rows, np.ones(180), PEOPLE),
        probe_class(bootstrap(), rows, np.full(180, "one"), PEOPLE),
    ):
        assert all(figure.to_json()["interval"] is None for figure in figures.values())
    with pytest.raises(ValueError, match="one row each"):
        probe_number(bootstrap(), rows[:5], age, PEOPLE)


@pytest.mark.parametrize("families", [1, 3, 19])
def test_a_few_families_teach_nothing(families):
    _, rows, gender, age = crowd(0)
    kin = PEOPLE % families
    resamples = SpeakerBootstrap(kin, rounds=20)
    number = probe_number(resamples, rows, age, PEOPLE, [gender], families=kin)
    kind = probe_class(resamples, rows, gender, PEOPLE, families=kin)
    for figure in (number | kind).values():
        assert figure.to_json()["value"] is None and figure.samples == 180
