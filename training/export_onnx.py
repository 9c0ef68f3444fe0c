"""Exports a voice encoder to ONNX: `python -m training.export_onnx CHECKPOINT FILE`.

The file takes normalised waveforms `input_values` (batch, samples) of any number and length, as the
feature extractor makes them, and `attention_mask` (batch, samples), 1 for speech and 0 for padding
on the right; it gives `face_embeddings` (batch, D), centred. It is compared with the model on
recordings before the command calls it done. `--int8` multiplies in 8 bits: a smaller and quicker
file, whose embeddings are the model's but for rounding.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
LEAST_COSINE = 0.9999  # between the model's embeddings and the file's
LEAST_COSINE_INT8 = 0.999
FEWEST_SAMPLES = 400  # 25 ms: what the backbones of the wav2vec2 family need for a frame


class _Embeddings(nn.Module):
    """A model that takes and gives nothing but tensors."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.model(input_values, attention_mask).face_embeddings


class _Product(nn.Module):
    """A convolution over time as one matrix product.

    onnxruntime multiplies matrices in int8 several times faster than it convolves in float32. In
    int8 all frames share one range: those of a pause, which the encoder's layer norm makes as loud
    as any, would drown in the rounding of speech. So each is brought to the same range before.

    Args:
        convolution: without groups, padding and dilation.
    """

    def __init__(self, convolution: nn.Conv1d):
        super().__init__()
        (self.kernel,), (self.stride,) = convolution.kernel_size, convolution.stride
        weight = convolution.weight.detach()  # (out, in, kernel)
        self.weight = nn.Parameter(weight.transpose(1, 2).flatten(1))  # (out, kernel in)
        self.bias = convolution.bias

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = values.transpose(1, 2)  # (batch, samples, in)
        starts = self.stride * torch.arange((values.shape[1] - self.kernel) // self.stride + 1)
        heard = (starts[:, None] + torch.arange(self.kernel)).flatten()  # (frames kernel,)
        windows = values.index_select(1, heard).unflatten(1, (-1, self.kernel)).flatten(2)
        peaks = values.abs().amax(dim=2).index_select(1, heard)  # (batch, frames kernel)
        peaks = peaks.unflatten(1, (-1, self.kernel)).amax(dim=2, keepdim=True).clamp(min=1e-30)
        frames = nn.functional.linear(windows / peaks, self.weight) * peaks
        if self.bias is not None:
            frames = frames + self.bias
        return frames.transpose(1, 2)  # (batch, out, frames)


def as_products(model):
    """A copy of a voice encoder that computes the same with more of it as matrix products.

    Convolutions over feature maps become products; attention loses its guard against rows that
    attend to nothing, which do not occur and whose search takes onnxruntime as long as the softmax.

    Args:
        model: `Speech2FaceModel`.

    Returns:
        `Speech2FaceModel`.
    """
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    for parent in list(model.voice_encoder.modules()):
        for name, child in list(parent.named_children()):
            # What hears the waveform itself has too few inputs to gain, and most to lose.
            if (
                isinstance(child, nn.Conv1d)
                and child.in_channels > 1
                and (child.groups, child.padding, child.dilation) == (1, (0,), (1,))
            ):
                setattr(parent, name, _Product(child))
    return model


def load_encoder(checkpoint: str):
    """The voice encoder of a pipeline, or one that stands alone, in float32.

    Args:
        checkpoint: a folder, or a name on the Hub.

    Raises:
        FileNotFoundError: if it cannot be had.
    """
    from modeling_speech2face import Speech2FaceModel

    if Path(checkpoint).is_dir():
        places = ["voice_encoder" if (Path(checkpoint) / "voice_encoder").is_dir() else ""]
    else:
        places = ["voice_encoder", ""]  # of a pipeline on the Hub, or one that stands alone there
    for place in places:
        try:
            return Speech2FaceModel.from_pretrained(
                checkpoint, dtype=torch.float32, subfolder=place
            ).eval()
        except (OSError, ValueError) as error:
            reason = error
    raise FileNotFoundError(
        f"{checkpoint} has no voice encoder: name a pipeline or a voice encoder, a folder or a "
        "repository on the Hub"
    ) from reason


def export_onnx(model, path: Path, int8: bool = False) -> None:
    """Writes a voice encoder as ONNX, with what its input must be among the file's properties.

    A backbone that mixes padding into a row (wav2vec2-base's group norm does) has no input
    `attention_mask`: its rows must be of equal length.

    Args:
        model: `Speech2FaceModel`, in evaluation mode.
        path: of the file.
        int8: whether matrix products with weights, and convolutions as such products, are computed
            in 8 bits. Weights are rounded by channel, what they multiply by the range that it has
            in the batch: a row's embedding depends, within rounding, on its neighbours.
    """
    fewest = getattr(model.config.voice_encoder_config, "min_samples", FEWEST_SAMPLES)
    samples = max(2 * fewest, int(model.config.clip_seconds * model.config.sampling_rate))
    values = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    inputs = {"input_values": values}
    if not model.sees_padding():
        mask = torch.ones(2, samples, dtype=torch.long)
        mask[1, samples // 2 :] = 0
        inputs["attention_mask"] = mask
    free = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("samples", min=fewest)}
    program = torch.onnx.export(
        _Embeddings(as_products(model) if int8 else model).eval(),
        kwargs=inputs,
        dynamo=True,
        dynamic_shapes={name: free for name in inputs},
        input_names=list(inputs),
        output_names=["face_embeddings"],
        verbose=False,
    )
    config = model.config
    program.model.metadata_props["speech2face"] = json.dumps(
        {
            name: getattr(config, name)
            for name in (
                "sampling_rate",
                "clip_seconds",
                "do_normalize",
                "face_recogniser",
                "face_embedding_mean",
            )
        }
    )
    if int8:
        _save_quantised(program.model_proto, path)
    else:
        program.save(str(path))


def _save_quantised(model, path: Path) -> None:
    """Writes an ONNX model with its products in int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    del model.graph.value_info[:]  # shapes that the quantiser finds again, and would dispute
    quantize_dynamic(
        model, path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
    )


def compare(model, path: Path, recordings: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    """How alike the model's and the file's embeddings of recordings are.

    Args:
        model: `Speech2FaceModel`.
        path: what `export_onnx` wrote.
        recordings: mono, at the model's sampling rate, of different lengths; all are also run as
            one padded batch, if the file has a mask.

    Returns:
        For each recording the lowest cosine and the largest absolute difference.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    has_mask = len(session.get_inputs()) == 2
    alone = []
    for recording in recordings:
        waveform = torch.as_tensor(recording, dtype=torch.float32)
        extractor = model.feature_extractor
        values = extractor(waveform, extractor.sampling_rate, return_tensors="pt").input_values
        alone.append(values[0])
    expected = torch.cat([model(values[None]).face_embeddings for values in alone]).detach().numpy()

    def run(rows: list[torch.Tensor]) -> np.ndarray:
        values = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        inputs = {"input_values": values.numpy()}
        if has_mask:
            lengths = torch.tensor([len(row) for row in rows])
            mask = torch.arange(values.shape[1])[None] < lengths[:, None]
            inputs["attention_mask"] = mask.long().numpy()
        return session.run(None, inputs)[0]

    found = [np.concatenate([run([row]) for row in alone])]
    if has_mask:
        found.append(run(alone))
    lengths = np.linalg.norm(expected, axis=1)
    cosines = [
        (rows * expected).sum(1) / (np.linalg.norm(rows, axis=1) * lengths) for rows in found
    ]
    differences = [np.abs(rows - expected).max(axis=1) for rows in found]
    return list(zip(np.min(cosines, axis=0), np.max(differences, axis=0), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.export_onnx", description="Export a voice encoder to ONNX."
    )
    parser.add_argument("checkpoint", help="a pipeline or a voice encoder: a folder or a Hub name")
    parser.add_argument("file", type=Path, help="of the export")
    parser.add_argument(
        "--voices", nargs="+", metavar="FILE", help="recordings to compare on; default: samples/"
    )
    parser.add_argument(
        "--int8", action="store_true", help="products in 8 bits: smaller, quicker, rounded"
    )
    options = parser.parse_args(arguments)
    from modeling_speech2face import load_audio

    try:
        for needed in ("onnx", "onnxruntime", "onnxscript"):
            if find_spec(needed) is None:
                raise ValueError(f'{needed} is missing: pip install -e ".[onnx]"')
        if not options.file.parent.is_dir():
            raise FileNotFoundError(f"{options.file.parent} is no folder: make it first")
        model = load_encoder(options.checkpoint)
        voices = options.voices or sorted((ROOT / "samples").glob("*.flac"))
        recordings = [load_audio(voice, model.config.sampling_rate) for voice in voices]
        export_onnx(model, options.file, options.int8)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    alike = compare(model, options.file, recordings)
    for voice, (cosine, difference) in zip(voices, alike, strict=True):
        print(f"{Path(voice).name}: cosine {cosine:.7f}, largest difference {difference:.1e}")
    if min(cosine for cosine, _ in alike) < (LEAST_COSINE_INT8 if options.int8 else LEAST_COSINE):
        options.file.unlink()
        parser.exit(1, "the export does not give the model's embeddings, and was deleted\n")
    print(f"{options.file}: {options.file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
