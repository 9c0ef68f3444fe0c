"""Which sampler, how many steps, which guidance: true embeddings decoded with each.

`python -m training.compare_samplers CHECKPOINT --dataset CAST [--steps 1 2 4 8 25]
[--samplers DDIMScheduler ...] [--guidance-scales 1 1.5 2] --output SAMPLERS.json`

Every face is decoded from the same seed by every sampler. What was decoded is kept, so that a run
that was killed continues; no picture is written elsewhere.

Letters: N images, D size of the face embedding, S side of an image.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.faces import get_recogniser
from training.data import SPLITS, Pairs, check_same_teacher, load_pairs, teacher_of
from training.diffusion import FLOW, NoiseSchedule, build_sampler
from training.evaluation.generation import (
    DECODED_AT_ONCE,
    decode,
    decoders_of,
    load_checkpoint,
    seeds_of,
)
from training.evaluation.instruments import Judge, skin_lightness
from training.evaluation.store import Store
from training.latents import pixels_of
from training.measures.generated_faces import identity_kept, kernel_distance
from training.measures.resampling import Figure, SpeakerBootstrap

FACES = 500
STEPS = (1, 2, 4, 8, 25)
TIMED = 3  # decodings, after one to warm up
COMPARED = ("kernel distance", "identity kept", "gender read right", "face found")
TRAILING = {"final_sigmas_type": "zero", "timestep_spacing": "trailing"}
SAMPLERS = {  # by whether a flow was learnt
    False: {
        "DPMSolverMultistepScheduler": {"algorithm_type": "dpmsolver++", **TRAILING},
        "DDIMScheduler": {"timestep_spacing": "trailing", "clip_sample": True},
        "UniPCMultistepScheduler": TRAILING,
    },
    True: {
        "DPMSolverMultistepScheduler": {"final_sigmas_type": "zero"},
        "FlowMatchEulerDiscreteScheduler": {},
        "UniPCMultistepScheduler": {"final_sigmas_type": "zero"},
    },
}


def compare_samplers(
    pipeline: Any,
    pairs: Pairs,
    judge: Any,
    recogniser: Any,
    store: Store,
    steps: Sequence[int] = STEPS,
    samplers: Sequence[str] | None = None,
    guidance_scales: Sequence[float] | None = None,
    faces: int = FACES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Decodes true embeddings with several samplers: time, gender read, identity kept, KID.

    Args:
        pipeline: a `Speech2FacePipeline`; its scheduler is put back.
        pairs: whose faces are decoded, in the size that the pipeline makes.
        judge: of gender.
        recogniser: the teacher.
        store: where decoded faces are kept.
        steps: numbers of steps.
        samplers: names of `SAMPLERS`; the pipeline's own if None.
        guidance_scales: strengths of guidance; the pipeline's default if None.
        faces: N. Every speaker has one before any has two; where there are more faces than pairs,
            pairs are decoded again from other seeds.
        seed: of the noise.

    Returns:
        One row a sampler, guidance and number of steps: seconds for four images, kernel distance to
        the true faces on the teacher's features, the centred cosine between condition and embedding
        of the image, shares of genders right and of faces found, the deviation of the skin's
        lightness as a share of that of the pictures; for each but the time, "... interval", 95 %
        over speakers; and "as the most": whether none of the first four is worse than the interval
        of the same sampler's row with the most steps.

    Raises:
        ValueError: for a sampler that does not fit what the pipeline has learnt.
    """
    own = pipeline.scheduler
    schedulers = {type(own).__name__: own}
    if samplers is not None:
        known = SAMPLERS[NoiseSchedule(own.config).prediction_type == FLOW]
        if unknown := set(samplers) - set(known):
            raise ValueError(f"{min(unknown)} fits not: choose among {', '.join(known)}")
        schedulers = {name: build_sampler(own.config, name, known[name]) for name in samplers}
    order = in_turns(pairs.pairs_of_speakers())
    rows = np.resize(order, faces)
    names = [f"{pairs.pair_ids[row]} {turn // len(order)}" for turn, row in enumerate(rows)]
    measured = Measured(pipeline, pairs, rows, judge, recogniser)
    seeds, table = seeds_of(seed, names, "sampler"), []
    try:
        for name, pipeline.scheduler in schedulers.items():
            for scale in guidance_scales or [pipeline.config.guidance_scale]:
                settings = {"sampler": name, "guidance scale": scale}
                most: dict[str, Figure] = {}
                for count in sorted(steps, reverse=True):
                    decoder = decoders_of(pipeline, count, scale)["diffusion"]
                    key = f"{name} {count} steps"
                    images = decode(decoder, pairs.embeddings[rows], seeds, store, key)
                    figures = measured(np.asarray(images))
                    most = most or figures
                    row = settings | {"steps": count, "images": faces}
                    row["seconds for 4 images"] = seconds_for_four(decoder, pairs.embeddings[rows])
                    for measure, figure in figures.items():
                        row |= {measure: figure.value, f"{measure} interval": figure.interval}
                    row["as the most"] = all(
                        _is_as_good(measure, figures[measure], most[measure])
                        for measure in COMPARED
                    )
                    table.append(row)
                    print("  ".join(_short(value) for value in row.values()), flush=True)
    finally:
        pipeline.scheduler = own
    return sorted(table, key=lambda row: (row["sampler"], row["guidance scale"], row["steps"]))


def in_turns(groups: Sequence[np.ndarray]) -> np.ndarray:
    """The first row of each group, then the second of each that has one, and so on."""
    turns = range(max(map(len, groups)))
    return np.asarray([group[turn] for turn in turns for group in groups if turn < len(group)])


class Measured:
    """What instruments read from decoded images, as figures with intervals over speakers.

    Args:
        pipeline: that decodes, for its mean embedding.
        pairs: whose faces are decoded.
        rows: (N,) which pair each image is of.
        judge: of gender.
        recogniser: the teacher.
    """

    def __init__(self, pipeline: Any, pairs: Pairs, rows: np.ndarray, judge: Any, recogniser: Any):
        self.judge, self.recogniser = judge, recogniser
        self.mean = pipeline.voice_encoder.face_embedding_mean.float().cpu().numpy()
        self.conditions, self.genders = pairs.embeddings[rows], pairs.genders[rows]
        self.bootstrap = SpeakerBootstrap(pairs.speakers[rows])
        pictures = pairs.faces[rows].transpose(0, 2, 3, 1)  # (N, S, S, 3)
        self.true = recogniser.embed(pictures)
        self.lightness = skin_lightness(pictures)

    def __call__(self, images: np.ndarray) -> dict[str, Figure]:
        """Figures of images (N, S, S, 3) uint8, by name."""
        seen, made = self.judge(images), self.recogniser.embed(images)
        kept = identity_kept(self.bootstrap, made - self.mean, self.conditions - self.mean)
        lightness = skin_lightness(images)
        return {
            "kernel distance": kernel_distance(self.bootstrap, made, self.true)["kernel_distance"],
            "identity kept": kept["identity_cosine"],
            "gender read right": self.bootstrap.mean(seen["genders"] == self.genders, share=True),
            "face found": self.bootstrap.mean(seen["found"], share=True),
            "skin deviation / the pictures'": self.bootstrap.statistic(
                lambda weights: _deviation(lightness, weights) / _deviation(self.lightness, weights)
            ),
        }


def seconds_for_four(decoder: Any, embeddings: np.ndarray) -> float:
    """Median time in which a decoder makes four images, the first of embeddings (N, D)."""
    some, seconds = embeddings[:DECODED_AT_ONCE], []
    for _ in range(1 + TIMED):
        start = time.perf_counter()
        decoder(some, np.arange(len(some)))
        seconds.append(time.perf_counter() - start)
    return 4 / len(some) * float(np.median(seconds[1:]))


def _deviation(values: np.ndarray, weights: np.ndarray) -> float:
    mean = np.average(values, weights=weights)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def _is_as_good(measure: str, figure: Figure, of_most: Figure) -> bool:
    low, high = of_most.interval or (of_most.value, of_most.value)
    better_if_low = measure == "kernel distance"
    return bool(figure.value <= high if better_if_low else figure.value >= low)


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare samplers on true embeddings.")
    parser.add_argument("checkpoint", help="demo, a pipeline folder, or a name on the Hub")
    parser.add_argument("--dataset", required=True, help="a folder of Parquet files, or on the Hub")
    parser.add_argument("--split", default="validation", choices=SPLITS)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="numbers of steps")
    parser.add_argument("--samplers", nargs="+", metavar="NAME", help="default: the checkpoint's")
    parser.add_argument("--guidance-scales", type=float, nargs="+", help="1 is none")
    parser.add_argument("--faces", type=int, default=FACES, help="how many images")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--cache", default=".cache/training", help="for decoded faces")
    parser.add_argument("--output", help="JSON file for the table")
    options = parser.parse_args(arguments)
    try:
        table = _compare(options)
    except (ImportError, OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    if options.output:
        Path(options.output).write_text(json.dumps(table, indent=2) + "\n")


def _compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    numbers = [options.faces, *options.steps, *(options.guidance_scales or [])]
    if min(numbers) < 1:
        raise ValueError("--faces, --steps and --guidance-scales must be at least 1")
    if options.output:
        if Path(options.output).is_dir():
            raise ValueError(f"{options.output} is a folder: name a JSON file")
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    teacher = teacher_of(options.dataset)
    pipeline, _ = load_checkpoint(options.checkpoint)
    its_teacher = pipeline.voice_encoder.config.face_recogniser
    check_same_teacher(checkpoint=its_teacher, data_set=teacher)
    size = pixels_of(pipeline.unet, pipeline.vae)
    pairs = load_pairs(options.dataset, options.split, options.cache, size)
    return compare_samplers(
        pipeline,
        pairs,
        Judge(),
        get_recogniser(teacher),
        Store(Path(options.cache) / "evaluation"),
        options.steps,
        options.samplers,
        options.guidance_scales,
        options.faces,
        options.seed,
    )


if __name__ == "__main__":
    main()
