"""The losses against figures worked out by hand."""

import math

import pytest
import torch

from training import losses

X, Y = [1.0, 0.0], [0.0, 1.0]


def test_cosine_loss_is_mean_of_one_minus_cosine():
    predicted = torch.tensor([[2.0, 0.0], [3.0, 3.0]])
    target = torch.tensor([[5.0, 0.0], [0.0, 1.0]])  # cosines 1 and 1 / sqrt(2)
    assert losses.cosine_loss(predicted, target).item() == pytest.approx(
        (0 + 1 - 1 / math.sqrt(2)) / 2, abs=1e-6
    )


def test_normalised_l2_is_two_minus_two_cosines():
    predicted, target = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([Y, Y])
    assert losses.normalised_l2_loss(predicted, target).item() == pytest.approx((2 + 0) / 2)


def test_mse_is_relative_to_the_spread():
    predicted, target = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1, 3]])
    loss = losses.mse_loss(predicted, target, population_variance=2.0)
    assert loss.item() == pytest.approx((25 + 4) / 2 / 2)


def test_mse_of_the_mean_face_is_one():
    target = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    target -= target.mean(0)
    variance = target.square().sum(1).mean().item()
    assert losses.mse_loss(torch.zeros_like(target), target, variance).item() == pytest.approx(1)


def test_info_nce_by_hand():
    # Orthogonal pairs, each right: every row and column is (1 / t, 0), so log(1 + exp(-1 / t)).
    both = torch.tensor([X, Y])
    loss = losses.info_nce_loss(both, both, torch.tensor([0, 1]), temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_info_nce_is_symmetric_and_averages_both_directions():
    voices, faces = torch.tensor([X, X]), torch.tensor([X, Y])
    # rows: (1, 0) right at 0 -> log(1 + e^-1); (1, 0) right at 1 -> log(1 + e).
    # columns: (1, 1) and (0, 0), both log 2.
    rows = (math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2
    loss = losses.info_nce_loss(voices, faces, torch.tensor([0, 1]), temperature=1.0)
    assert loss.item() == pytest.approx((rows + math.log(2)) / 2, abs=1e-6)


def test_info_nce_leaves_out_other_pairs_of_the_same_speaker():
    vectors = torch.tensor([X, X, Y])
    together = losses.info_nce_loss(vectors, vectors, torch.tensor([7, 7, 8]), temperature=1.0)
    apart = losses.info_nce_loss(vectors, vectors, torch.tensor([6, 7, 8]), temperature=1.0)
    assert together.item() == pytest.approx(
        (2 * math.log(1 + math.exp(-1)) + math.log(1 + 2 * math.exp(-1))) / 3, abs=1e-6
    )
    assert apart > together


def test_distillation_ignores_length():
    student, teacher = torch.tensor([[3.0, 3.0]]), torch.tensor([[0.5, 0.5]])
    assert losses.distillation_loss(student, teacher).item() == pytest.approx(0, abs=1e-6)
    assert losses.distillation_loss(-student, teacher).item() == pytest.approx(2, abs=1e-6)


def test_texture_loss_by_hand():
    dark, light = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.25)
    light[:, :, :2] = 0.75  # half of the pixels
    everywhere, above = torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    above[:, :, 2:] = 0
    assert losses.texture_loss(dark, light, everywhere).item() == pytest.approx(0.5)
    assert losses.texture_loss(dark, light, above).item() == pytest.approx(0.75)
    assert losses.texture_loss(dark, light, 0 * above).item() == 0


def test_landmark_loss_by_hand():
    true = torch.rand(2, 68, 2)
    moved = true + torch.tensor([3.0, 4.0])  # five pixels each
    assert losses.landmark_loss(moved, true, 50.0).item() == pytest.approx(0.5, abs=1e-5)
