"""The twelve measurements on landmarks placed by hand, and their correlation against SciPy."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from training.measures import craniofacial
from training.measures.craniofacial import MEASUREMENTS
from training.measures.resampling import SpeakerBootstrap

PLACED = {
    1: (20, 90),  # cheekbones 180 apart
    15: (200, 90),
    4: (40, 160),  # jaw 140 wide
    12: (180, 160),
    8: (110, 220),  # chin
    36: (50, 80),  # eyes 120 over all, 40 between
    39: (90, 80),
    42: (130, 80),
    45: (170, 80),
    27: (110, 80),  # nose 50 high and 30 wide
    31: (95, 120),
    32: (102, 130),
    33: (110, 130),
    34: (118, 130),
    35: (125, 120),
    48: (80, 160),  # mouth 60 wide, open by 10
    54: (140, 160),
    49: (95, 150),
    53: (125, 154),
    51: (110, 146),
    62: (110, 154),
    66: (110, 164),
    57: (110, 174),
}


def face() -> np.ndarray:
    landmarks = np.zeros((1, 68, 2))
    for number, point in PLACED.items():
        landmarks[0, number] = point
    return landmarks


def test_measurements_of_a_face_placed_by_hand():
    measured = dict(zip(MEASUREMENTS, craniofacial.measure(face())[0], strict=True))
    # nose: the triangle to the wings, 30 x 40 / 2, and the trapeze below, (30 + 16) x 10 / 2
    assert measured == pytest.approx(
        {
            "upper_lip_height": 24,
            "lateral_upper_lip_heights": 32,
            "jaw_width": 140,
            "nose_height": 50,
            "nose_width": 30,
            "labio_oral_region": 60,
            "mandibular_index": 56 / 140,
            "intercanthal_index": 40 / 120,
            "nasal_index": 30 / 50,
            "vermilion_height_index": 8 / 10,
            "mouth_face_width_index": 60 / 180,
            "nose_area": 600 + 230,
        }
    )


def test_indices_do_not_grow_with_the_face_and_lengths_do():
    once, twice = craniofacial.measure(face())[0], craniofacial.measure(face() * 2)[0]
    for name, a, b in zip(MEASUREMENTS, once, twice, strict=True):
        assert b / a == pytest.approx(1 if "index" in name else 4 if "area" in name else 2)


def test_bad_landmarks_are_refused():
    with pytest.raises(ValueError, match="expected landmarks"):
        craniofacial.measure(np.zeros((3, 5, 2)))
    with pytest.raises(ValueError, match="no numbers"):
        craniofacial.measure(np.full((1, 68, 2), np.nan))
    collapsed = craniofacial.measure(np.zeros((1, 68, 2)))  # dlib's points can coincide
    assert np.isfinite(collapsed).all()


def test_correlations_are_scipys_and_faces_exchanged_have_none():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((200, 12))
    other = one + rng.standard_normal((200, 12))
    bootstrap = SpeakerBootstrap(range(200), rounds=200)
    figures = craniofacial.craniofacial_correlation(bootstrap, one, other)
    p = craniofacial.p_values(one, other)
    for column, name in enumerate(MEASUREMENTS):
        expected = pearsonr(one[:, column], other[:, column])
        assert figures[f"{name}_r"].value == pytest.approx(expected.statistic)
        assert p[name] == pytest.approx(expected.pvalue)
    rs = [figures[f"{name}_r"] for name in MEASUREMENTS]
    assert figures["mean_r"].value == pytest.approx(np.mean([r.value for r in rs]))
    assert figures["mean_r"].replicates == pytest.approx(np.mean([r.replicates for r in rs], 0))
    low, high = figures["permuted_mean_r"].interval
    assert low < 0 < high and high < 0.1 < figures["mean_r"].interval[0]


def test_only_whole_persons_of_the_group_are_exchanged():
    speakers = np.array([0, 0, 1, 2, 2, 2, 3])
    kept = speakers != 3
    bootstrap = SpeakerBootstrap(speakers, rounds=2)
    partners = craniofacial._another_persons(bootstrap, kept)
    for person in range(3):
        (theirs,) = set(speakers[partners[speakers == person]])
        assert theirs not in (person, 3)


def test_one_person_has_nobody_to_exchange_faces_with():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((6, 12))
    figures = craniofacial.craniofacial_correlation(SpeakerBootstrap([0] * 6), one, one)
    assert figures["mean_r"].value == pytest.approx(1)
    assert figures["permuted_mean_r"].to_json()["value"] is None


def test_what_does_not_vary_has_no_figure():
    bootstrap = SpeakerBootstrap(range(4), rounds=5)
    flat = craniofacial.craniofacial_correlation(bootstrap, np.ones((4, 12)), np.ones((4, 12)))
    assert flat["jaw_width_r"].to_json()["value"] is None
    assert np.isnan(craniofacial.p_values(np.ones((4, 12)), np.ones((4, 12)))["jaw_width"])


def people_of(seed: int, told: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (300, 4), measurements (300, 12) of which these tell r = `told`, speakers (300,)."""
    rng = np.random.default_rng(seed)
    speakers = np.repeat(np.arange(150), 2)
    features = rng.standard_normal((150, 4))
    directions = rng.standard_normal((12, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    own = rng.standard_normal((150, 12))
    measured = told * features @ directions.T + np.sqrt(1 - told**2) * own
    return features[speakers], measured[speakers], speakers


def test_what_features_tell_of_a_face_is_recovered():
    features, measured, speakers = people_of(0, told=0.7)
    bootstrap = SpeakerBootstrap(speakers, rounds=300)
    figures = craniofacial.predictable(bootstrap, features, measured, speakers)
    assert set(figures) == {*(f"{name}_r" for name in MEASUREMENTS), "mean_r"}
    mean = figures["mean_r"]
    # A probe of 150 people loses a little: 0.68 on the mean of many such crowds.
    assert mean.value == pytest.approx(0.68, abs=0.04) and mean.chance == 0
    assert mean.interval[0] < 0.68 < mean.interval[1] and mean.speakers == 150
    rs = [figures[f"{name}_r"] for name in MEASUREMENTS]
    assert mean.value == pytest.approx(np.mean([r.value for r in rs]))
    assert all(r.interval[0] > 0.4 for r in rs)


def test_features_that_tell_nothing_of_a_face_are_at_chance():
    values, held = [], 0
    for seed in range(8):
        features, measured, speakers = people_of(seed, told=0.0)
        bootstrap = SpeakerBootstrap(speakers, rounds=200, seed=seed)
        mean = craniofacial.predictable(bootstrap, features, measured, speakers)["mean_r"]
        values.append(mean.value)
        held += mean.interval[0] < 0 < mean.interval[1]
    assert abs(np.mean(values)) < 0.03 and held >= 7


def test_relatives_do_not_teach_a_probe_each_others_faces():
    rng = np.random.default_rng(0)
    families = np.repeat(np.arange(40), 5)  # of five members, whose faces are as alike as voices
    features, measured = rng.standard_normal((40, 40)), rng.standard_normal((40, 12))
    features, measured = features[families], measured[families]
    members, alone = np.arange(200), SpeakerBootstrap(np.arange(200), rounds=50)
    assert craniofacial.predictable(alone, features, measured, members)["mean_r"].value > 0.5
    together = SpeakerBootstrap(families, rounds=50)
    kept = craniofacial.predictable(together, features, measured, members, families)["mean_r"]
    assert kept.interval[0] < 0 < kept.interval[1]


def test_a_few_families_allow_no_figure():
    features, measured, speakers = people_of(0, told=0.7)
    kin = speakers % 10
    bootstrap = SpeakerBootstrap(kin, rounds=20)
    figures = craniofacial.predictable(bootstrap, features, measured, speakers, kin)
    assert all(figure.to_json()["value"] is None for figure in figures.values())
