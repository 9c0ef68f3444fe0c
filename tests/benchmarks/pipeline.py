"""Where the time goes from 6 s of speech to faces: `python -m tests.benchmarks.pipeline`.

All stages are measured in one run on one machine, beside plain `transformers` with the same
backbone, so that the figures can be compared with each other and not with last month's.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
SPEECH_SECONDS = 6.0
NUM_IMAGES = 4
FEW_STEPS, MANY_STEPS = 2, 6  # the slope between them is the time of one step


def median_seconds(function: Callable[[], object], runs: int) -> float:
    """Median wall time of `function`, after one call that warms it up."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def median_process_seconds(arguments: Sequence[str], runs: int) -> float:
    """Median wall time of a fresh Python with these arguments, after one that fills the caches."""

    def run():
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)

    return median_seconds(run, runs)


def six_seconds_of_speech(folder: Path, sampling_rate: int) -> Path:
    """Write 6 s of a sample recording as FLAC into `folder`."""
    import soundfile

    from modeling_speech2face import load_audio

    waveform = load_audio(sorted((ROOT / "samples").glob("*.flac"))[0], sampling_rate)
    path = folder / "speech.flac"
    soundfile.write(path, np.resize(waveform, int(SPEECH_SECONDS * sampling_rate)), sampling_rate)
    return path


def measure_stages(checkpoint: str | None, folder: Path, runs: int) -> dict[str, float]:
    """Seconds of every stage in this process, warm."""
    import torch
    from transformers import AutoModel

    from modeling_speech2face import Speech2FacePipeline, load_audio, speech_probabilities

    pipeline = (
        Speech2FacePipeline.from_pretrained(checkpoint)
        if checkpoint
        else Speech2FacePipeline.from_demo()
    )
    pipeline.set_progress_bar_config(disable=True)
    extractor, encoder = pipeline.feature_extractor, pipeline.voice_encoder
    rate = extractor.sampling_rate
    path = six_seconds_of_speech(folder, rate)
    waveform = load_audio(path, rate)
    features = extractor(waveform, sampling_rate=rate, return_tensors="pt")
    plain = AutoModel.from_config(encoder.config.voice_encoder_config).eval()
    face_embedding = encoder.face_embedding_mean

    def decode(steps: int):
        pipeline(
            face_embedding=face_embedding,
            num_images_per_prompt=NUM_IMAGES,
            num_inference_steps=steps,
        )

    with torch.inference_mode():
        few, many = (median_seconds(lambda s=s: decode(s), runs) for s in (FEW_STEPS, MANY_STEPS))
        return {
            "decode the file": median_seconds(lambda: load_audio(path, rate), runs),
            "find speech": median_seconds(
                lambda: speech_probabilities(torch.from_numpy(waveform)), runs
            ),
            "features": median_seconds(
                lambda: extractor(waveform, sampling_rate=rate, return_tensors="pt"), runs
            ),
            "voice encoder": median_seconds(lambda: encoder(**features), runs),
            "  plain transformers, same backbone": median_seconds(
                lambda: plain(features["input_values"]), runs
            ),
            f"decoder, one step for {NUM_IMAGES} images": (many - few) / (MANY_STEPS - FEW_STEPS),
            f"file to {NUM_IMAGES} images, warm": median_seconds(
                lambda: pipeline(path, num_images_per_prompt=NUM_IMAGES), runs
            ),
        }


def measure_processes(checkpoint: str | None, folder: Path, runs: int) -> dict[str, float]:
    """Seconds of what starts a fresh Python."""
    command = ["-m", "modeling_speech2face", str(folder / "speech.flac")]
    command += ["--output", str(folder / "faces"), "--num-images", "1"]
    if checkpoint:
        command += ["--checkpoint", checkpoint]
    return {
        "python": median_process_seconds(["-c", "pass"], runs),
        "import modeling_speech2face": median_process_seconds(
            ["-c", "import modeling_speech2face"], runs
        ),
        "  import transformers": median_process_seconds(["-c", "import transformers"], runs),
        "command, cold, one face": median_process_seconds(command, runs),
        "  its imports alone": median_process_seconds(
            ["-c", "from modeling_speech2face import Speech2FacePipeline"], runs
        ),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="folder or Hub name; default: the bundled weights")
    parser.add_argument("--runs", type=int, default=5, help="of each, after one to warm up")
    options = parser.parse_args(arguments)

    import torch

    print(f"{SPEECH_SECONDS:g} s of speech, {torch.get_num_threads()} threads, ", end="")
    print(f"medians of {options.runs} runs")
    with tempfile.TemporaryDirectory() as folder:
        for measure in (measure_stages, measure_processes):
            for name, seconds in measure(options.checkpoint, Path(folder), options.runs).items():
                print(f"{name:40} {1000 * seconds:8.0f} ms", flush=True)


if __name__ == "__main__":
    main()
