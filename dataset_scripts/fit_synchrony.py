"""Fits which motion of a mouth goes with which change of the sound, on films of the cast.

`python -m dataset_scripts.fit_synchrony FILMS [--workers N]` fits on films whose main person is in
the split `train`, writes `synchrony_weights.json` beside `synchrony.py`, and prints, on the films
of the other persons, how synchrony is scored where a face speaks and where the sound is another
film's. With `--report-only` it prints that for all films of the folder, and keeps the weights that
there are: those in the repository are from 90 films of 40 persons, seed 100. The thresholds in
`synchrony.py` are set by that table.

Letters as in `synchrony`: M motions, A features of the sound, D delays.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_scripts import synchrony
from dataset_scripts.face_tracks import track_faces
from dataset_scripts.records import FRAMES_PER_SECOND, SAMPLING_RATE, VideoRefused
from dataset_scripts.shots import mark_cuts
from dataset_scripts.speech_segments import find_speech
from dataset_scripts.video import probe, read_frames, read_speech

CONTEXT_S = 0.4  # before and after speech: when a mouth starts to move tells much
SHRINKAGE = 0.9  # of the null's covariance towards equal variances: real mouths are not the cast's
ALIGNMENTS = 4  # rounds of finding each speaker's lag by what was learnt from the others
STRANGERS = 12  # sounds of other films, against which each mouth is held
LENGTHS_S = ((1.0, 2.0), (2.0, 4.0), (4.0, 10.1))


@dataclass(frozen=True)
class Utterance:
    """A stretch of speech, and the mouth of a face that is seen during it.

    Attributes:
        film: its name.
        voice: whose recording is heard.
        is_fit: whether the film's persons are for fitting.
        speaks: whether the face speaks it.
        seconds: of speech, without what is before and after.
        motion: (T, M) as `synchrony.mouth_motion` gives it.
        sound: (T, A) as `synchrony.speech_changes` gives it.
    """

    film: str
    voice: str
    is_fit: bool
    speaks: bool
    seconds: float
    motion: np.ndarray
    sound: np.ndarray


def read_utterances(truth_file: Path) -> list[Utterance]:
    """All speech of a film with every face that is seen meanwhile.

    Args:
        truth_file: the JSON beside a film of the cast.
    """
    film = json.loads(truth_file.read_text(encoding="utf-8"))
    path = next(p for p in truth_file.parent.glob(f"{truth_file.stem}.*") if p != truth_file)
    try:
        info = probe(path)
        speech = read_speech(path, info)
        tracks = list(track_faces(mark_cuts(read_frames(path, info))))
    except VideoRefused:
        return []
    voices = {person["speaker_id"]: person["voice_id"] for person in film["people"]}
    is_fit = film["people"][0]["split"] == "train"
    utterances = []
    for segment in find_speech(speech):
        speaker = _speaker(film, segment.start_s, segment.end_s)
        start = round(max(0.0, segment.start_s - CONTEXT_S) * FRAMES_PER_SECOND)
        end = round((segment.end_s + CONTEXT_S) * FRAMES_PER_SECOND)
        for track in tracks:
            first, last = max(start, track.start), min(end, track.end)
            if speaker is None or last - first < 0.8 * (end - start):
                continue
            mouths = track.mouths[first - track.start : last - track.start]
            samples = [round(frame / FRAMES_PER_SECOND * SAMPLING_RATE) for frame in (first, last)]
            person = _person(film, (first + last) / 2 / FRAMES_PER_SECOND, track.place)
            utterances.append(
                Utterance(
                    film["film_id"],
                    voices[speaker["speaker_id"]],
                    is_fit,
                    speaker["visible"] and person == speaker["speaker_id"],
                    segment.end_s - segment.start_s,
                    synchrony.mouth_motion(mouths),
                    synchrony.speech_changes(speech[slice(*samples)], len(mouths)),
                )
            )
    return utterances


def fit_weights(utterances: Sequence[Utterance], seed: int = 0) -> np.ndarray:
    """Fisher's discriminant between mouths that speak a sound and mouths that do not.

    Every speaker's lips are some frames before or after the sound, so that the correlations are
    shifted by the lag at which the weights so far fit best, and averaged anew.

    Args:
        utterances: of which those are used in which the face speaks.
        seed: for the choice of unrelated sounds.

    Returns:
        (M, A, D) of unit length.

    Raises:
        ValueError: if no face speaks in them, or only one voice is heard.
    """
    spoken = [u for u in utterances if u.speaks]
    related = [_correlations(u.motion, u.sound) for u in spoken]
    rng = np.random.default_rng(seed)
    unrelated = [
        _around(_correlations(*pair), lag).ravel() * np.sqrt(len(pair[0]))
        for pair in strangers(spoken, rng)
        for lag in range(-synchrony.MAX_LAG, synchrony.MAX_LAG + 1, 2 * synchrony.REACH)
    ]
    if not unrelated:
        raise ValueError("expected speaking faces and at least two voices: make more films")
    covariance = np.cov(np.array(unrelated).T)
    equal = np.mean(np.diag(covariance)) * np.eye(len(covariance))
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * equal

    lengths = np.array([len(u.motion) for u in spoken], float)
    weights = _first_guess()
    for _ in range(ALIGNMENTS):
        aligned = [_around(c, _best_lag(c, weights)) for c in related]
        mean = np.average(aligned, axis=0, weights=lengths)
        weights = np.linalg.solve(covariance, mean.ravel()).reshape(mean.shape)
    return weights / np.linalg.norm(weights)


def strangers(
    utterances: Sequence[Utterance], rng: np.random.Generator, count: int = STRANGERS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of a mouth's motion (T, M) and the sound (T, A) of another voice in another film."""
    for mouth in utterances:
        for k in rng.permutation(len(utterances))[:count]:
            other = utterances[k]
            if other.film != mouth.film and other.voice != mouth.voice:
                frames = min(len(mouth.motion), len(other.sound))
                yield mouth.motion[:frames], other.sound[:frames]


def report(utterances: Sequence[Utterance], seed: int = 0) -> Iterator[str]:
    """Lines of a table: how speaking faces and unrelated ones are scored, by length of speech."""
    rng = np.random.default_rng(seed)
    heading = (
        "median, lowest, share from MIN_SCORE | unrelated: 99 %, highest, share from MIN_SCORE"
    )
    yield f"seconds  speaking | {heading}"
    for shortest, longest in LENGTHS_S:
        group = [u for u in utterances if shortest <= u.seconds < longest]
        true = _scores((u.motion, u.sound) for u in group if u.speaks)
        false = _scores(strangers(group, rng, count=60))
        if len(true) and len(false):
            yield (
                f"{shortest:.0f}-{longest:.0f} {len(true):5}: {np.median(true):5.2f} "
                f"{true.min():5.2f} {np.mean(true >= synchrony.MIN_SCORE):6.1%} | {len(false)}: "
                f"{np.quantile(false, 0.99):5.2f} {false.max():5.2f} "
                f"{np.mean(false >= synchrony.MIN_SCORE):6.2%}"
            )
    others = _scores((u.motion, u.sound) for u in utterances if not u.speaks)
    if len(others):
        share = np.mean(others >= synchrony.MIN_SCORE)
        yield f"silent faces {len(others)}: highest {others.max():.2f}, from MIN_SCORE {share:.2%}"


def _scores(pairs) -> np.ndarray:
    return np.array([synchrony.compare(motion, sound).score for motion, sound in pairs])


def _correlations(motion: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """(M, A, L) of every motion with every sound, at lags up to `MAX_LAG + REACH` either way."""
    most = synchrony.MAX_LAG + synchrony.REACH
    padded = np.pad(sound, ((most, most), (0, 0)))
    lags = range(2 * most + 1)
    return np.stack([motion.T @ padded[k : k + len(motion)] for k in lags], -1) / len(motion)


def _around(correlations: np.ndarray, lag: int) -> np.ndarray:
    """(M, A, L) -> (M, A, D), those whose middle is a lag."""
    middle = correlations.shape[-1] // 2 + lag
    return correlations[..., middle - synchrony.REACH : middle + synchrony.REACH + 1]


def _best_lag(correlations: np.ndarray, weights: np.ndarray) -> int:
    lags = range(-synchrony.MAX_LAG, synchrony.MAX_LAG + 1)
    fit = np.array([(weights * _around(correlations, lag)).sum() for lag in lags])
    return lags[int(np.argmax(fit / (fit.std() + 1e-9) - synchrony.rarity()))]


def _first_guess() -> np.ndarray:
    """A jaw that sinks, and a mouth that darkens, as the vowels' bands rise."""
    shape = len(synchrony.MOTIONS), len(synchrony.SOUNDS), 2 * synchrony.REACH + 1
    weights = np.zeros(shape)
    for motion in ("jaw", "darkness"):
        for sound in ("rise_1", "rise_2", "rise_3"):
            bump = np.exp(-0.5 * np.arange(-synchrony.REACH, synchrony.REACH + 1) ** 2)
            weights[synchrony.MOTIONS.index(motion), synchrony.SOUNDS.index(sound)] = bump
    return weights


def _speaker(film: dict, start_s: float, end_s: float) -> dict | None:
    """The film's segment that fills nine tenths of a stretch."""
    for segment in film["segments"]:
        shared = min(end_s, segment["end_s"]) - max(start_s, segment["start_s"])
        if shared > 0.9 * (end_s - start_s):
            return segment
    return None


def _person(film: dict, time_s: float, place: tuple[float, float]) -> str | None:
    """Whose face is nearest to a place (x, y; shares of the picture)."""
    nearest, person = np.inf, None
    for appearance in film["appearances"]:
        if appearance["start_s"] - 0.1 <= time_s <= appearance["end_s"] + 0.1:
            path = np.asarray(appearance["path"], float)  # (moments, [t, x, y, pixels, yaw])
            x, y = (np.interp(time_s, path[:, 0], path[:, k]) for k in (1, 2))
            distance = np.hypot(x - place[0], y - place[1])
            if distance < nearest:
                nearest, person = distance, appearance["speaker_id"]
    return person


def main(arguments: Sequence[str] | None = None) -> int:
    """Fits, writes and reports; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.fit_synchrony",
        description="Fits the weights by which mouths and sounds are compared.",
    )
    parser.add_argument("films", type=Path, help="that synthetic_cast --films made")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report-only", action="store_true", help="keep the weights; all persons")
    options = parser.parse_args(arguments)
    files = sorted(options.films.glob("videos/*.json"))
    if not files:
        print(
            f"{options.films} holds no films: make some with "
            "python -m dataset_scripts.synthetic_cast FOLDER --films N",
            file=sys.stderr,
        )
        return 2
    with ProcessPoolExecutor(options.workers) as workers:
        found = [u for part in workers.map(read_utterances, files) for u in part]
    if not options.report_only:
        try:
            weights = fit_weights([u for u in found if u.is_fit])
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        write_weights(weights, synchrony.WEIGHTS_FILE)
        synchrony.read_weights.cache_clear()
    for line in report([u for u in found if options.report_only or not u.is_fit]):
        print(line)
    return 0


def write_weights(weights: np.ndarray, path: Path) -> None:
    """Writes weights (M, A, D) as JSON, a motion and a sound a line."""
    rows = [
        f'  "{motion} {sound}": {json.dumps([round(float(w), 4) for w in weights[m, a]])}'
        for m, motion in enumerate(synchrony.MOTIONS)
        for a, sound in enumerate(synchrony.SOUNDS)
    ]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
