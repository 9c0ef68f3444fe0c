"""Metrics against cases worked out by hand."""

import numpy as np
import pytest

from training import metrics

AXES = np.eye(3)


def test_ranks_and_recall():
    probes = np.array([[1, 0, 0], [1, 0.5, 0], [0.2, 0.3, 0.1]], float)
    assert metrics.retrieval_ranks(probes, AXES).tolist() == [1, 2, 3]
    figures = metrics.retrieval(probes, AXES, at=(1, 2))
    assert figures["recall_at_1"] == pytest.approx(1 / 3)
    assert figures["recall_at_2"] == pytest.approx(2 / 3)
    assert figures["chance_at_1"] == pytest.approx(1 / 3) and figures["gallery"] == 3


def test_a_constant_is_never_first():
    # All faces tie, and a tie counts against the voice: no credit for saying nothing.
    constant = np.ones((3, 3))
    assert metrics.retrieval_ranks(constant, np.ones((3, 3))).tolist() == [3, 3, 3]


def test_roc_auc_counts_pairs():
    scores = np.array([0.9, 0.4, 0.4, 0.1])
    positive = np.array([True, True, False, False])
    assert metrics.roc_auc(scores, positive) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert np.isnan(metrics.roc_auc(scores, np.ones(4, bool)))


def test_verification_auc_overall_and_within_groups():
    gallery = np.array([[1, 0.1], [1, -0.1], [-1, 0.1], [-1, -0.1]])
    only_group = np.array([[1, 0], [1, 0], [-1, 0], [-1, 0]], float)  # knows the half, no more
    groups = np.array([0, 0, 1, 1])
    assert metrics.verification_auc(gallery, gallery) == 1
    assert metrics.verification_auc(only_group, gallery) > 0.8
    assert metrics.verification_auc(only_group, gallery, groups) == pytest.approx(0.5)


def test_verification_does_not_hold_a_resampled_speaker_against_himself():
    probes = np.array([[1.0, 0.2], [0.2, 1]])
    twice = np.array([0, 0, 1])
    assert metrics.verification_auc(probes[twice], probes[twice]) < 1
    assert metrics.verification_auc(probes[twice], probes[twice], speakers=twice) == 1


def test_balanced_accuracy_weighs_classes_equally():
    actual = np.array(["m"] * 8 + ["f"] * 2)
    assert metrics.balanced_accuracy(np.array(["m"] * 10), actual) == pytest.approx(0.5)


def test_bootstrap_interval_covers_the_mean_and_resamples_rows():
    values = np.repeat([[0.0], [1.0]], 50, axis=0)
    low, high = metrics.bootstrap_interval(values)
    assert 0.38 < low < 0.45 and 0.55 < high < 0.62  # 0.5 -+ 1.96 * 0.05
    assert metrics.bootstrap_interval(np.ones(10)) == (1.0, 1.0)


def test_mean_pairwise_distance():
    assert metrics.mean_pairwise_distance(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(2)
    assert np.isnan(metrics.mean_pairwise_distance(np.zeros((1, 2))))


def test_centroid_direction_points_to_the_positives():
    embeddings = np.array([[1.0, 5], [3, 5], [0, 5]])
    direction = metrics.centroid_direction(embeddings, np.array([True, True, False]))
    assert direction.tolist() == [2, 0]
