"""Pairs built from films of the cast, held against the films' truth.

`python -m dataset_scripts.check_pairs DATASET FILMS` prints how many pairs join the right face to
the right voice, how many of the segments that could be built were found, what the controls gave,
and, for a data set that was built without labels, how well the persons were told apart.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_scripts.splits import SPLITS

NEAR = 0.6  # of a face's size: how far a pair's face may lie from a person's true place


@dataclass(frozen=True)
class BuiltPair:
    """What is asked about a pair: where it comes from, and who the builder says it is."""

    video_id: str
    start_s: float
    end_s: float
    face_time_s: float
    face_position: tuple[float, float]
    speaker_id: str
    split: str


def read_films(folder: str | Path) -> dict[str, dict]:
    """Film id -> the truth of that film, as the films' builder wrote it.

    Raises:
        FileNotFoundError: if the folder holds no films of the cast.
    """
    files = sorted(Path(folder, "videos").glob("*.json"))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no films: make some with python -m dataset_scripts.synthetic_cast"
            " FOLDER --films N --speakers M"
        )
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def read_pairs(folder: str | Path) -> list[BuiltPair]:
    """The pairs of a built data set, all splits.

    Raises:
        FileNotFoundError: if the folder holds no data set.
    """
    import pyarrow.parquet

    columns = [name for name in BuiltPair.__dataclass_fields__ if name != "split"]
    pairs = [
        BuiltPair(**row, split=split)
        for split in SPLITS
        for file in sorted(Path(folder).glob(f"{split}-*.parquet"))
        for row in pyarrow.parquet.read_table(file, columns=columns).to_pylist()
    ]
    if not pairs:
        raise FileNotFoundError(f"{folder} holds no data set: build one first")
    return pairs


def film_id_of(video_id: str) -> str:
    """The film that a source's video id names, whatever folder and suffix it carries."""
    return Path(video_id).stem


def heard(pair: BuiltPair, film: dict) -> str | None:
    """Who speaks for most of a pair's time; None if nobody does."""
    seconds = Counter()
    for segment in film["segments"]:
        seconds[segment["speaker_id"]] += max(0.0, _overlap(pair, segment))
    speaker, most = seconds.most_common(1)[0] if seconds else (None, 0.0)
    return speaker if most > 0 else None


def seen(pair: BuiltPair, film: dict) -> str | None:
    """Whose face the pair's face is, by its place in the picture; None if nobody's is there."""
    width, height = film["width"], film["height"]
    nearest, person = NEAR, None
    for appearance in film["appearances"]:
        path = np.asarray(appearance["path"], float)  # (moments, [t, x, y, pixels, yaw])
        if not appearance["start_s"] - 0.1 <= pair.face_time_s <= appearance["end_s"] + 0.1:
            continue
        _, x, y, size, _ = path[np.abs(path[:, 0] - pair.face_time_s).argmin()]
        away = np.hypot(*((np.array(pair.face_position) - (x, y)) * (width, height)))  # pixels
        if away / size < nearest:
            nearest, person = away / size, appearance["speaker_id"]
    return person


def is_right(pair: BuiltPair, film: dict) -> bool:
    """Whether the face is the face of who is heard, seen speaking there, in a film fit to use."""
    speaker = heard(pair, film)
    visible = any(
        s["visible"] and s["speaker_id"] == speaker and _overlap(pair, s) > 0
        for s in film["segments"]
    )
    return not film["is_control"] and visible and speaker == seen(pair, film)


def pairwise_f1(truth: Sequence[str], found: Sequence[str]) -> float:
    """F1 of "these two are one person" over all couples of pairs; 1.0 where both agree on all.

    Source: the pair-counting F measure, Manning et al., Introduction to Information Retrieval,
    2008, section 16.3.
    """
    from sklearn.metrics.cluster import pair_confusion_matrix

    (_, false_positive), (false_negative, true_positive) = pair_confusion_matrix(
        list(truth), list(found)
    )
    wrong = false_positive + false_negative
    return float(2 * true_positive / (2 * true_positive + wrong)) if wrong else 1.0


def check(pairs: Sequence[BuiltPair], films: dict[str, dict]) -> Iterator[str]:
    """The lines of the report."""
    by_film = defaultdict(list)
    for pair in pairs:
        by_film[film_id_of(pair.video_id)].append(pair)
    unknown = sorted(set(by_film) - set(films))
    if unknown:
        raise ValueError(f"the data set was not built from these films: it knows {unknown[0]}")
    people = {person["speaker_id"] for film in films.values() for person in film["people"]}
    yield f"{len(films)} films of {len(people)} persons, {len(pairs)} pairs"

    rightness = {
        name: [is_right(pair, films[name]) for pair in found] for name, found in by_film.items()
    }
    right = sum(map(sum, rightness.values()))
    yield _share("pairs that join the right face to the right voice", right, len(pairs))

    found_by_kind, seconds_found, seconds_buildable = defaultdict(list), 0.0, 0.0
    for name, film in films.items():
        good = [p for p, r in zip(by_film[name], rightness.get(name, []), strict=True) if r]
        for segment in film["segments"]:
            if segment["buildable"]:
                overlaps = [_overlap(pair, segment) for pair in good]
                own = [s for p, s in zip(good, overlaps, strict=True) if _is_half(s, p, segment)]
                found_by_kind[film["kind"]].append(bool(own))
                seconds_found += sum(s for s in overlaps if s > 0)
                seconds_buildable += segment["end_s"] - segment["start_s"]
    every = [found for kind in found_by_kind.values() for found in kind]
    yield _share("buildable segments that were found", sum(every), len(every))
    yield f"  of their {seconds_buildable:.0f} s, {seconds_found:.0f} s are in right pairs"

    controls = [name for name, film in films.items() if film["is_control"]]
    giving = [name for name in controls if by_film[name]]
    yield _share("controls that gave a pair", len(giving), len(controls))

    yield f"{'kind':18} {'films':>5} {'buildable':>9} {'found':>5} {'pairs':>5} {'wrong':>5}"
    for kind in sorted({film["kind"] for film in films.values()}):
        names = [name for name, film in films.items() if film["kind"] == kind]
        built = sum(len(by_film[name]) for name in names)
        wrong = built - sum(sum(rightness.get(name, [])) for name in names)
        found = found_by_kind[kind]
        yield (f"{kind:18} {len(names):5} {len(found):9} {sum(found):5} {built:5} {wrong:5}")

    known = [(seen(p, films[film_id_of(p.video_id)]), p.speaker_id) for p in pairs]
    known = [(truth, found) for truth, found in known if truth is not None]
    truth, found = zip(*known, strict=True) if known else ((), ())
    yield (
        f"persons: {len(set(truth))} true, {len(set(found))} in the data set, "
        f"pairwise F1 {pairwise_f1(truth, found):.3f}"
    )
    splits, voices = defaultdict(set), defaultdict(set)
    for pair in pairs:
        film = films[film_id_of(pair.video_id)]
        splits[seen(pair, film)].add(pair.split)
        voice_of = {person["speaker_id"]: person["voice_id"] for person in film["people"]}
        voices[voice_of.get(heard(pair, film))].add(pair.split)
    for name, of_each in (("persons", splits), ("base voices", voices)):
        shared = sum(len(found) > 1 for known, found in of_each.items() if known is not None)
        yield f"{name} in more than one split: {shared}"


def _overlap(pair: BuiltPair, segment: dict) -> float:
    """Seconds that a pair and a segment share, negative if they lie apart."""
    return min(pair.end_s, segment["end_s"]) - max(pair.start_s, segment["start_s"])


def _is_half(shared_s: float, pair: BuiltPair, segment: dict) -> bool:
    """Whether the shared time is half of the shorter of the two."""
    shorter = min(pair.end_s - pair.start_s, segment["end_s"] - segment["start_s"])
    return shared_s >= 0.5 * shorter


def _share(what: str, count: int, total: int) -> str:
    """A line with a share and its 95 % interval (Wilson)."""
    from scipy.stats import binomtest

    if total == 0:
        return f"{what}: none to count"
    low, high = binomtest(count, total).proportion_ci(method="wilson")
    return f"{what}: {count} of {total}, {count / total:.1%} [{low:.1%}, {high:.1%}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.check_pairs",
        description="Holds pairs built from films of the cast against the films' truth.",
    )
    parser.add_argument("dataset", help="folder that dataset_scripts.speech_face_pairs built")
    parser.add_argument("films", help="folder that dataset_scripts.synthetic_cast --films made")
    options = parser.parse_args(arguments)
    try:
        for line in check(read_pairs(options.dataset), read_films(options.films)):
            print(line)
    except (OSError, ValueError) as error:
        print(f"check_pairs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
