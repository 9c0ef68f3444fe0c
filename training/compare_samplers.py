"""Which sampler, how many steps, which guidance: true embeddings decoded with each.

`python -m training.compare_samplers CHECKPOINT --dataset CAST --steps 4 6 8 10 15 25
[--guidance-scales 1 1.5 2] --output SAMPLERS.json`

Every face is decoded from the same seed by every sampler. No picture is written.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.faces import get_recogniser
from training.data import SPLITS, Pairs, check_same_teacher, load_pairs
from training.evaluation.generation import decoders_of, load_checkpoint, seeds_of
from training.evaluation.instruments import Judge, skin_lightness

FACES = 48
IMAGES_AT_ONCE = 4
TRAILING = {"final_sigmas_type": "zero", "timestep_spacing": "trailing"}
SAMPLERS = {  # of a flow: of what else is learnt
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
    steps: Sequence[int],
    guidance_scales: Sequence[float] | None = None,
    faces: int = FACES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Decodes true embeddings with several samplers: time, gender read, identity kept.

    Args:
        pipeline: a `Speech2FacePipeline`; its scheduler is put back.
        pairs: whose faces are decoded, one a speaker.
        judge: of gender.
        recogniser: the teacher.
        steps: numbers of steps.
        guidance_scales: strengths of guidance; the pipeline's default if None.
        faces: how many faces at most.
        seed: of the noise.

    Returns:
        One row a sampler, number of steps and guidance: seconds for four images, share of genders
        right, faces found, the centred cosine between condition and embedding of the image, and the
        deviation of the skin's lightness as a share of that of the pictures.
    """
    import diffusers

    rows = np.asarray([of_speaker[0] for of_speaker in pairs.pairs_of_speakers()])[:faces]
    seeds = seeds_of(seed, [pairs.pair_ids[row] for row in rows], "sampler")
    originals = np.stack([pairs.faces[row] for row in rows]).transpose(0, 2, 3, 1)
    mean = pipeline.voice_encoder.face_embedding_mean.float().cpu().numpy()
    own, table = pipeline.scheduler, []
    try:
        for name, arguments in SAMPLERS.items():
            pipeline.scheduler = getattr(diffusers, name).from_config(own.config, **arguments)
            for count in steps:
                for scale in guidance_scales or [pipeline.config.guidance_scale]:
                    start = time.perf_counter()
                    images = _decoded(pipeline, pairs.embeddings[rows], seeds, count, scale)
                    seconds = time.perf_counter() - start
                    seen = judge(images)
                    made = recogniser.embed(images) - mean
                    kept = _cosines(made, pairs.embeddings[rows] - mean)
                    deviation = skin_lightness(images).std() / skin_lightness(originals).std()
                    table.append(
                        {
                            "sampler": name,
                            "steps": count,
                            "guidance scale": scale,
                            "seconds for 4 images": 4 * seconds / len(rows),
                            "gender read right": float(
                                (seen["genders"] == pairs.genders[rows]).mean()
                            ),
                            "face found": float(seen["found"].mean()),
                            "identity kept": float(kept.mean()),
                            "skin deviation / the pictures'": float(deviation),
                        }
                    )
                    print("  ".join(_short(value) for value in table[-1].values()), flush=True)
    finally:
        pipeline.scheduler = own
    return table


def _decoded(
    pipeline: Any, embeddings: np.ndarray, seeds: np.ndarray, steps: int, scale: float
) -> np.ndarray:
    decoder = decoders_of(pipeline, steps, scale)["diffusion"]
    starts = range(0, len(seeds), IMAGES_AT_ONCE)
    parts = [slice(start, start + IMAGES_AT_ONCE) for start in starts]
    return np.concatenate([decoder(embeddings[part], seeds[part]) for part in parts])


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / np.where(lengths > 0, lengths, 1)


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare samplers on true embeddings.")
    parser.add_argument("checkpoint", help="demo, a pipeline folder, or a name on the Hub")
    parser.add_argument("--dataset", required=True, help="a folder of Parquet files, or on the Hub")
    parser.add_argument("--split", default="validation", choices=SPLITS)
    parser.add_argument("--steps", type=int, nargs="+", required=True, help="numbers of steps")
    parser.add_argument("--guidance-scales", type=float, nargs="+", help="1 is none")
    parser.add_argument("--faces", type=int, default=FACES, help="at most, one a speaker")
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
    pairs = load_pairs(options.dataset, options.split, options.cache)
    pipeline, _ = load_checkpoint(options.checkpoint)
    teacher = pipeline.voice_encoder.config.face_recogniser
    check_same_teacher(checkpoint=teacher, data_set=pairs.teacher)
    recogniser, scales = get_recogniser(pairs.teacher), options.guidance_scales
    return compare_samplers(
        pipeline, pairs, Judge(), recogniser, options.steps, scales, options.faces, options.seed
    )


if __name__ == "__main__":
    main()
