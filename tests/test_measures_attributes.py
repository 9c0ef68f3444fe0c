"""Gender and age read from faces, against scikit-learn and cases counted by hand."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from training.measures import attributes
from training.measures.resampling import SpeakerBootstrap

GENDERS = ("female", "male")


@pytest.fixture
def crowd():
    rng = np.random.default_rng(0)
    truth = np.resize(["female", "male", "male"], 60)
    read = np.where(rng.random(60) < 0.8, truth, "female")
    return SpeakerBootstrap(np.arange(60) // 2, rounds=50), truth, read


def test_ages_fall_into_their_groups():
    ages = np.array([9, 29.9, 30, 44.9, 45, 59, 60, 95, np.nan])
    names = ["under 30"] * 2 + ["30 to 44"] * 2 + ["45 to 59"] * 2 + ["60 and over"] * 2 + [""]
    assert attributes.age_group(ages).tolist() == names
    assert attributes.decade([12, 20, 69, 71, np.nan]).tolist() == [
        "under 20",
        "20 to 29",
        "60 to 69",
        "70 and over",
        "",
    ]


def test_confusion_is_scikit_learns_and_leaves_the_unknown_out(crowd):
    _, truth, read = crowd
    counts = attributes.confusion(truth, read, ("male", "female"))
    assert (counts == confusion_matrix(truth, read, labels=["male", "female"])).all()
    truth = truth.copy()
    truth[0] = ""
    assert attributes.confusion(truth, read, GENDERS).sum() == 59
    with pytest.raises(ValueError, match="'woman' is none of the classes female, male"):
        attributes.confusion(["male"], ["woman"], GENDERS)


def test_agreement_is_scikit_learns_on_every_resample(crowd):
    bootstrap, truth, read = crowd
    figures = attributes.class_agreement(bootstrap, truth, read, GENDERS, "gender")
    assert figures["gender_accuracy"].value == pytest.approx((truth == read).mean())
    men = truth == "male"
    assert figures["gender_accuracy_male"].value == pytest.approx((read[men] == "male").mean())
    balanced = figures["gender_balanced_accuracy"]
    assert balanced.chance == 0.5
    assert balanced.value == pytest.approx(balanced_accuracy_score(truth, read))
    for counts, replicate in zip(bootstrap.counts[:10], balanced.replicates[:10], strict=True):
        weights = counts[bootstrap.index]
        expected = balanced_accuracy_score(truth, read, sample_weight=weights)
        assert replicate == pytest.approx(expected)


def test_a_group_of_one_class_and_a_class_with_nobody(crowd):
    bootstrap, truth, read = crowd
    figures = attributes.class_agreement(bootstrap, truth, read, GENDERS, "g", truth == "male")
    assert figures["g_balanced_accuracy"].chance is None  # of one class, nothing is to be told
    assert figures["g_balanced_accuracy"].value == figures["g_accuracy"].value
    assert figures["g_accuracy_female"].to_json()["value"] is None


def test_all_right_is_not_a_certainty():
    truth = np.repeat(GENDERS, [10, 30])
    bootstrap = SpeakerBootstrap(range(40), rounds=20)
    figure = attributes.balanced_accuracy(bootstrap, truth, truth)
    assert figure.value == 1
    assert figure.interval == pytest.approx((0.025 ** (1 / 20), 1))


def test_age_agreement():
    truth, read = np.array([20.0, 40, 50, 70, np.nan]), np.array([26.0, 44, 50, 50, 33])
    bootstrap = SpeakerBootstrap(range(5), rounds=20)
    figures = attributes.age_agreement(bootstrap, truth, read)
    assert figures["age_mae"].value == pytest.approx(7.5) and figures["age_mae"].samples == 4
    assert figures["age_r"].value == pytest.approx(np.corrcoef(truth[:4], read[:4])[0, 1])
    assert figures["age_group_accuracy"].value == 0.75
    assert figures["age_group_balanced_accuracy"].chance == 0.25
    assert figures["age_group_accuracy_60_and_over"].value == 0
    with pytest.raises(ValueError, match="no age read"):
        attributes.age_agreement(bootstrap, read, truth)
