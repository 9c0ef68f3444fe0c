"""The voices of the cast: LibriSpeech's readers, Kokoro's voices, and their shifts."""

import csv
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_scripts.synthetic_cast.speech_synthesis import (
    SAMPLING_RATE,
    KokoroSynthesiser,
    SyntheticVoice,
    list_synthetic_voices,
    sentences_of_voice,
)
from dataset_scripts.synthetic_cast.traits import VoiceParameters
from dataset_scripts.synthetic_cast.voice_measurement import measure_formant_spacing, measure_pitch
from dataset_scripts.synthetic_cast.voice_shift import shift_voice

SPEAKERS_FILE = Path(__file__).parent.parent / "librispeech_speakers.tsv"
LIBRISPEECH_REPOSITORY = "openslr/librispeech_asr"
LIBRISPEECH_SPLITS = {  # subset -> configuration and split of the Hub's data set
    "train-clean-100": ("clean", "train.100"),
    "test-other": ("other", "test"),
}
UTTERANCE_SECONDS = 10.0  # of a recording are used, from its beginning
CLIP_SECONDS = (3.0, 8.0)  # a clip's shortest and longest duration, where its recording allows
# Means over the readers of SPEAKERS_FILE. Constants, so that a new voice changes nobody's.
MEAN_FORMANT_SPACING_HZ = {"female": 1180.0, "male": 1010.0}


@dataclass(frozen=True)
class BaseVoice:
    """A recorded or synthetic speaker, from whose speech cast members' voices are made.

    Attributes:
        voice_id: "librispeech/103", "kokoro/af_bella" or "blend/af_bella+bf_emma".
        split: "train", "validation" or "test"; all that is made of the voice stays there.
        gender: "female" or "male", as labelled.
        is_real: recorded from a person.
        median_pitch_hz: measured.
        formant_spacing_hz: measured, see `measure_formant_spacing`.
        utterances: audio files, mono, 16 kHz.
        licence: SPDX name of the licence of the speech.
    """

    voice_id: str
    split: str
    gender: str
    is_real: bool
    median_pitch_hz: float
    formant_spacing_hz: float
    utterances: tuple[Path, ...]
    licence: str

    @property
    def formant_ratio(self) -> float:
        """Formant spacing relative to the gender's mean; above 1: a shorter vocal tract."""
        return self.formant_spacing_hz / MEAN_FORMANT_SPACING_HZ[self.gender]


def load_librispeech_voices(folder: str | Path) -> list[BaseVoice]:
    """Finds the utterances of the readers of `librispeech_speakers.tsv`.

    Args:
        folder: holds the FLAC files that the list names, at any depth: LibriSpeech as
            distributed, or what `download_librispeech` wrote.

    Returns:
        The readers, in the list's order.

    Raises:
        FileNotFoundError: if an utterance is missing.
    """
    files = {path.stem: path for path in sorted(Path(folder).rglob("*.flac"))}
    rows = read_speakers()
    missing = [name for row in rows for name in row["utterances"] if name not in files]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} LibriSpeech utterances, {missing[0]}.flac for one:"
            " give a folder with train-clean-100 and test-other, or none to download them."
        )
    return [
        BaseVoice(
            voice_id=f"librispeech/{row['speaker_id']}",
            split=row["split"],
            gender=row["gender"],
            is_real=True,
            median_pitch_hz=float(row["median_pitch_hz"]),
            formant_spacing_hz=float(row["formant_spacing_hz"]),
            utterances=tuple(files[name] for name in row["utterances"]),
            licence="CC-BY-4.0",
        )
        for row in rows
    ]


def load_synthetic_voices(
    kokoro: str | Path, cache: str | Path, num_blends: int, sentences_per_voice: int
) -> list[BaseVoice]:
    """Lets Kokoro's voices and blends of them speak, and measures what they said.

    Args:
        kokoro: folder of the model, see `KokoroSynthesiser`.
        cache: folder for the speech; what it holds already is not spoken again.
        num_blends: voices between two of Kokoro's.
        sentences_per_voice: how many sentences of about 6 s each voice reads.

    Returns:
        Kokoro's voices, then the blends.
    """
    from tqdm import tqdm

    synthesiser = KokoroSynthesiser(kokoro, cache)
    voices = list_synthetic_voices(num_blends)
    return [
        _measured(voice, [synthesiser.speak(voice, text) for text in sentences])
        for voice in tqdm(voices, desc="synthetic voices", unit="voice")
        for sentences in [sentences_of_voice(voice.voice_id, sentences_per_voice)]
    ]


def render_voice(
    parameters: VoiceParameters, base: BaseVoice, number: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Makes clips of a cast member's speech.

    Args:
        parameters: the voice that is wanted.
        base: the voice that it is made from; its id is `parameters.voice_id`.
        number: of clips; each is cut from another utterance as long as there are any.
        rng: chooses utterances and cuts, and makes breath.

    Returns:
        Clips, each (samples,) float32 at 16 kHz, 3 to 8 s where the recordings are long enough.

    Raises:
        ValueError: if `base` is another voice than the parameters name.
    """
    if base.voice_id != parameters.voice_id:
        raise ValueError(f"expected the base voice {parameters.voice_id}, got {base.voice_id}")
    order = rng.permutation(len(base.utterances))
    clips = []
    for k in range(number):
        recording = _read(base.utterances[order[k % len(order)]])
        seconds = rng.uniform(*CLIP_SECONDS) * parameters.rate_ratio
        length = min(len(recording), round(seconds * SAMPLING_RATE))
        start = rng.integers(len(recording) - length + 1)
        clips.append(
            shift_voice(
                recording[start : start + length],
                SAMPLING_RATE,
                pitch_ratio=parameters.pitch_hz / base.median_pitch_hz,
                formant_ratio=parameters.formant_ratio / base.formant_ratio,
                rate_ratio=parameters.rate_ratio,
                breathiness=parameters.breathiness,
                rng=rng,
            )
        )
    return clips


def read_speakers() -> list[dict]:
    """Reads the committed list of LibriSpeech's readers and their splits.

    Returns:
        Rows with the file's columns as strings, `utterances` as a list.
    """
    with SPEAKERS_FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [{**row, "utterances": row["utterances"].split()} for row in rows]


def download_librispeech(cache: str | Path) -> Path:
    """Fetches the listed utterances from the Hugging Face Hub, and nothing else of LibriSpeech.

    Args:
        cache: where the FLAC files are kept, at most 10 s of each; whole once, it is not asked for
            again.

    Returns:
        The folder, for `load_librispeech_voices`.

    Raises:
        RuntimeError: if the Hub cannot be reached.
    """
    folder = Path(cache) / "librispeech"
    for subset, (configuration, split) in LIBRISPEECH_SPLITS.items():
        wanted = {
            name: folder / row["speaker_id"] / f"{name}.flac"
            for row in read_speakers()
            if row["subset"] == subset
            for name in row["utterances"]
        }
        wanted = {name: path for name, path in wanted.items() if not path.is_file()}
        try:
            _download_utterances(configuration, split, wanted)
        except Exception as error:  # the Hub's client raises many kinds; none says what to do
            raise RuntimeError(
                f"Cannot download {LIBRISPEECH_REPOSITORY} from the Hub: connect to the network,"
                " or give a folder that holds it with --librispeech."
            ) from error
    return folder


def _download_utterances(configuration: str, split: str, wanted: dict[str, Path]) -> None:
    import io

    import soundfile
    from tqdm import tqdm

    with tqdm(total=len(wanted), desc=f"LibriSpeech {split}", unit="utterance") as progress:
        rows = _stream_librispeech(configuration, split) if wanted else iter(())
        while wanted:
            row = next(rows)
            path = wanted.pop(row["id"], None)
            if path is None:
                continue
            waveform, sampling_rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".unfinished")
            waveform = waveform[: int(UTTERANCE_SECONDS * sampling_rate)]
            soundfile.write(unfinished, waveform, sampling_rate, format="FLAC")
            unfinished.replace(path)
            progress.update()


def _stream_librispeech(configuration: str, split: str) -> Iterator[dict]:
    from datasets import Audio, load_dataset

    rows = load_dataset(LIBRISPEECH_REPOSITORY, configuration, split=split, streaming=True)
    return iter(rows.cast_column("audio", Audio(decode=False)))


def _measured(voice: SyntheticVoice, utterances: Sequence[Path]) -> BaseVoice:
    """Measures a synthetic voice, or reads what was measured; kept beside its first utterance."""
    key = hashlib.sha256("\n".join(path.name for path in utterances).encode()).hexdigest()[:8]
    path = utterances[0].with_suffix(f".{key}.json")
    if not path.is_file():
        speech = np.concatenate([_read(utterance) for utterance in utterances])
        measured = {
            "median_pitch_hz": round(measure_pitch(speech, SAMPLING_RATE), 1),
            "formant_spacing_hz": round(
                measure_formant_spacing(speech, SAMPLING_RATE, voice.gender), 0
            ),
        }
        path.write_text(json.dumps(measured), encoding="utf-8")
    return BaseVoice(
        voice_id=voice.voice_id,
        split=voice.split,
        gender=voice.gender,
        is_real=False,
        utterances=tuple(utterances),
        licence="Apache-2.0",
        **json.loads(path.read_text(encoding="utf-8")),
    )


@functools.lru_cache(maxsize=64)
def _read(path: Path) -> np.ndarray:
    import soundfile

    waveform, sampling_rate = soundfile.read(path, dtype="float32", frames=-1)
    if sampling_rate != SAMPLING_RATE:
        raise ValueError(f"expected {SAMPLING_RATE} Hz in {path}, got {sampling_rate} Hz")
    return waveform[: int(UTTERANCE_SECONDS * SAMPLING_RATE)]
