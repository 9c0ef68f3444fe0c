"""Similarity of embeddings against cases worked out by hand."""

import numpy as np
import pytest

from training.measures.means import means
from training.measures.resampling import SpeakerBootstrap
from training.measures.similarity import (
    angle_histogram,
    centroid_direction,
    cosines,
    feature_similarity,
    unit,
)

PREDICTED = np.array([[2.0, 0], [0, 3], [1, 1], [0, 0]])
ACTUAL = np.array([[5.0, 0], [4, 0], [1, 0], [1, 0]])


def test_by_hand():
    figures = feature_similarity(SpeakerBootstrap(range(4)), PREDICTED, ACTUAL, suffix="_raw")
    values = {name: figure.value for name, figure in figures.items()}
    half = np.sqrt(0.5)
    assert values == {
        "angle_raw": pytest.approx((0 + 90 + 45 + 90) / 4),  # a zero vector is at right angles
        "cosine_raw": pytest.approx((1 + 0 + half + 0) / 4),
        "l1_raw": pytest.approx((0 + 2 + 1 - half + half + 1) / 4),
        "l2_raw": pytest.approx((0 + np.sqrt(2) + np.hypot(1 - half, half) + 1) / 4),
    }


def test_a_group_and_its_interval_over_speakers():
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(30), 4)
    one, other = rng.standard_normal((2, 120, 8))
    bootstrap = SpeakerBootstrap(speakers)
    kept = speakers < 20
    figure = feature_similarity(bootstrap, one, other, kept)["cosine"]
    by_rows = bootstrap.mean(cosines(one, other), kept)
    assert figure.value == pytest.approx(np.mean(cosines(one, other)[:80]))
    assert figure.replicates == pytest.approx(by_rows.replicates)
    assert (figure.speakers, figure.samples) == (20, 80)


def test_angles_are_counted():
    assert angle_histogram(PREDICTED, ACTUAL, [0, 30, 60, 180]).tolist() == [1, 1, 2]


def test_several_means_are_each_ones_mean():
    rng = np.random.default_rng(0)
    bootstrap = SpeakerBootstrap(rng.integers(0, 9, 40), rounds=100)
    values = {"a": rng.random(40), "b": np.ones(40)}
    figures = means(bootstrap, values, chances={"a": 0.5}, share=True)
    assert figures["a"].replicates == pytest.approx(bootstrap.mean(values["a"]).replicates)
    assert figures["a"].chance == 0.5 and figures["b"].chance is None
    assert figures["b"].interval == bootstrap.mean(values["b"], share=True).interval != (1, 1)


def test_what_cannot_be_compared_is_refused():
    bootstrap = SpeakerBootstrap(range(4))
    with pytest.raises(ValueError, match="one shape"):
        feature_similarity(bootstrap, PREDICTED, ACTUAL[:3])
    with pytest.raises(ValueError, match="NaN"):
        feature_similarity(bootstrap, PREDICTED * np.nan, ACTUAL)
    assert unit(np.zeros((1, 3))).tolist() == [[0, 0, 0]]


def test_centroid_direction_points_to_the_positives():
    embeddings = np.array([[1.0, 5], [3, 5], [0, 5]])
    direction = centroid_direction(embeddings, np.array([True, True, False]))
    assert direction.tolist() == [2, 0]
