"""A differentiable warp by thin-plate splines: the surface through given points that bends least.

Bookstein, "Principal Warps", IEEE PAMI 1989; as the last layer of a face decoder in Cole et al.,
"Synthesizing Normalized Faces from Facial Identity Features", CVPR 2017.

Letters: B pictures of a batch, K control points, Q queries, C values a point, H and W height and
width in pixels.
"""

import torch
from torch.nn import functional as F

FRAME_POINTS = 4  # on each side of a frame around a picture, which stay where they are
FRAME_SIZE = 1.5  # of the picture's, so that a chin may reach the picture's border
STRIDE = 4  # pixels between the places at which a warp is computed; the spline is smooth between


def thin_plate_spline(
    points: torch.Tensor, values: torch.Tensor, queries: torch.Tensor
) -> torch.Tensor:
    """Interpolates values given at points of the plane: f(x) = affine(x) + sum_k w_k r_k^2 log r_k.

    Exact at the control points, and everywhere for values that are an affine function of them.

    Args:
        points (`torch.Tensor` `(B, K, 2)`): control points, no two alike, not all on one line; of
            the order of 1, for the sake of precision.
        values (`torch.Tensor` `(B, K, C)`): at the control points.
        queries (`torch.Tensor` `(B, Q, 2)` or `(Q, 2)`): where to interpolate.

    Returns:
        `torch.Tensor` `(B, Q, C)`, in float32; gradients reach points, values and queries.
    """
    points, values, queries = points.float(), values.float(), queries.float()
    with torch.autocast(points.device.type, enabled=False):
        batch, k = points.shape[:2]
        affine = torch.cat([torch.ones_like(points[..., :1]), points], dim=-1)  # (B, K, 3)
        system = points.new_zeros(batch, k + 3, k + 3)
        system[:, :k, :k] = _bending(points, points)
        system[:, :k, k:] = affine
        system[:, k:, :k] = affine.mT
        right = torch.cat([values, values.new_zeros(batch, 3, values.shape[-1])], dim=1)
        weights = torch.linalg.solve(system, right)  # (B, K + 3, C)
        queries = queries.expand(batch, *queries.shape[-2:])
        straight = weights[:, k : k + 1] + queries @ weights[:, k + 1 :]
        return straight + _bending(queries, points) @ weights[:, :k]


def _bending(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """r^2 log r between points (B, Q, 2) and (B, K, 2), (B, Q, K); 0 where they are the same."""
    squared = (a[:, :, None] - b[:, None]).square().sum(-1)
    return 0.5 * squared * squared.clamp(min=1e-12).log()


def warp(pictures: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Moves points of pictures to other places, and all that lies between them along.

    Args:
        pictures (`torch.Tensor` `(B, C, H, W)`).
        sources (`torch.Tensor` `(B, K, 2)` or `(K, 2)`): pixels (x, y) of the pictures.
        targets (`torch.Tensor` `(B, K, 2)`): pixels to which they move.

    Returns:
        `torch.Tensor` `(B, C, H, W)`; a frame around the picture stays, and what comes from beyond
        the picture repeats the pixels of its border. Gradients reach pictures, sources and targets.
    """
    height, width = pictures.shape[-2:]
    size = pictures.new_tensor([width - 1, height - 1], dtype=torch.float32)
    frame = _frame(pictures.device).expand(len(pictures), -1, -1)  # (B, 4 * FRAME_POINTS, 2)
    targets = torch.cat([targets / size * 2 - 1, frame], dim=1)  # the picture is from -1 to 1
    sources = (sources / size * 2 - 1).expand(len(pictures), -1, -1)
    sources = torch.cat([sources, frame], dim=1)
    rows, columns = height // STRIDE + 1, width // STRIDE + 1
    grid = _grid(rows, columns, pictures.device)  # (rows, columns, 2)
    moves = thin_plate_spline(targets, sources - targets, grid.flatten(0, 1))
    moves = moves.mT.unflatten(-1, (rows, columns))  # (B, 2, rows, columns)
    moves = F.interpolate(moves, (height, width), mode="bilinear", align_corners=True)
    places = _grid(height, width, pictures.device) + moves.permute(0, 2, 3, 1)  # (B, H, W, 2)
    # Half precision is not enough to name one of 224 pixels.
    moved = F.grid_sample(pictures.float(), places, padding_mode="border", align_corners=True)
    return moved.to(pictures.dtype)


def _grid(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Places (rows, columns, 2), x and y from -1 to 1."""
    y = torch.linspace(-1, 1, rows, device=device)
    x = torch.linspace(-1, 1, columns, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _frame(device: torch.device) -> torch.Tensor:
    """Points around a picture from -1 to 1, (4 * FRAME_POINTS, 2)."""
    along = torch.linspace(-1, 1, FRAME_POINTS + 1, device=device)[:-1] * FRAME_SIZE
    edge = torch.full_like(along, -FRAME_SIZE)
    sides = ((along, edge), (-edge, along), (-along, -edge), (edge, -along))
    return torch.cat([torch.stack(side, dim=-1) for side in sides])
