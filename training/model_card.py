"""Writes a checkpoint's card: its words from a template, every figure from its results.

`python -m training.model_card CHECKPOINT [--results REPORT ...] [--readme README.md]`

A template calls `figure(table=..., system=..., measure=...)`; a figure that the results do not have
is an error, so that none can be typed or go stale. Results are named: `results.json` beside the
checkpoint is "cast", `results_real_pairs.json` is "real pairs", and a file that holds a list of
rows (`results_samplers.json`, of `training.compare_samplers`) is passed on as it is.
"""

import argparse
import json
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.configuration import TRAINING_FILE
from training.evaluation import wording
from training.evaluation.conclusions import as_markdown, card_records, conclude, headline_records
from training.evaluation.report import environment, model_index
from training.evaluation.results import Record, Results

CARDS = Path(__file__).parent / "cards"
DEMO = Path(__file__).parents[1] / "modeling_speech2face" / "demo_checkpoint"
MAIN = "cast"  # the name of results.json
WEIGHTS = re.compile(r"(model|diffusion_pytorch_model)(-\d+-of-\d+)?\.safetensors")
MOST_HEADER = 100_000_000  # bytes, as the format has it
MARK = "<!-- Written by python -m training.model_card: change the template, not this file. -->"
README_BEGIN, README_END = "<!-- figures: begin -->", "<!-- figures: end -->"

Named = Mapping[str, Results | list]


def render_card(template: Path, results: Named, name: str = "speech2face", **facts: Any) -> str:
    """Fills a template with figures and facts, and puts the model-index into its head.

    Args:
        template: Markdown with a YAML head, in Jinja2.
        results: by name; see the module.
        name: of the checkpoint, in the template and in the model-index.
        facts: further names of the template.

    Returns:
        The card.

    Raises:
        KeyError: where the template names a figure that the results do not have.
        jinja2.UndefinedError: where it names something else that is not there.
        ValueError: if the template has no head.
    """
    import yaml

    text = _fill(template, results, facts | {"name": name})
    parts = re.split(r"^---\n", text, maxsplit=2, flags=re.MULTILINE)
    if len(parts) != 3 or parts[0].strip():
        raise ValueError(f"{template} has no YAML head: begin it with --- and close it with ---")
    head = yaml.safe_load(parts[1])
    evaluated = [
        result
        for found in results.values()
        if isinstance(found, Results)
        for index in model_index(found, name)
        for result in index["results"]
    ]
    if evaluated:
        head["model-index"] = [{"name": name, "results": evaluated}]
    written = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{written}---\n\n{MARK}\n\n{parts[2].strip()}\n"


def _fill(template: Path, results: Named, facts: Mapping[str, Any]) -> str:
    import jinja2

    figures = Figures(results)
    jinja = environment(html=False)
    jinja.loader = jinja2.FileSystemLoader(CARDS)
    text = jinja.from_string(Path(template).read_text(encoding="utf-8"))
    return text.render(
        results=results,
        figure=figures.figure,
        chance=figures.chance,
        has=figures.has,
        said=figures.said,
        headlines=figures.headlines,
        by_group=figures.by_group,
        losses_of=losses_of,
        **facts,
    )


class Figures:
    """What a template may call; `of` names the results, `where` the record."""

    def __init__(self, results: Named):
        self.results = results

    def figure(self, of: str = MAIN, percent: bool | None = None, **where: Any) -> str:
        """A figure with its interval, "86.9 % [79.4, 93.1]".

        Args:
            of: which results.
            percent: as a percentage or as a plain number; as its measure is read if None.
            where: table, kind, system, measure, and by and group for one of a group.
        """
        record = self._record(of, where)
        if percent is None or percent == (wording.unit_of(record.measure).sign == " %"):
            return wording.figure_text(record)
        return wording.figure_text(record, wording.PERCENT if percent else wording.PLAIN)

    def chance(self, of: str = MAIN, **where: Any) -> str:
        """What knowing nothing would score in the place of a figure."""
        record = self._record(of, where)
        if record.chance is None:
            raise KeyError(f"no chance is known of {_named(where)}: leave it out of the card")
        return wording.chance_number(record.chance, record.measure)

    def has(self, of: str = MAIN, **where: Any) -> bool:
        """Whether there is exactly one such figure."""
        found = self.results.get(of)
        return isinstance(found, Results) and len(found.select(**where)) == 1

    def said(self, part: str, of: str = MAIN) -> list[str]:
        """The conclusions of a part ("can", "cannot", "rests"); warnings are in "warning"."""
        found = [
            said
            for said in conclude(self.results[of])
            if ("warning" if said.warning else said.part) == part
        ]
        if part == "warning":  # each stands for itself
            return [f"**{said.claim}** {said.text}" for said in found]
        return as_markdown(found)

    def headlines(self, of: str = MAIN) -> list[tuple[str, str, str, str]]:
        """(kind, system, measure, figure) of everything that a report shows first."""
        return [
            (r.kind, r.system, wording.measure_name(r.measure), wording.figure_text(r))
            for r in headline_records(self.results[of])
        ]

    def by_group(self, by: str, of: str = MAIN) -> tuple[list[str], list[list[str]]]:
        """The few figures that the Hub lists, for each group apart.

        Args:
            by: "gender" or "age group".
            of: which results.

        Returns:
            The groups; and rows of kind, system, measure and a figure for every group.
        """
        results = self.results[of]
        names = {r.group for r in results.records if r.by == by}
        groups = sorted(names, key=lambda name: (not name.startswith("under"), name))
        rows = []
        for r in card_records(results):
            where = {"table": r.table, "kind": r.kind, "system": r.system, "measure": r.measure}
            found = [results.select(by=by, group=group, **where) for group in groups]
            if any(found):
                figures = [wording.figure_text(one[0]) if one else "—" for one in found]
                rows.append([r.kind, r.system, wording.measure_name(r.measure), *figures])
        return groups, rows

    def _record(self, of: str, where: Mapping[str, Any]) -> Record:
        if not isinstance(self.results.get(of), Results):
            raise KeyError(f"there are no results {of!r}: name them with --results {of}=FILE")
        try:
            return self.results[of].find(**where)
        except KeyError as error:
            raise KeyError(
                f"the results {of!r} do not have the figure {_named(where)}: evaluate again, or "
                "change the template"
            ) from error


def _named(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in where.items())


def named_results(folder: Path) -> dict[str, Results | list]:
    """Every `results*.json` of a folder by its name: "cast", "real pairs", "samplers", ..."""
    files = sorted(Path(folder).glob("results*.json"))
    names = {path: path.stem.removeprefix("results").strip("_").replace("_", " ") for path in files}
    return {name or MAIN: load_results(path) for path, name in names.items()}


def check(options: argparse.Namespace) -> None:
    """Refuses before anything is written.

    Raises:
        FileNotFoundError: if a folder or file is not there.
        ValueError: if a card was written by hand, figures are of another checkpoint, or the README
            has no place for them.
    """
    checkpoint_facts(options.checkpoint)
    card = options.checkpoint / "README.md"
    if is_written_by_hand(card):
        raise ValueError(f"{card} was written by hand: move it elsewhere, so that it is not lost")
    for path in filter(None, [options.template, options.readme]):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is no file: name a template, or a README with marks")
    if options.readme:
        _parts_of_readme(options.readme.read_text(encoding="utf-8"))
    for report in options.results:
        results = load_results(Path(report.rpartition("=")[2]))
        if isinstance(results, list):
            continue
        measured = {row["fingerprint"] for row in results.about["checkpoints"]}
        if fingerprint_of(options.checkpoint) not in measured:
            raise ValueError(
                f"{report} was not measured on the weights in {options.checkpoint}: evaluate them, "
                "python -m training.evaluation --checkpoint"
            )


def fingerprint_of(folder: Path) -> str:
    """The fingerprint that an evaluation gives a checkpoint's weights and settings."""
    from training.evaluation.generation import load_checkpoint

    return load_checkpoint(str(folder))[1]


def keep_results(folder: Path, report: str) -> Path:
    """Puts a report's figures beside a checkpoint, where its card finds them.

    Args:
        folder: of the pipeline.
        report: a report's folder, its results.json, or a file with a list of rows; or
            "NAME=" and one of these, for example "real pairs=reports/real".

    Returns:
        The file: `results.json`, or `results_NAME.json`.
    """
    name, _, source = report.rpartition("=")
    results = load_results(Path(source))
    suffix = "" if name in ("", MAIN) else "_" + name.replace(" ", "_")
    path = Path(folder) / f"results{suffix}.json"
    rows = isinstance(results, list)
    text = json.dumps(results, indent=1) + "\n" if rows else results.brief().to_json()
    path.write_text(text, encoding="utf-8")
    return path


def load_results(path: Path) -> Results | list:
    """Results, or a list of rows.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
    """
    path = Path(path)
    if path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: name a report of an evaluation") from error
        if isinstance(stored, list):
            return stored
    return Results.load(path)


def checkpoint_facts(folder: Path) -> dict[str, Any]:
    """What a pipeline's folder says of itself: name, parts, sizes, sampler.

    Returns:
        name, parts [(name, class, parameters)], parameters, and from the configurations teacher,
        embedding_size, clip_seconds, backbone, image_size, steps, guidance_scale, scheduler,
        face_traits (see `face_traits_facts`) and training (what each part's was told); further
        repo, licence, trained_on, fingerprint, samples and with_code, which nobody has said yet.

    Raises:
        FileNotFoundError: if it is no pipeline's folder.
        ValueError: if a file in it is not what it should be.
    """
    folder = Path(folder).resolve()
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"{folder} is no pipeline: make one with python -m training.assemble_checkpoint"
        )
    try:
        return _facts(folder)
    except (KeyError, IndexError, TypeError, OSError) as error:  # of a configuration cut short
        raise ValueError(
            f"{folder} is no whole checkpoint ({type(error).__name__}: {error}): assemble it again"
        ) from error


def _facts(folder: Path) -> dict[str, Any]:
    index = _read(folder / "model_index.json")
    parts = [
        (name, entry[1], sum(map(count_parameters, weights_of(folder / name))))
        for name, entry in sorted(index.items())
        if isinstance(entry, list) and entry[1] is not None and not name.startswith("_")
    ]
    voice = _read(folder / "voice_encoder" / "config.json")
    unet = _read(folder / "unet" / "config.json")
    if index.get("vae", [None])[0] is None:
        pixels = round((unet["out_channels"] / 3) ** 0.5)  # a side of what is one place to the UNet
    else:
        pixels = 2 ** (len(_read(folder / "vae" / "config.json")["block_out_channels"]) - 1)
    return {
        "name": "demo" if folder == DEMO else folder.name,
        "parts": parts,
        "size": {name: in_millions(count) for name, _, count in parts},
        "parameters": in_millions(sum(count for _, _, count in parts)),
        "teacher": voice["face_recogniser"],
        "embedding_size": voice["face_embedding_size"],
        "clip_seconds": voice["clip_seconds"],
        "backbone": voice["voice_encoder_config"]["model_type"],
        "image_size": unet["sample_size"] * pixels,
        "steps": index["num_inference_steps"],
        "guidance_scale": index["guidance_scale"],
        "scheduler": index["scheduler"][1],
        "face_traits": face_traits_facts(folder / "face_traits" / "config.json"),
        "training": _read(folder / TRAINING_FILE) if (folder / TRAINING_FILE).is_file() else {},
        # What is said when it is published; see `training.publish`.
        **{"repo": None, "licence": None, "trained_on": None, "fingerprint": None},
        **{"samples": [], "with_code": False},
    }


def face_traits_facts(path: Path) -> dict[str, Any] | None:
    """How well a checkpoint's probes read faces, as `training.fit_face_traits` measured it.

    Returns:
        people, how many were asked, and traits [(what is read, "AUC" or "r", the figure)]; None
        where there is no such component.
    """
    if not path.is_file():
        return None
    from modeling_speech2face import FaceTraitProbe

    known, config = FaceTraitProbe.known_traits, _read(path)
    traits = [
        (known[name].noun, "AUC" if known[name].is_binary else "r", f"{score:.2f}")
        for name, score in zip(config["names"], config["held_out"], strict=True)
    ]
    return {"people": config["held_out_people"], "traits": traits}


def losses_of(training: Mapping[str, Any]) -> str:
    """The losses of a part's training and their weights, "mse 1, cosine 1"; "—" if it has one."""
    weights = training.get("losses") or {}
    others = ("temperature", "scale", "margin")  # of a loss, not its weight
    named = [(name, w) for name, w in weights.items() if w and not name.endswith(others)]
    return ", ".join(f"{name.replace('_', ' ')} {w:g}" for name, w in named) or "—"


def weights_of(part: Path) -> list[Path]:
    """The safetensors files in a part's folder that are loaded: no backups, no optimiser's."""
    return [path for path in sorted(part.glob("*.safetensors")) if WEIGHTS.fullmatch(path.name)]


def count_parameters(path: Path) -> int:
    """How many numbers a safetensors file holds, from its header alone.

    Raises:
        ValueError: if it has no such header.
    """
    try:
        with Path(path).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, MOST_HEADER)))
    except (struct.error, ValueError):
        raise ValueError(f"{path} is no safetensors file: assemble the checkpoint again") from None
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            count = 1
            for side in tensor["shape"]:
                count *= side
            total += count
    return total


def in_millions(count: int) -> str:
    """A number of parameters, "2.6 M"."""
    return f"{count / 1e6:.1f} M" if count >= 50_000 else f"{count:,}"


def write_card(
    folder: Path, results: Named | None = None, template: Path | None = None, **facts: Any
) -> Path:
    """Writes `README.md` into a checkpoint's folder.

    Args:
        folder: of the pipeline.
        results: by name; every `results*.json` of the folder if None.
        template: the demo's for the demo, the general one for any other, if None.
        facts: further names of the template, for example `trained_on`.

    Returns:
        The card's file.
    """
    folder = Path(folder)
    results = named_results(folder) if results is None else results
    template = template or template_of(folder)
    card = folder / "README.md"
    known = checkpoint_facts(folder) | facts
    card.write_text(render_card(template, results, **known), encoding="utf-8")
    return card


def template_of(folder: Path) -> Path:
    """The template of a checkpoint's card: the demo has its own."""
    return CARDS / ("demo.md" if Path(folder).resolve() == DEMO else "checkpoint.md")


def is_written_by_hand(card: Path) -> bool:
    """Whether a card is there that this module did not write.

    Raises:
        ValueError: if it is no text.
    """
    if not Path(card).is_file():
        return False
    try:
        return MARK not in Path(card).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{card} is no text in UTF-8: write it anew, or delete it") from error


def with_figures(readme: str, results: Named, template: Path = CARDS / "readme_figures.md") -> str:
    """A README's text with new figures between its two marks.

    Raises:
        ValueError: if it does not have both marks.
    """
    before, after = _parts_of_readme(readme)
    figures = _fill(template, results, {}).strip()
    return f"{before}{README_BEGIN}\n{figures}\n{README_END}{after}"


def _parts_of_readme(readme: str) -> tuple[str, str]:
    """What stands before and behind the two marks."""
    before, begin, rest = readme.partition(README_BEGIN)
    _, end, after = rest.partition(README_END)
    if not (begin and end):
        raise ValueError(f"put {README_BEGIN} and {README_END} where the figures shall stand")
    return before, after


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object: assemble the checkpoint again")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    import jinja2

    parser = argparse.ArgumentParser(
        prog="python -m training.model_card",
        description="Write a checkpoint's card from its figures.",
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the pipeline")
    parser.add_argument(
        "--results",
        nargs="+",
        default=[],
        metavar="REPORT",
        help="reports, or NAME=REPORT for one beside the main one; they are kept with the "
        "checkpoint, and the card is made from all that are",
    )
    parser.add_argument("--template", type=Path, help="another card than those in training/cards/")
    parser.add_argument("--readme", type=Path, help="write the table of figures of this one, too")
    options = parser.parse_args(arguments)
    try:
        check(options)  # nothing is written before all can be
        for report in options.results:
            print(keep_results(options.checkpoint, report))
        print(write_card(options.checkpoint, template=options.template))
        if options.readme:
            results = named_results(options.checkpoint)
            text = with_figures(options.readme.read_text(encoding="utf-8"), results)
            options.readme.write_text(text, encoding="utf-8")
            print(options.readme)
    except KeyError as error:
        parser.exit(2, f"{error.args[0]}\n")
    except (OSError, ValueError, jinja2.TemplateError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
