"""Ways to run a voice encoder: `python -m tests.benchmarks.voice_encoder`.

Of wav2vec2-base's size with random weights, or a checkpoint's. Every round takes the next
recording, cut or looped to 6 s, and all ways take turns at it, beside plain `transformers` in
float32, whose embedding they have to give: the ratio of the times is what counts, and a way that
changes the embedding is none. The recordings in `samples/` are two; for more, pass others:

    python -m tests.benchmarks.voice_encoder --voices data/librispeech/*/*.flac --rounds 24
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.benchmarks.pipeline import ROOT, SPEECH_SECONDS

PLAIN = "plain transformers, fp32"
WAYS = {
    "model": "Speech2FaceModel",
    "compile": "torch.compile",
    "torch-int8": "torch, int8 linear layers",
    "onnx": "onnxruntime, fp32",
    "onnx-int8": "onnxruntime, int8",
}
Way = Callable[[torch.Tensor], np.ndarray]  # input values (1, samples) to an embedding (D,)


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


class _Plain(nn.Module):
    """The backbone as `transformers` runs it, and what the model makes of its layers."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, values: torch.Tensor):
        from modeling_speech2face.modeling_speech2face import Speech2FaceOutput

        layers = self.model.voice_encoder(values, output_hidden_states=True).hidden_states
        weights = self.model.layer_scores.softmax(dim=0)
        hidden = sum(w * layer for w, layer in zip(weights, layers, strict=True))
        return Speech2FaceOutput(self.model.projection(self.model.pooling(hidden, None)))


def ways(model, names: Sequence[str], folder: Path) -> dict[str, Way]:
    """Functions that embed a clip; the first is plain `transformers` and the model's own head."""

    def by_torch(network: nn.Module) -> Way:
        return torch.inference_mode()(lambda values: network(values).face_embeddings[0].numpy())

    def by_onnx(int8: bool) -> Way:
        import onnxruntime

        from training.export_onnx import export_onnx

        path = folder / f"{int8}.onnx"
        export_onnx(model, path, int8)
        threads = onnxruntime.SessionOptions()
        threads.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), threads)

        def embed(values: torch.Tensor) -> np.ndarray:
            inputs = {"input_values": values.numpy()}
            if len(session.get_inputs()) == 2:
                inputs["attention_mask"] = np.ones(values.shape, np.int64)
            return session.run(None, inputs)[0][0]

        return embed

    def in_int8() -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)

    make = {
        "model": lambda: by_torch(model),
        "compile": lambda: by_torch(torch.compile(model)),
        "torch-int8": lambda: by_torch(in_int8()),
        "onnx": lambda: by_onnx(int8=False),
        "onnx-int8": lambda: by_onnx(int8=True),
    }
    return {PLAIN: by_torch(_Plain(model)), **{WAYS[name]: make[name]() for name in names}}


def measure(functions: dict[str, Way], clips: Sequence[torch.Tensor]) -> dict[str, tuple]:
    """For each way the seconds by the clock, those of the processor, and the embeddings of `clips`.

    The ways take turns. On a busy machine, look at the processor's seconds: they leave out what
    others took.
    """
    found = {name: [] for name in functions}
    for function in functions.values():
        function(clips[0])  # warm
    for clip in clips:
        for name, function in functions.items():
            clock, processor = time.perf_counter(), time.process_time()
            embedding = function(clip)
            found[name].append(
                (time.perf_counter() - clock, time.process_time() - processor, embedding)
            )
    return {name: tuple(zip(*rows, strict=True)) for name, rows in found.items()}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of every row of `a` with every row of `b`."""
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
    return a @ b.T


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--checkpoint", help="instead of random weights: a folder or a Hub name")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, for tests")
    parser.add_argument("--voices", nargs="+", help="recordings; default: samples/")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    options = parser.parse_args(arguments)

    from modeling_speech2face import load_audio
    from training.export_onnx import load_encoder

    model = load_encoder(options.checkpoint) if options.checkpoint else build_model(options.tiny)
    rate = model.config.sampling_rate
    voices = options.voices or sorted((ROOT / "samples").glob("*.flac"))
    clips = []
    for voice in itertools.islice(itertools.cycle(voices), options.rounds):
        speech = np.resize(load_audio(voice, rate), int(SPEECH_SECONDS * rate))
        clips.append(model.feature_extractor(speech, rate, return_tensors="pt").input_values)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(ways(model, options.ways, Path(folder)), clips)
    *times_of_plain, plain = found[PLAIN]
    count = min(len(voices), options.rounds)
    print(f"{SPEECH_SECONDS:g} s of speech, {torch.get_num_threads()} threads", end=", ")
    print(f"medians of {options.rounds} rounds, {count} recordings")
    print(f"{'':26} {'clock':>16} {'processor':>17}   cosine: mean   least")
    plain = np.stack(plain)
    for name, (*times, embeddings) in found.items():
        pairs = zip(times, times_of_plain, strict=True)
        medians = [tuple(map(statistics.median, pair)) for pair in pairs]
        shown = " ".join(f"{1000 * time:8.0f} ms {time / of:5.2f} x" for time, of in medians)
        alike = cosines(np.stack(embeddings), plain).diagonal()
        print(f"{name:26} {shown}  {alike.mean():12.5f} {alike.min():8.5f}")
    if count > 1:  # what those cosines are to be seen against
        among = cosines(plain[:count], plain[:count])[np.triu_indices(count, k=1)]
        print(f"cosine between recordings: mean {among.mean():.5f}, least {among.min():.5f}")


if __name__ == "__main__":
    main()
