"""Text to speech with Kokoro-82M (Apache-2.0): its voices, and new ones between two of them.

Kokoro speaks in whatever voice its style vector describes, so the mean of two styles is a third
voice. What it says is written to a cache by content (model, styles, text, accent): a killed run
continues, and the same request always gives the same bytes.
"""

import hashlib
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

KOKORO_REPOSITORY = "onnx-community/Kokoro-82M-v1.0-ONNX"
SAMPLING_RATE = 16000  # Hz, of everything that leaves this module
SPEECH_SPEED = 1.0
SENTENCES = tuple(
    Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines()
)

# First letter: language (American, British, Spanish, French, Hindi, Italian, Japanese, Portuguese,
# Mandarin); second: female or male. All of them read English here, in their own manner. Kokoro's
# zm_yunxia is left out: a child's voice, and the cast is grown up.
KOKORO_VOICES = (
    *("af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole"),
    *("af_nova", "af_river", "af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir"),
    *("am_liam", "am_michael", "am_onyx", "am_puck", "am_santa", "bf_alice", "bf_emma"),
    *("bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george", "bm_lewis", "ef_dora"),
    *("em_alex", "em_santa", "ff_siwis", "hf_alpha", "hf_beta", "hm_omega", "hm_psi", "if_sara"),
    *("im_nicola", "jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo", "pf_dora"),
    *("pm_alex", "pm_santa", "zf_xiaobei", "zf_xiaoni", "zf_xiaoxiao", "zf_xiaoyi", "zm_yunjian"),
    *("zm_yunxi", "zm_yunyang"),
)
# Final: a voice never changes its split. None of these resembles a voice of another split (cosine
# of the styles below .85); the twins ef_dora/pf_dora, em_alex/pm_alex and em_santa/pm_santa train.
TEST_VOICES = ("af_kore", "bf_lily", "if_sara", "am_eric", "bm_lewis")
VALIDATION_VOICES = ("af_river", "hf_beta", "zf_xiaoni", "am_liam", "bm_daniel", "hm_omega")


@dataclass(frozen=True)
class SyntheticVoice:
    """One Kokoro voice, or the voice halfway between two of the same gender and split.

    Attributes:
        voice_id: "kokoro/af_bella" or "blend/af_bella+bf_emma".
        parts: the Kokoro voices whose styles are averaged.
        gender: "female" or "male".
        split: "train", "validation" or "test".
    """

    voice_id: str
    parts: tuple[str, ...]
    gender: str
    split: str

    @property
    def accent(self) -> str:
        """The variety of English that espeak-ng is asked for."""
        return "en-gb" if self.parts[0].startswith("b") else "en-us"


def split_of_kokoro_voice(name: str) -> str:
    """Tells the split of a Kokoro voice.

    Args:
        name: one of KOKORO_VOICES.

    Returns:
        "train", "validation" or "test".
    """
    if name in TEST_VOICES:
        return "test"
    return "validation" if name in VALIDATION_VOICES else "train"


def gender_of_kokoro_voice(name: str) -> str:
    """Tells the gender that Kokoro's authors gave a voice ("af_bella" -> "female")."""
    return "female" if name[1] == "f" else "male"


def list_synthetic_voices(num_blends: int) -> list[SyntheticVoice]:
    """Lists all Kokoro voices, then blends of two, in an order that more blends only lengthen.

    Args:
        num_blends: how many blends; fewer come back if there are not so many pairs.

    Returns:
        The voices; a blend's two parts share gender and split.
    """
    singles = [
        SyntheticVoice(
            f"kokoro/{name}", (name,), gender_of_kokoro_voice(name), split_of_kokoro_voice(name)
        )
        for name in KOKORO_VOICES
    ]
    blends = [
        SyntheticVoice(
            f"blend/{a.parts[0]}+{b.parts[0]}", (a.parts[0], b.parts[0]), a.gender, a.split
        )
        for a, b in itertools.combinations(singles, 2)
        if (a.gender, a.split) == (b.gender, b.split)
        # "Alex" speaks Spanish and Portuguese with one voice: nothing lies between them.
        and a.parts[0].split("_")[1] != b.parts[0].split("_")[1]
    ]
    blends.sort(key=lambda voice: _digest("blend order", voice.voice_id))
    # A random order could be mostly women: alternate, so that any number of blends is balanced.
    women = [voice for voice in blends if voice.gender == "female"]
    men = [voice for voice in blends if voice.gender == "male"]
    alternating = [voice for pair in itertools.zip_longest(women, men) for voice in pair if voice]
    return singles + alternating[:num_blends]


def sentences_of_voice(voice_id: str, number: int) -> list[str]:
    """Chooses the sentences that a voice reads, by a hash of its name.

    Args:
        voice_id: the voice's name.
        number: how many sentences; a larger number only appends.

    Returns:
        The sentences, all different.
    """
    return sorted(SENTENCES, key=lambda text: _digest(voice_id, text))[:number]


def download_kokoro() -> Path:
    """Fetches Kokoro-82M (int8 ONNX, 92 MB, and its voices, 28 MB) from the Hugging Face Hub.

    Returns:
        The folder, laid out as `KokoroSynthesiser` expects it.

    Raises:
        RuntimeError: if the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    patterns = ["onnx/model_quantized.onnx", "voices/*.bin", "config.json", "tokenizer.json"]
    try:
        return Path(snapshot_download(KOKORO_REPOSITORY, allow_patterns=patterns))
    except Exception as error:  # the Hub's client raises many kinds, none of which helps the reader
        raise RuntimeError(
            f"Cannot download {KOKORO_REPOSITORY} from the Hub: connect to the network, or give a"
            " folder that holds it with --kokoro."
        ) from error


class KokoroSynthesiser:
    """Speaks English sentences with Kokoro-82M, and remembers what it has spoken.

    Args:
        folder: holds `onnx/model_quantized.onnx`, `voices/*.bin` and `config.json` (or
            `tokenizer.json`), as the Hub repository `onnx-community/Kokoro-82M-v1.0-ONNX` does.
        cache: folder for the FLAC files of what was spoken; made when needed.
        num_threads: threads of the ONNX runtime.

    Example:
        >>> synthesiser = KokoroSynthesiser("kokoro", "cache")  # doctest: +SKIP
        >>> path = synthesiser.speak(list_synthetic_voices(0)[0], "Good morning.")  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, cache: str | Path, num_threads: int = 2):
        self.folder = Path(folder)
        self.cache = Path(cache)
        self.num_threads = num_threads
        if not self._model_path.is_file():
            raise FileNotFoundError(
                f"No Kokoro model at {self._model_path}: give the folder of a copy of"
                f" {KOKORO_REPOSITORY}."
            )

    def speak(self, voice: SyntheticVoice, text: str) -> Path:
        """Speaks one sentence, unless the cache already holds it.

        Args:
            voice: who speaks.
            text: what is said, English, at most some 400 characters.

        Returns:
            A FLAC file: mono, 16 kHz, 16 bits, peak at most 0.95.
        """
        import soundfile

        path = self.path_of(voice, text)
        if not path.is_file():
            waveform = self._synthesise(voice, text)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(path.name + ".unfinished")
            soundfile.write(unfinished, waveform, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
            unfinished.replace(path)
        return path

    def path_of(self, voice: SyntheticVoice, text: str) -> Path:
        """Names the cache file of one sentence in one voice, whether or not it exists."""
        key = _digest(self._model_digest, *voice.parts, voice.accent, str(SPEECH_SPEED), text)
        return self.cache / key[:2] / f"{key}.flac"

    def _synthesise(self, voice: SyntheticVoice, text: str) -> np.ndarray:
        phonemes = _phonemise(text, voice.accent)
        ids = [self._vocabulary[symbol] for symbol in phonemes if symbol in self._vocabulary]
        style = np.mean([self._style(name)[len(ids) - 1] for name in voice.parts], axis=0)  # (256,)
        session = self._session
        (waveform,) = session.run(
            None,
            {
                session.get_inputs()[0].name: np.array([[0, *ids, 0]], dtype=np.int64),
                "style": style[None].astype(np.float32),
                "speed": np.array([SPEECH_SPEED], dtype=np.float32),
            },
        )
        return _to_16_khz(np.ravel(waveform))

    @property
    def _model_path(self) -> Path:
        return self.folder / "onnx" / "model_quantized.onnx"

    @cached_property
    def _model_digest(self) -> str:
        return hashlib.sha256(self._model_path.read_bytes()).hexdigest()

    @cached_property
    def _session(self):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.log_severity_level = 3  # errors; the rewritten graph warns about every old weight
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(
            _with_float_convolutions(self._model_path), options, providers=["CPUExecutionProvider"]
        )

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        if "vocab" in config:
            return config["vocab"]
        tokenizer = json.loads((self.folder / "tokenizer.json").read_text(encoding="utf-8"))
        return tokenizer["model"]["vocab"]

    def _style(self, name: str) -> np.ndarray:
        path = self.folder / "voices" / f"{name}.bin"
        return np.fromfile(path, dtype="<f4").reshape(-1, 256)  # row n - 1: n phonemes


def _phonemise(text: str, accent: str) -> str:
    """Writes English text in IPA as espeak-ng does, with the punctuation that gives it rhythm."""
    import espeakng_loader
    from phonemizer.backend import EspeakBackend
    from phonemizer.backend.espeak.wrapper import EspeakWrapper

    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    backend = EspeakBackend(accent, preserve_punctuation=True, with_stress=True)
    return backend.phonemize([text], strip=True)[0]


def _with_float_convolutions(path: Path) -> bytes:
    """Loads an int8 ONNX model and lets its convolutions compute the same integers in floats.

    ConvInteger has no fast kernel on CPUs and takes 86 % of the time; this more than halves it.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "ConvInteger":
            nodes.append(node)
            continue
        signal, kernel, signal_zero, kernel_zero = node.input
        new = f"{node.output[0]}_float"
        kernel_float = numpy_helper.to_array(weights[kernel]).astype(np.float32)
        kernel_float -= numpy_helper.to_array(weights[kernel_zero]).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(kernel_float, f"{new}_kernel"))
        convolution = helper.make_node("Conv", [f"{new}_signal", f"{new}_kernel"], [f"{new}_sum"])
        convolution.attribute.extend(node.attribute)
        nodes += [
            helper.make_node("Cast", [signal], [f"{new}_raw"], to=TensorProto.FLOAT),
            helper.make_node("Cast", [signal_zero], [f"{new}_zero"], to=TensorProto.FLOAT),
            helper.make_node("Sub", [f"{new}_raw", f"{new}_zero"], [f"{new}_signal"]),
            convolution,
            helper.make_node("Round", [f"{new}_sum"], [f"{new}_rounded"]),
            helper.make_node("Cast", [f"{new}_rounded"], list(node.output), to=TensorProto.INT32),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def _to_16_khz(waveform: np.ndarray) -> np.ndarray:
    from scipy.signal import resample_poly

    waveform = resample_poly(waveform.astype(np.float64), 2, 3)  # 24 kHz -> 16 kHz
    peak = np.abs(waveform).max()
    return waveform * min(1.0, 0.95 / peak) if peak > 0 else waveform


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
