"""The face recogniser as part of a loss: frozen, with gradients to the pixels that it looks at.

Letters: B batch, S side of a face in pixels, D size of the face embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHIFT = 0.03  # of a face's half side, how far a view may be off


def load_teacher(name: str, device: torch.device) -> nn.Module:
    """The teacher's network, frozen: faces (B, 3, S, S) from 0 to 1 to embeddings (B, D).

    Raises:
        ValueError: for a name that no recogniser has.
    """
    from dataset_scripts.faces import get_recogniser

    network = get_recogniser(name).network.to(device, memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def look_again(faces: Tensor) -> Tensor:
    """Faces (B, 3, S, S) as another camera might have taken them: mirrored, shifted, less sharp.

    A decoder that may choose every pixel learns to draw ghosts in which the teacher sees whom it
    wants to see. What it recognises in every one of these views lies in the face.
    """
    size = faces.shape[-1]
    coarse = int(torch.randint(size // 4, size, ()))  # pixels a side that are left
    x, y = (torch.rand(2) * 2 - 1) * SHIFT
    zoom = 1 + (torch.rand(()) * 2 - 1) * SHIFT
    mirror = float(torch.randint(0, 2, ())) * 2 - 1
    view = torch.tensor([[zoom * mirror, 0, x], [0, zoom, y]], device=faces.device)
    grid = F.affine_grid(view.expand(len(faces), -1, -1), faces.shape, align_corners=False)
    moved = F.grid_sample(faces.float(), grid, padding_mode="border", align_corners=False)
    return F.interpolate(moved, (coarse, coarse), mode="bilinear", antialias=True)
