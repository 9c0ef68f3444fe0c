"""What a diffusion decoder sees of faces: pixels, patches of them folded, or a VAE's latents.

Letters: B batch, N pairs, S side of a face in pixels, p side of a patch, C channels, h height and
width of the latents.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.data import Pairs
from training.evaluation.store import fingerprint

ENCODED_AT_ONCE = 16  # faces


class FoldedPixels:
    """Faces as latents (B, 3pp, S/p, S/p), from -1 to 1.

    Args:
        pairs: whose faces they are.
        channels: 3pp, of the UNet.
    """

    def __init__(self, pairs: Pairs, channels: int):
        from modeling_speech2face import patch_size_of

        self.faces, self.p = pairs.faces, patch_size_of(channels)

    def __call__(self, rows: np.ndarray, mirrored: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Latents of some pairs' faces: rows (B,), and whether each is mirrored, (B,) bool."""
        from modeling_speech2face import faces_to_latents

        faces = self.faces[rows].astype(np.float32) / 127.5 - 1
        faces[mirrored] = faces[mirrored, :, :, ::-1]
        return faces_to_latents(torch.from_numpy(faces), self.p)


class VaeLatents:
    """Faces as a VAE's latents (B, C, h, h), drawn from its posterior, shifted and scaled.

    They are encoded once and kept beside the decoded faces; a step only draws.

    Args:
        pairs: whose faces they are.
        vae: an `AutoencoderKL`.
    """

    def __init__(self, pairs: Pairs, vae: nn.Module):
        folder = pairs.folder / f"latents-{_fingerprint(vae)}"
        if not folder.exists():
            _encode(pairs.faces, vae, folder)
        self.means = np.load(folder / "means.npy", mmap_mode="r")
        self.deviations = np.load(folder / "deviations.npy", mmap_mode="r")
        self.shift = vae.config.shift_factor or 0.0
        self.scale = vae.config.scaling_factor

    def __call__(self, rows: np.ndarray, mirrored: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Latents of some pairs' faces: rows (B,); none can be mirrored."""
        means = self.means[rows].astype(np.float32)
        noise = rng.standard_normal(means.shape, np.float32)
        drawn = means + self.deviations[rows].astype(np.float32) * noise
        return torch.from_numpy((drawn - self.shift) * self.scale)


def load_vae(name: str | None, device: torch.device) -> nn.Module | None:
    """A frozen `AutoencoderKL` from a folder or the Hub, in float32; None for none.

    Raises:
        FileNotFoundError: if it cannot be had.
    """
    from diffusers import AutoencoderKL

    if name is None:
        return None
    try:
        vae = AutoencoderKL.from_pretrained(name, use_safetensors=True, torch_dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"vae {name} cannot be loaded: name a folder with an AutoencoderKL, or a Hub "
            "repository that can be reached"
        ) from error
    return vae.to(device).eval().requires_grad_(False)


def side_of_latent(vae: nn.Module) -> int:
    """How many pixels a side become one latent."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def pixels_of(unet: nn.Module, vae: nn.Module | None) -> int:
    """S, height and width of the faces that a UNet makes, by a VAE if there is one.

    Raises:
        ValueError: if the UNet's channels are no patches of pixels, or not the VAE's.
    """
    from modeling_speech2face import patch_size_of

    channels, side = unet.config.in_channels, unet.config.sample_size
    if vae is None:
        return side * patch_size_of(channels)
    if channels != vae.config.latent_channels:
        raise ValueError(
            f"unet.in_channels {channels} are not the VAE's {vae.config.latent_channels} channels: "
            "set in_channels and out_channels to these"
        )
    return side * side_of_latent(vae)


def _fingerprint(vae: nn.Module) -> str:
    weights = (weight.float().cpu().numpy() for _, weight in sorted(vae.state_dict().items()))
    return fingerprint(*weights)


@torch.no_grad()
def _encode(faces: np.ndarray, vae: nn.Module, folder: Path) -> None:
    """Writes means.npy and deviations.npy (N, C, h, h) float16; the folder is there when whole."""
    from tqdm import tqdm

    work = folder.with_name(folder.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    side = faces.shape[-1] // side_of_latent(vae)
    shape = (len(faces), vae.config.latent_channels, side, side)
    files = [
        np.lib.format.open_memmap(work / f"{name}.npy", "w+", np.float16, shape)
        for name in ("means", "deviations")
    ]
    for start in tqdm(range(0, len(faces), ENCODED_AT_ONCE), desc="faces to latents", unit="batch"):
        part = slice(start, start + ENCODED_AT_ONCE)
        pixels = torch.from_numpy(faces[part].astype(np.float32) / 127.5 - 1).to(vae.device)
        posterior = vae.encode(pixels).latent_dist
        files[0][part], files[1][part] = posterior.mean.cpu().numpy(), posterior.std.cpu().numpy()
    for file in files:
        file.flush()
    work.rename(folder)
