"""Intervals over speakers, against SciPy and cases worked out by hand."""

import json

import numpy as np
import pytest
from scipy import stats

from training.measures.resampling import SpeakerBootstrap


def test_a_speakers_samples_stay_together():
    # Ten speakers with a hundred equal samples each are ten observations, not a thousand.
    values = np.repeat(np.arange(10.0), 100)
    figure = SpeakerBootstrap(np.repeat(np.arange(10), 100), rounds=4000).mean(values)
    alone = stats.bootstrap((np.arange(10.0),), np.mean, n_resamples=4000, method="percentile")
    assert figure.value == 4.5 and figure.speakers == 10 and figure.samples == 1000
    assert figure.interval == pytest.approx(tuple(alone.confidence_interval), abs=0.15)


def test_a_group_is_measured_on_its_rows_alone_and_may_be_empty():
    bootstrap = SpeakerBootstrap(["a", "a", "b", "c"])
    kept = np.array([True, False, True, False])
    figure = bootstrap.mean(np.array([1.0, np.nan, 3.0, np.nan]), kept)
    assert figure.value == 2 and figure.speakers == 2 and figure.samples == 2
    nobody = bootstrap.mean(np.ones(4), np.zeros(4, bool))
    assert nobody.to_json() == {
        "value": None,
        "interval": None,
        "speakers": 0,
        "samples": 0,
        "chance": None,
    }
    json.dumps(nobody.to_json(), allow_nan=False)


@pytest.mark.parametrize("speakers", [1, 2])
def test_one_speaker_or_two_have_a_figure_and_no_interval(speakers):
    who, values = np.array([0, 0, 1, 2, 3]), np.array([1.0, 3.0, 5.0, 7.0, 9.0])
    bootstrap, kept = SpeakerBootstrap(who), who < speakers
    few = bootstrap.mean(values, kept)
    assert few.value == values[kept].mean() and few.interval is None
    assert few.minus(bootstrap.mean(values)).interval is None
    assert bootstrap.mean(values).interval is not None
    assert bootstrap.mean(np.ones(5), kept, share=True).interval == pytest.approx(
        (0.025 ** (1 / speakers), 1)
    )


def test_a_family_is_drawn_as_one():
    # Forty speakers in ten families whose members are alike are ten observations, not forty.
    families = np.repeat(np.arange(10), 4)
    values = families.astype(float)
    together = SpeakerBootstrap(range(40), rounds=2000, families=families)
    alone = SpeakerBootstrap(range(10), rounds=2000)
    figure = together.mean(values)
    assert figure.speakers == 40 and figure.value == 4.5
    assert figure.replicates == pytest.approx(alone.mean(np.arange(10.0)).replicates)
    agreed = together.mean(np.ones(40), share=True)
    assert agreed.interval == alone.mean(np.ones(10), share=True).interval
    by_themselves = SpeakerBootstrap(range(40), rounds=50, families=range(40))
    assert np.array_equal(by_themselves.counts, SpeakerBootstrap(range(40), rounds=50).counts)
    with pytest.raises(ValueError, match="of two families"):
        SpeakerBootstrap([0, 0, 1], families=["a", "b", "b"])


def test_pairs_of_one_family_count_as_often_as_it():
    values = np.arange(16.0).reshape(4, 4) * (1 - np.eye(4))
    bootstrap = SpeakerBootstrap(range(4), rounds=20, families=list("aabc"))
    for counts, total in zip(bootstrap.counts, bootstrap.over_pairs(values), strict=True):
        weights = np.outer(counts, counts)
        weights[0, 1] = weights[1, 0] = counts[0]
        assert total == pytest.approx((weights * values).sum())


def test_a_sample_without_a_value_is_not_dropped_in_silence():
    with pytest.raises(ValueError, match="without a value"):
        SpeakerBootstrap(["a", "b"]).mean(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="expected 2 values"):
        SpeakerBootstrap(["a", "b"]).mean(np.ones(3))
    with pytest.raises(ValueError, match="nobody"):
        SpeakerBootstrap([])


def test_forty_who_agree_are_not_a_certainty():
    bootstrap = SpeakerBootstrap(range(40))
    assert bootstrap.mean(np.ones(40)).interval == (1, 1)
    figure = bootstrap.mean(np.ones(40), share=True)
    assert figure.interval == pytest.approx((0.025 ** (1 / 40), 1))
    nobody = bootstrap.mean(np.zeros(40), share=True)
    assert nobody.interval == pytest.approx((0, 1 - 0.025 ** (1 / 40)))


def test_correlation_is_scipys_and_its_interval_covers():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(300)
    y = 0.5 * x + rng.standard_normal(300)
    figure = SpeakerBootstrap(range(300), rounds=3000).correlation(x + 1e4, y)
    r = stats.pearsonr(x, y)
    assert figure.value == pytest.approx(r.statistic, abs=1e-9)
    assert figure.interval == pytest.approx(tuple(r.confidence_interval()), abs=0.03)
    assert SpeakerBootstrap(range(5)).correlation(np.ones(5), np.arange(5)).interval is None


def test_median_is_that_of_the_repeated_rows():
    values, speakers = np.array([5.0, 1, 9, 3]), ["a", "b", "b", "c"]
    bootstrap = SpeakerBootstrap(speakers, rounds=50)
    figure = bootstrap.median(values)
    repeated = [
        np.median(np.repeat(values, c[bootstrap.index].astype(int))) for c in bootstrap.counts
    ]
    assert figure.value == 4 and figure.replicates == pytest.approx(repeated)


def test_any_statistic_sees_weights():
    values = np.array([1.0, 2, 10])
    bootstrap = SpeakerBootstrap(["a", "b", "c"])
    figure = bootstrap.statistic(lambda weights: float(weights @ values / weights.sum()))
    assert figure.replicates == pytest.approx(bootstrap.mean(values).replicates)


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    hard = 10 * rng.standard_normal(100)  # some speakers are hard for both
    bootstrap = SpeakerBootstrap(range(100))
    one, other = bootstrap.mean(hard), bootstrap.mean(hard + 0.1 * rng.standard_normal(100) + 0.5)
    low, high = other.minus(one).interval
    assert 0.4 < low < 0.5 < high < 0.6
    with pytest.raises(ValueError, match="one SpeakerBootstrap"):
        one.minus(SpeakerBootstrap(range(100), rounds=10).mean(hard))
