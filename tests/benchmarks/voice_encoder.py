"""Ways to run a voice encoder of base size: `python -m tests.benchmarks.voice_encoder`.

6 s of speech, one clip, random weights. All ways take turns in one run, beside plain `transformers`
in float32, whose hidden layers they have to agree with: the ratio of the times is what counts, and
a way that changes the embedding is none.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.benchmarks.pipeline import ROOT, SPEECH_SECONDS

RATE = 16000  # Hz


def build_model(tiny: bool):
    """A `Speech2FaceModel` around wav2vec2-base, or around a tiny one for tests."""
    from transformers import AutoConfig

    from modeling_speech2face import Speech2FaceConfig, Speech2FaceModel
    from tests.tiny import tiny_model

    torch.manual_seed(0)
    if tiny:
        return tiny_model()
    backbone = AutoConfig.for_model("wav2vec2")  # its defaults are base's
    return Speech2FaceModel(Speech2FaceConfig(voice_encoder_config=backbone)).eval()


def ways(
    model, values: torch.Tensor, folder: Path, with_compiled: bool
) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that embed the clip; the first is plain `transformers` and the model's own head."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from training.export_onnx import export_onnx

    @torch.inference_mode()
    def of(network: nn.Module) -> np.ndarray:
        return network(values).face_embeddings.numpy()

    class Plain(nn.Module):
        """The backbone as `transformers` runs it, and what the model makes of its layers."""

        def forward(self, values):
            layers = model.voice_encoder(values, output_hidden_states=True).hidden_states
            weights = model.layer_scores.softmax(dim=0)
            hidden = sum(w * layer for w, layer in zip(weights, layers, strict=True))
            output = model.projection(model.pooling(hidden, None))
            return type("Output", (), {"face_embeddings": output})

    fp32, int8 = folder / "fp32.onnx", folder / "int8.onnx"
    export_onnx(model, fp32)
    graph = onnx.load(fp32)
    del graph.graph.value_info[:]  # shapes that the quantiser would find again, and dispute
    quantize_dynamic(
        graph, int8, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"], per_channel=True
    )
    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = torch.get_num_threads()

    def by_onnx(path: Path) -> Callable[[], np.ndarray]:
        session = onnxruntime.InferenceSession(str(path), threads)
        inputs = {"input_values": values.numpy()}
        if len(session.get_inputs()) == 2:
            inputs["attention_mask"] = np.ones(values.shape, np.int64)
        return lambda: session.run(None, inputs)[0]

    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    plain, compiled = Plain(), torch.compile(model)
    return {
        "plain transformers, fp32": lambda: of(plain),
        "Speech2FaceModel": lambda: of(model),
        **({"torch.compile": lambda: of(compiled)} if with_compiled else {}),
        "torch, int8 linear layers": lambda: of(quantised),
        "onnxruntime, fp32": by_onnx(fp32),
        "onnxruntime, int8 products": by_onnx(int8),
    }


def measure(functions: dict[str, Callable], rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds of each, by the clock and of the processor; they take turns.

    On a busy machine, look at the processor's: it leaves out what others took.
    """
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            clock, processor = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return {name: tuple(map(statistics.median, zip(*t, strict=True))) for name, t in times.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, for tests")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    options = parser.parse_args(arguments)

    from modeling_speech2face import load_audio

    model = build_model(options.tiny)
    speech = load_audio(sorted((ROOT / "samples").glob("*.flac"))[0], RATE)
    speech = np.resize(speech, int(SPEECH_SECONDS * RATE))
    values = model.feature_extractor(speech, RATE, return_tensors="pt").input_values
    with tempfile.TemporaryDirectory() as folder:
        functions = ways(model, values, Path(folder), not options.no_compile)
        embeddings = {name: function()[0] for name, function in functions.items()}  # and warm
        seconds = measure(functions, options.rounds)
    first = next(iter(functions))
    print(f"{SPEECH_SECONDS:g} s of speech, {torch.get_num_threads()} threads", end=", ")
    print(f"medians of {options.rounds} rounds")
    print(f"{'':28} {'clock':>16} {'processor':>18}")
    for name, embedding in embeddings.items():
        plain = embeddings[first]
        cosine = embedding @ plain / np.linalg.norm(embedding) / np.linalg.norm(plain)
        both = zip(seconds[name], seconds[first], strict=True)
        shown = " ".join(f"{1000 * time:8.0f} ms {time / of:5.2f} x" for time, of in both)
        print(f"{name:28} {shown}  cosine {cosine:.5f}")


if __name__ == "__main__":
    main()
