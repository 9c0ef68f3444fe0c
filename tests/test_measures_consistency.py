"""Consistency over recordings against sums over every pair, and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.measures.consistency import consistency
from training.measures.resampling import SpeakerBootstrap
from training.measures.similarity import unit

SPEAKERS = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 2, 3, 4, 1, 2, 3, 4])
GENDERS = np.where(SPEAKERS % 2, "female", "male")


def recordings() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((12, 6))[SPEAKERS] + rng.standard_normal((len(SPEAKERS), 6))


def by_pairs(cosines: np.ndarray, weights: np.ndarray, same_gender: bool):
    """within and between, a speaker and a pair of speakers at a time."""
    within, between, count, pairs = 0.0, 0.0, 0.0, 0.0
    for s in range(12):
        rows = np.flatnonzero(SPEAKERS == s)
        if len(rows) > 1:
            some = [cosines[i, j] for i in rows for j in rows if i != j]
            within, count = within + weights[s] * np.mean(some), count + weights[s]
        for t in range(12):
            if s != t and not (same_gender and (s - t) % 2):
                weight = weights[s] * weights[t]
                between += weight * cosines[rows][:, SPEAKERS == t].mean()
                pairs += weight
    return within / count, between / pairs


def test_means_and_their_replicates_are_those_over_all_pairs():
    units = unit(recordings())
    bootstrap = SpeakerBootstrap(SPEAKERS, rounds=30)
    figures = consistency(bootstrap, 3 * units, SPEAKERS, GENDERS)
    for name, same_gender in (("between", False), ("between_same_gender", True)):
        expected = by_pairs(units @ units.T, np.ones(12), same_gender)
        assert (figures["within"].value, figures[name].value) == pytest.approx(expected)
        drawn = [by_pairs(units @ units.T, c, same_gender) for c in bootstrap.counts]
        replicates = np.stack([figures["within"].replicates, figures[name].replicates], 1)
        assert replicates == pytest.approx(np.asarray(drawn))
    assert figures["within"].speakers == 10 and figures["between"].speakers == 12


def test_auc_is_scikit_learns_over_pairs_of_recordings():
    units = unit(recordings())
    figures = consistency(SpeakerBootstrap(SPEAKERS), units, SPEAKERS, GENDERS)
    upper = np.triu(np.ones((len(units), len(units)), bool), 1)
    same = SPEAKERS[:, None] == SPEAKERS
    for suffix, some in (("", upper), ("_same_gender", upper & (GENDERS[:, None] == GENDERS))):
        expected = roc_auc_score(same[some], (units @ units.T)[some])
        figure = figures[f"same_speaker_auc{suffix}"]
        assert figure.value == pytest.approx(expected) and figure.chance == 0.5
        low, high = figure.interval
        assert low < expected < high


def test_one_recording_a_speaker_has_nothing_within():
    figures = consistency(SpeakerBootstrap(range(9)), np.eye(9), np.arange(9))
    assert figures["within"].to_json()["value"] is None
    assert figures["same_speaker_auc"].to_json()["value"] is None
    assert figures["between"].value == 0 and set(figures) == {
        "within",
        "between",
        "same_speaker_auc",
    }


def test_a_constant_tells_nobody_apart():
    for constant in (np.zeros((len(SPEAKERS), 4)), np.ones((len(SPEAKERS), 4))):
        figures = consistency(SpeakerBootstrap(SPEAKERS), constant, SPEAKERS, GENDERS)
        assert figures["same_speaker_auc"].value == 0.5
        assert figures["within"].value == pytest.approx(figures["between"].value)


def test_unknown_genders_and_groups():
    units, bootstrap = unit(recordings()), SpeakerBootstrap(SPEAKERS)
    unknown = np.where(SPEAKERS < 6, GENDERS, "")
    figures = consistency(bootstrap, units, SPEAKERS, unknown)
    few = SPEAKERS < 6
    alone = consistency(SpeakerBootstrap(SPEAKERS[few]), units[few], SPEAKERS[few], GENDERS[few])
    for name in ("between_same_gender", "same_speaker_auc_same_gender"):
        assert figures[name].value == pytest.approx(alone[name].value)
    group = consistency(bootstrap, units, SPEAKERS, GENDERS, kept=few)
    for name, figure in alone.items():
        assert group[name].value == pytest.approx(figure.value), name
    one = consistency(bootstrap, units, SPEAKERS, GENDERS, kept=SPEAKERS == 4)
    assert one["within"].value is not None and one["between"].to_json()["value"] is None
    with pytest.raises(ValueError, match="in their order"):
        consistency(bootstrap, units, SPEAKERS[::-1])
