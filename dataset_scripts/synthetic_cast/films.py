"""Talking-head films of the cast, with the truth beside each: `build_films(out, config, voices)`.

One film is one unit of work, made from (seed, index) alone and written whole or not at all; a
killed run makes the missing films, and ends with the same bytes.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from .articulation import measure_loudness
from .film_motion import Motion, move_person
from .film_renderer import FilmRenderer, View
from .film_script import KINDS, FilmScript, Setting, Speech, draw_script
from .film_sound import compose_music, make_noise
from .film_truth import describe_film
from .film_writing import write_film
from .laws import draw_member
from .processes import run_tasks
from .voices import BaseVoice, render_voice

SAMPLING_RATE = 16000  # Hz
FILMS_VERSION = "2"
PAUSE_S = (0.3, 0.8)  # between two recordings
SHORTEST_S = 1.3  # of room that a recording is put into
TRIM_LOUDNESS = 0.12
MUSIC_DB, NOISE_DB = (10.0, 16.0), (8.0, 15.0)  # that speech is louder
FADE = 160  # samples
GRAIN_MARGIN = 64  # pixels by which a frame's noise is moved about
TIME_STREAM, SPEECH_STREAM, SOUND_STREAM, PICTURE_STREAM = 42, 43, 44, 45  # of random numbers


@dataclass(frozen=True)
class FilmsConfig:
    """Which films are made; with the base voices it determines every byte.

    Attributes:
        films: how many.
        speakers: members of the cast; film k is about member k mod this.
        seed: of everything; a member is the one of the cast of this seed.
    """

    films: int
    speakers: int
    seed: int = 0

    def __post_init__(self):
        for name, least in (("films", 1), ("speakers", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def build_films(
    out: str | Path, config: FilmsConfig, base_voices: Sequence[BaseVoice], workers: int = 1
) -> Path:
    """Makes films of a cast.

    Args:
        out: folder for `films.json` and `videos`; a killed run in it is continued.
        config: what to make.
        base_voices: what the members' voices are made from, of all three splits.
        workers: processes; each draws with its own renderer.

    Returns:
        The folder.

    Raises:
        FileExistsError: if the folder holds other films.
        ValueError: if a split lacks base voices of a gender.
    """
    from tqdm import tqdm

    out = Path(out)
    for index in range(config.speakers):  # a missing voice shows before the first hour
        draw_member(config.seed, index, base_voices)
    about = _about(config, base_voices)
    _claim(out, about)
    videos = out / "videos"
    videos.mkdir(exist_ok=True)
    for unfinished in videos.glob("*.unfinished"):
        unfinished.unlink()
    missing = [
        draw_script(config.seed, index, config.speakers, base_voices)
        for index in range(config.films)
        if not (videos / f"film-{config.seed}-{index:06d}.json").exists()
    ]
    finished = config.films - len(missing)
    with tqdm(total=config.films, initial=finished, desc="films", unit="film") as progress:
        for _ in _run(missing, base_voices, videos, workers):
            progress.update()
    return out


def make_film(script: FilmScript, base_voices: Sequence[BaseVoice], folder: str | Path) -> Path:
    """Plays a script and writes the film, and the truth beside it.

    Args:
        script: see `draw_script`.
        base_voices: at least those of its people.
        folder: for both files; the truth comes last: where it is, the film is whole.

    Returns:
        The film's path; its truth has the suffix ".json".

    Raises:
        RuntimeError: if no OpenGL context can be made.
        KeyError: if a base voice is missing.

    Example:
        >>> script = draw_script(0, 0, 3, base_voices, kind="plain", size=(256, 256), duration_s=3)
        >>> make_film(script, base_voices, tmp_path)
    """
    folder = Path(folder)
    voices = {voice.voice_id: voice for voice in base_voices}
    times_s = _frame_times(script)
    heard, said, spoken = _speak(script, voices)
    motions = [move_person(script, k, said[k], times_s) for k in range(len(script.people))]
    views = [_views(script, motions, k, time_s) for k, time_s in enumerate(times_s)]
    path = folder / (script.film_id + script.encoding.suffix)
    unfinished = path.with_suffix(".film.unfinished")
    pictures = _pictures(script, times_s, views)
    write_film(unfinished, script.encoding, pictures, times_s, script.rate, _mix(script, heard))
    unfinished.replace(path)
    truth = describe_film(script, voices, spoken, times_s, views)
    unfinished = path.with_suffix(".truth.unfinished")
    unfinished.write_text(json.dumps(truth), encoding="utf-8")
    unfinished.replace(path.with_suffix(".json"))
    return path


def _run(
    scripts: list[FilmScript], base_voices: Sequence[BaseVoice], folder: Path, workers: int
) -> Iterator[Path]:
    """Makes films, in this process or in several, and yields each when it is written."""
    used = {voice.voice_id: voice for voice in base_voices}
    tasks = [
        (script, [used[name] for name in sorted({m.voice.voice_id for m in script.people})], folder)
        for script in scripts
    ]
    return run_tasks(make_film, tasks, workers)


def _about(config: FilmsConfig, base_voices: Sequence[BaseVoice]) -> dict:
    voices = [{**asdict(v), "utterances": [p.name for p in v.utterances]} for v in base_voices]
    everything = json.dumps([FILMS_VERSION, asdict(config), voices], sort_keys=True)
    return {
        "films_version": FILMS_VERSION,
        **asdict(config),
        "kinds": sorted(set(KINDS)),
        "licence": "of each person's speech: that of the base voice, see the film's truth; "
        "the rest: CC0-1.0",
        "fingerprint": hashlib.sha256(everything.encode()).hexdigest(),
    }


def _claim(out: Path, about: dict) -> None:
    """Writes `films.json`, or finds that the folder is for these films already."""
    path = out / "films.json"
    text = json.dumps(about, indent=1)
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return
        raise FileExistsError(f"{out} holds other films: choose another folder or remove it")
    if (out / "videos").exists() or [*out.glob("*.parquet"), *out.glob("unfinished-*")]:
        raise FileExistsError(f"{out} holds something else: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / "films.unfinished"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _frame_times(script: FilmScript) -> np.ndarray:
    """When each picture is shown (frames,), seconds."""
    step_s = 1 / float(script.rate)
    times_s = np.arange(int(script.duration_s * script.rate)) * step_s
    if script.is_variable:
        rng = np.random.default_rng([*script.seed, TIME_STREAM])
        kept = rng.random(len(times_s)) > 0.15
        kept[0] = True
        times_s = times_s[kept]
        times_s[1:] += rng.uniform(-0.25, 0.25, len(times_s) - 1) * step_s
        times_s = np.round(times_s, 3)
    return times_s


def _speak(
    script: FilmScript, voices: dict[str, BaseVoice]
) -> tuple[list[np.ndarray], list[np.ndarray], list[Speech]]:
    """What is heard of each person, what each mouth says, and the recordings that are heard."""
    count = round(script.duration_s * SAMPLING_RATE)
    heard = [np.zeros(count, np.float32) for _ in script.people]
    said = [np.zeros(count, np.float32) for _ in script.people]
    spoken = []
    for k, speech in enumerate(script.voices):
        for start, clip in _recordings(script, speech, voices, k):
            heard[speech.person][start : start + len(clip)] = clip
            end = start + len(clip)
            spoken.append(Speech(speech.person, start / SAMPLING_RATE, end / SAMPLING_RATE))
    for k, speech in enumerate(script.unheard):
        for start, clip in _recordings(script, speech, voices, len(script.voices) + k):
            said[speech.person][start : start + len(clip)] = clip
    # Those who are heard move their mouths to it, whether they are seen or not.
    said = [s if s.any() else h for s, h in zip(said, heard, strict=True)]
    return heard, said, spoken


def _recordings(
    script: FilmScript, speech: Speech, voices: dict[str, BaseVoice], stream: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Fill a stretch with a person's speech: first sample and samples of each recording.

    Each take begins with another utterance; a voice that has only one gives other parts of it.
    """
    rng = np.random.default_rng([*script.seed, SPEECH_STREAM, stream])
    member = script.people[speech.person]
    base = voices[member.voice.voice_id]
    at, end = round(speech.start_s * SAMPLING_RATE), round(speech.end_s * SAMPLING_RATE)
    number = script.take + stream
    while end - at > SHORTEST_S * SAMPLING_RATE:
        utterance = base.utterances[number % len(base.utterances)]
        (clip,) = render_voice(member.voice, replace(base, utterances=(utterance,)), 1, rng)
        clip = _trimmed(clip, end - at)
        yield at, clip
        at += len(clip) + round(rng.uniform(*PAUSE_S) * SAMPLING_RATE)
        number += 1


def _trimmed(clip: np.ndarray, longest: int) -> np.ndarray:
    """Cut off silence before and after speech, and what is too long; fade in and out."""
    loud = np.flatnonzero(measure_loudness(clip) > TRIM_LOUDNESS)
    if len(loud):
        clip = clip[max(0, loud[0] - 3) * 160 : (loud[-1] + 4) * 160]
    clip = clip[:longest].copy()
    fade = np.linspace(0, 1, FADE, dtype=np.float32)
    clip[:FADE] *= fade
    clip[-FADE:] *= fade[::-1]
    return clip


def _mix(script: FilmScript, heard: list[np.ndarray]) -> np.ndarray:
    """All that is heard (samples,), moved by the film's offset."""
    rng = np.random.default_rng([*script.seed, SOUND_STREAM])
    speech = np.sum(heard, 0)
    count = len(speech)
    peak = float(np.abs(speech).max())
    speech = speech * (rng.uniform(0.3, 0.8) / peak) if peak > 0 else speech
    level = float(np.sqrt((speech**2).mean()))
    seconds = count / SAMPLING_RATE
    hiss = rng.standard_normal(count) * 10 ** rng.uniform(-4.2, -3.0)
    if script.kind == "music":
        sound = compose_music(seconds, rng)[:count] * rng.uniform(0.5, 1.4) + hiss
    elif script.kind == "noise":
        sound = make_noise(seconds, rng)[:count] * rng.uniform(0.3, 1.0) + hiss
    elif script.kind == "speech_in_music":
        sound = speech + _at_level(compose_music(seconds, rng)[:count], level, MUSIC_DB, rng)
    elif script.kind == "speech_in_noise":
        sound = speech + _at_level(make_noise(seconds, rng)[:count], level, NOISE_DB, rng)
    else:
        sound = speech + hiss
    shift = round(script.offset_s * SAMPLING_RATE)
    if shift > 0:
        sound = np.concatenate([np.zeros(shift), sound[:-shift]])
    elif shift < 0:
        sound = np.concatenate([sound[-shift:], np.zeros(-shift)])
    return np.clip(sound, -1, 1).astype(np.float32)


def _at_level(sound: np.ndarray, level: float, below_db, rng: np.random.Generator) -> np.ndarray:
    ratio = 10 ** (-rng.uniform(*below_db) / 20)
    return sound * (level * ratio / max(float(np.sqrt((sound**2).mean())), 1e-9))


def _views(script: FilmScript, motions: list[Motion], frame: int, time_s: float) -> dict[int, View]:
    """How each person in this frame is drawn, by index."""
    shot = script.shot_at(time_s)
    views = {}
    for placement in shot.placements:
        motion = motions[placement.person]
        views[placement.person] = View(
            traits=script.people[placement.person].traits,
            yaw=float(placement.yaw + motion.yaw[frame]),
            pitch=float(placement.pitch + motion.pitch[frame]),
            roll=float(motion.roll[frame]),
            azimuth=placement.azimuth,
            place=(
                float(placement.x + motion.x[frame]),
                float(placement.y + motion.y[frame]),
            ),
            head_share=float(np.interp(time_s, (shot.start_s, shot.end_s), placement.head_share)),
            distance=placement.distance,
            expression={name: float(track[frame]) for name, track in motion.actions.items()},
            light=shot.setting.light,
            clothes=script.clothes[placement.person],
        )
    return views


def _pictures(script: FilmScript, times_s: np.ndarray, views: list[dict]) -> Iterator[np.ndarray]:
    """Draw frame after frame: (height, width, 3) uint8 RGB."""
    import cv2

    rng = np.random.default_rng([*script.seed, PICTURE_STREAM])
    width, height = script.size
    grain = rng.standard_normal((height + GRAIN_MARGIN, width + GRAIN_MARGIN, 3), np.float32)
    shot, background, noise = None, None, None
    for time_s, people in zip(times_s, views, strict=True):
        if script.shot_at(time_s) is not shot:
            shot = script.shot_at(time_s)
            background = paint_set(shot.setting, script.size)
            noise = np.rint(grain * shot.setting.noise).astype(np.int16)
        picture = _renderer().draw(script.size, background, list(people.values()))
        picture = cv2.GaussianBlur(picture, (0, 0), shot.setting.blur)
        contrast = shot.setting.contrast
        picture = cv2.convertScaleAbs(picture, alpha=contrast, beta=118 * (1 - contrast))
        y, x = rng.integers(0, GRAIN_MARGIN, 2)
        here = np.ascontiguousarray(noise[y : y + height, x : x + width])
        yield cv2.add(picture, here, dtype=cv2.CV_8U)


def paint_set(setting: Setting, size: tuple[int, int]) -> np.ndarray:
    """Paints what is behind the people: a wall, and blurred things before it.

    Args:
        setting: of the shot.
        size: (width, height), pixels.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    import cv2

    rng = np.random.default_rng(setting.background_seed)
    width, height = size
    base = rng.uniform(30, 200)
    ramp = np.linspace(0, 1, height)[:, None, None]
    top, bottom = base + rng.normal(0, 14, 3), base * rng.uniform(0.6, 1.2) + rng.normal(0, 12, 3)
    picture = (top * (1 - ramp) + bottom * ramp) * np.ones((1, width, 1))
    picture = np.ascontiguousarray(picture, np.float32)
    for _ in range(int(rng.integers(0, 14))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        across, down = rng.uniform(10, width / 3), rng.uniform(10, height / 2)
        colour = np.clip(base + rng.normal(0, 45) + rng.normal(0, 18, 3), 5, 250).tolist()
        if rng.random() < 0.7:
            corner = int(x + across), int(y + down)
            cv2.rectangle(picture, (int(x), int(y)), corner, colour, -1)
        else:
            cv2.circle(picture, (int(x), int(y)), int(across / 2), colour, -1)
    picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.8, 7)))
    return np.clip(picture, 0, 255).astype(np.uint8)


@functools.cache
def _renderer() -> FilmRenderer:
    return FilmRenderer()
