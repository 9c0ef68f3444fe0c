"""Thin-plate splines against SciPy's, and pictures whose points move where they should."""

import numpy as np
import pytest
import torch

from modeling_speech2face import thin_plate_spline, warp

SIZE = 224  # pixels


def scattered_points(seed: int, batch: int = 2, count: int = 6) -> torch.Tensor:
    """(batch, count^2, 2) within -1 to 1, no two close together."""
    along = torch.linspace(-0.9, 0.9, count)
    grid = torch.stack(torch.meshgrid(along, along, indexing="xy"), dim=-1).flatten(0, 1)
    generator = torch.Generator().manual_seed(seed)
    return grid + 0.1 * torch.randn(batch, count**2, 2, generator=generator)


@pytest.fixture
def points() -> torch.Tensor:
    return scattered_points(0)


@pytest.fixture
def values() -> torch.Tensor:
    return 0.1 * torch.randn(2, 36, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def queries() -> torch.Tensor:
    return 2.4 * torch.rand(2, 50, 2, generator=torch.Generator().manual_seed(2)) - 1.2


def scipys_spline(points: np.ndarray, values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    from scipy.interpolate import RBFInterpolator

    rows = zip(points, values, queries, strict=True)
    return np.stack([RBFInterpolator(p, v, kernel="thin_plate_spline")(q) for p, v, q in rows])


def test_a_spline_goes_through_its_points(points, values):
    through = thin_plate_spline(points, values, points)
    assert through.shape == (2, 36, 3) and through.dtype == torch.float32
    # Of -1 to 1: 0.003 of a picture's 224 pixels.
    torch.testing.assert_close(through, values, atol=3e-5, rtol=0)


def test_it_goes_through_the_landmarks_of_a_face():
    """The lips' inner edges lie a pixel or two apart, which makes the system ill-conditioned."""
    points = scattered_points(0, batch=1, count=8)[:, :60]
    close = points[:, :6] + torch.tensor([0.012, 0.008])  # 1.6 of 224 pixels away
    points = torch.cat([points, close], dim=1)
    generator = torch.Generator().manual_seed(1)
    values = 0.05 * torch.randn(points.shape, generator=generator)
    error = (thin_plate_spline(points, values, points) - values).abs().max() * SIZE / 2
    assert error < 0.1  # pixels


def test_affine_maps_are_affine_everywhere(points, queries):
    matrix, shift = torch.tensor([[1.1, 0.2], [-0.3, 0.9]]), torch.tensor([0.1, -0.2])
    found = thin_plate_spline(points, points @ matrix + shift, queries)
    torch.testing.assert_close(found, queries @ matrix + shift, atol=1e-5, rtol=0)


def test_away_from_the_points_it_is_scipys(points, values, queries):
    found = thin_plate_spline(points, values, queries)
    expected = scipys_spline(points.numpy(), values.numpy(), queries.numpy())
    assert np.abs(expected).max() > 0.3  # there is something to get wrong
    np.testing.assert_allclose(found, expected, atol=1e-4)
    shared = thin_plate_spline(points, values, queries[0])  # the same queries for both
    torch.testing.assert_close(shared[0], found[0])
    torch.testing.assert_close(shared[1], thin_plate_spline(points[1:], values[1:], queries[0])[0])


@pytest.mark.parametrize("argument", ["points", "values", "queries"])
def test_gradients_are_the_slopes_of_scipys_spline(argument, points, values, queries):
    """A directional derivative, against central differences in double precision."""
    arguments = {"points": points, "values": values, "queries": queries}
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(2, 50, 3, generator=generator)
    direction = torch.randn(arguments[argument].shape, generator=generator)

    learnt = arguments[argument].clone().requires_grad_()
    total = (thin_plate_spline(**{**arguments, argument: learnt}) * weights).sum()
    (gradient,) = torch.autograd.grad(total, learnt)

    def total_at(step: float) -> float:
        moved = {name: value.double().numpy() for name, value in arguments.items()}
        moved[argument] = moved[argument] + step * direction.double().numpy()
        return float((scipys_spline(**moved) * weights.numpy()).sum())

    slope = (total_at(1e-5) - total_at(-1e-5)) / 2e-5
    assert abs(slope) > 0.1
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=2e-3)


def test_gradients_at_the_points_themselves_are_finite(points, values):
    points = points.requires_grad_()
    thin_plate_spline(points, values, points).sum().backward()  # distances of 0, and their log
    assert points.grad.isfinite().all()


def some_points(size: int = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources (9, 2) and targets (1, 9, 2), pixels: up to 4 % of the picture apart."""
    along = torch.tensor([0.25, 0.5, 0.75])
    sources = size * torch.stack(torch.meshgrid(along, along, indexing="xy"), -1).flatten(0, 1)
    generator = torch.Generator().manual_seed(1)
    return sources, sources + size * 0.08 * (torch.rand(1, 9, 2, generator=generator) - 0.5)


def places(size: int = SIZE) -> torch.Tensor:
    """(1, 2, size, size): a picture of its own coordinates; warped, it tells where each is from."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([x, y])[None].float()


def dots(centres: torch.Tensor, size: int = SIZE) -> torch.Tensor:
    """(1, number of centres, size, size): a soft dot at each centre, pixels."""
    away = places(size) - centres[..., None, None]  # (number, 2, size, size)
    return torch.exp(-away.square().sum(1) / (2 * 2.5**2))[None]


def middles(pictures: torch.Tensor) -> torch.Tensor:
    """Centres of mass (channels, 2) of pictures (1, channels, S, S), pixels."""
    light = pictures[0, :, None]  # (channels, 1, S, S)
    return (light * places(light.shape[-1])).sum((2, 3)) / light.sum((2, 3))


def test_dots_move_from_sources_to_targets():
    sources, targets = some_points()
    moved = middles(warp(dots(sources), sources, targets))  # (9, 2)
    assert (targets[0] - sources).norm(dim=1).max() > 8  # pixels
    assert (moved - targets[0]).norm(dim=1).max() < 0.6


@pytest.mark.parametrize("shape", [(56, 56), (224, 224), (60, 101)])
def test_what_does_not_move_stays_as_it_is(shape):
    pictures = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    sources, _ = some_points(min(shape))
    same = warp(pictures, sources, sources.expand(2, -1, -1))
    torch.testing.assert_close(same, pictures, atol=1e-4, rtol=0)


def test_what_is_far_from_the_points_hardly_moves():
    sources, targets = some_points()
    came_from = warp(places(), sources, targets) - places()  # (1, 2, S, S), how far, pixels
    sides = [came_from[..., 0, :], came_from[..., -1, :], came_from[..., 0], came_from[..., -1]]
    sides = torch.stack(sides).norm(dim=2)  # (4, 1, S)
    assert came_from.norm(dim=1).max() > 8
    assert sides.mean() < 2.5 and sides[..., 0].max() < 2.5  # the corners


def test_a_chin_may_reach_the_border_without_a_fold():
    sources = torch.tensor([[56.0, 80.0], [168.0, 80.0], [112.0, 150.0], [112.0, 205.0]])
    targets = sources.clone()[None]
    targets[0, -1, 1] = 226  # beyond the picture, as the longest chins of aligned faces
    rows = warp(places(), sources, targets)[0, 1, :, 112]  # where the middle column comes from
    assert rows.diff().min() > 0 and rows[-1] < 208


def test_nothing_black_comes_in_from_beyond_the_picture():
    sources, _ = some_points()
    inwards = SIZE / 2 + 0.3 * (sources - SIZE / 2)
    white = torch.ones(1, 3, SIZE, SIZE)
    torch.testing.assert_close(warp(white, sources, inwards[None]), white)


def test_pictures_of_a_batch_do_not_see_each_other():
    pictures = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    sources, targets = some_points(56)
    targets = torch.cat([targets, sources[None], 2 * sources - targets])
    together = warp(pictures, sources, targets)
    rows = zip(pictures, targets, strict=True)
    apart = torch.cat([warp(picture[None], sources, target[None]) for picture, target in rows])
    torch.testing.assert_close(together, apart)
    per_picture = warp(pictures, sources.expand(3, -1, -1), targets)
    torch.testing.assert_close(per_picture, together)


def test_gradients_reach_pictures_sources_and_targets():
    sources, targets = some_points(56)
    pictures = dots(sources, 56).requires_grad_()
    sources, targets = sources.requires_grad_(), targets.requires_grad_()
    goal = dots(targets[0].detach() + torch.tensor([1.0, 0.0]), 56)  # one pixel to the right
    loss = (warp(pictures, sources, targets) - goal).square().sum()
    of_pictures, of_sources, of_targets = torch.autograd.grad(loss, (pictures, sources, targets))
    assert (of_pictures != 0).any() and of_pictures.isfinite().all()
    assert (of_targets[0, :, 0] < 0).all()  # targets should go to the right,
    assert (of_sources[:, 0] > 0).all()  # or be filled from further left


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_precision_takes_pixels_from_the_same_places(dtype):
    sources, targets = some_points()
    expected = warp(places(), sources, targets)
    with torch.autocast("cpu", torch.bfloat16):
        found = warp(places().to(dtype), sources, targets)  # bfloat16 counts to 256 exactly
        spline = thin_plate_spline(targets / SIZE, sources[None] / SIZE, targets / SIZE)
    exact = found.dtype == torch.float32
    assert (found.float() - expected).abs().max() < (0.01 if exact else 1)  # pixels
    torch.testing.assert_close(spline[0], sources / SIZE, atol=1e-4, rtol=0)


def test_pictures_of_half_precision_are_warped_as_others():
    sources, targets = some_points()
    found = warp(places().bfloat16(), sources, targets)
    assert (found.float() - warp(places(), sources, targets)).abs().max() < 1  # pixels
