"""Where in a recording somebody speaks, by the network and weights of silero-vad.

The library walks through a recording chunk by chunk; here the convolutions of all chunks run as one
batch and only the recurrence is sequential: the same probabilities, ten times sooner.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

SAMPLING_RATE = 16000  # Hz
CHUNK_SAMPLES = 512  # 32 ms, one probability each
CONTEXT_SAMPLES = 64  # 4 ms of the chunk before
SPEECH_THRESHOLD = 0.5  # the library's default
MIN_SPEECH_SECONDS = 1.0
SILENCE_PEAK = 1e-3  # -60 dB of full scale


class VoiceActivityNetwork(nn.Module):
    """silero-vad 6 for 16 kHz (https://github.com/snakers4/silero-vad, MIT)."""

    def __init__(self):
        super().__init__()
        self.stft = nn.Conv1d(1, 258, kernel_size=256, stride=128, bias=False)
        self.encoder = nn.ModuleList(
            [
                nn.Conv1d(129, 128, kernel_size=3, padding=1),
                nn.Conv1d(128, 64, kernel_size=3, stride=2, padding=1),
                nn.Conv1d(64, 64, kernel_size=3, stride=2, padding=1),
                nn.Conv1d(64, 128, kernel_size=3, padding=1),
            ]
        )
        self.rnn = nn.LSTM(128, 128, batch_first=True)
        self.decoder = nn.Conv1d(128, 1, kernel_size=1)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:  # (samples,) -> (chunks,)
        padding = -waveform.numel() % CHUNK_SAMPLES
        padded = nn.functional.pad(waveform, (CONTEXT_SAMPLES, padding))
        chunks = padded.unfold(0, CONTEXT_SAMPLES + CHUNK_SAMPLES, CHUNK_SAMPLES)
        chunks = nn.functional.pad(chunks[:, None], (0, 64), mode="reflect")  # (chunks, 1, 640)
        # In blocks, so that a long recording needs no more memory than a minute.
        encoded = torch.cat([self._encode(block) for block in chunks.split(2000)])
        hidden, _ = self.rnn(encoded[None])  # (1, chunks, 128)
        return self.decoder(hidden.relu().transpose(1, 2)).sigmoid()[0, 0]

    def _encode(self, chunks: torch.Tensor) -> torch.Tensor:  # (chunks, 1, 640) -> (chunks, 128)
        real, imaginary = self.stft(chunks).chunk(2, dim=1)
        hidden = (real**2 + imaginary**2).sqrt()  # (chunks, 129, 4)
        for convolution in self.encoder:
            hidden = convolution(hidden).relu()
        return hidden[:, :, 0]


# The library's names for the weights, and ours. An LSTM cell and a one-layer LSTM differ in names.
_RENAMES = (
    ("_model.stft.forward_basis_buffer", "stft.weight"),
    ("_model.decoder.decoder.2.", "decoder."),
    ("_model.decoder.rnn.weight_ih", "rnn.weight_ih_l0"),
    ("_model.decoder.rnn.weight_hh", "rnn.weight_hh_l0"),
    ("_model.decoder.rnn.bias_ih", "rnn.bias_ih_l0"),
    ("_model.decoder.rnn.bias_hh", "rnn.bias_hh_l0"),
    ("_model.encoder.", "encoder."),
    ("reparam_conv.", ""),
)


@cache
def _network() -> VoiceActivityNetwork:
    """The network with the weights that the package `silero-vad` brings."""
    # Found, not imported: importing silero_vad sets torch to one thread for the whole process.
    package = find_spec("silero_vad")
    if package is None:
        raise ImportError("Finding speech needs silero-vad: run `pip install silero-vad`.")
    # A TorchScript archive, read by the library's own way: it runs no Python and unpickles nothing
    # but tensors, and who could change this file could change the package beside it. The package's
    # safetensors file would be nicer, but holds other weights than those that the library uses.
    original = torch.jit.load(Path(package.origin).parent / "data" / "silero_vad.jit")
    weights = {}
    for name, weight in original.state_dict().items():
        if name.startswith("_model."):  # the other half is for 8 kHz
            for theirs, ours in _RENAMES:
                name = name.replace(theirs, ours)
            weights[name] = weight
    network = VoiceActivityNetwork().eval()
    network.load_state_dict(weights)
    return network


@torch.inference_mode()
def speech_probabilities(waveform: torch.Tensor) -> torch.Tensor:
    """The probability that somebody speaks, for every 32 ms.

    Args:
        waveform (`torch.Tensor` `(samples,)`): mono, 16 kHz, -1 to 1.

    Returns:
        `torch.Tensor` `(ceil(samples / 512),)`, float32, 0 to 1.

    Raises:
        ImportError: silero-vad is not installed.
    """
    return _network()(waveform.detach().float().cpu())


class NoSpeechError(ValueError):
    """The recording holds no speech, or too little of it to say anything about the voice."""


def speech_share_of_windows(
    waveform: torch.Tensor, sampling_rate: int, window_samples: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Cuts a recording into windows and says how much of each is speech.

    Args:
        waveform (`torch.Tensor` `(samples,)`): mono, -1 to 1.
        sampling_rate (`int`): must be 16000 Hz.
        window_samples (`int`): length of a window; a shorter recording is one shorter window.

    Returns:
        The windows, spread evenly so that they cover the recording, and their share of speech
        `(windows,)`, 0 to 1.

    Raises:
        NoSpeechError: silence, noise or music, or less than one second of speech.
    """
    if sampling_rate != SAMPLING_RATE:
        raise ValueError(f"expected sampling_rate={SAMPLING_RATE} Hz, got {sampling_rate}.")
    is_speech = _speech_of(waveform)  # (chunks,)
    count = max(1, -(-waveform.numel() // window_samples))
    last_start = max(0, waveform.numel() - window_samples)
    starts = [last_start * index // max(1, count - 1) for index in range(count)]
    windows = [waveform[start : start + window_samples] for start in starts]
    shares = []
    for start, window in zip(starts, windows, strict=True):
        first, last = start // CHUNK_SAMPLES, (start + window.numel()) // CHUNK_SAMPLES
        shares.append(is_speech[first : max(last, first + 1)].float().mean())
    return windows, torch.stack(shares)


def _speech_of(waveform: torch.Tensor) -> torch.Tensor:
    """Whether each chunk is speech; refuses a recording that has less than a second of it."""
    seconds = waveform.numel() / SAMPLING_RATE
    if seconds < MIN_SPEECH_SECONDS:
        raise NoSpeechError(
            f"the recording lasts {seconds:.1f} s, but at least {MIN_SPEECH_SECONDS:g} s of speech "
            "is needed: record a sentence or two."
        )
    if waveform.abs().max() < SILENCE_PEAK:
        raise NoSpeechError("the recording is silent: check the microphone and record again.")
    is_speech = speech_probabilities(waveform) >= SPEECH_THRESHOLD
    speech_seconds = is_speech.sum().item() * CHUNK_SAMPLES / SAMPLING_RATE
    if speech_seconds < 0.1:  # a few chunks of noise may look like speech
        raise NoSpeechError(
            "no speech was found in the recording: use one in which somebody speaks clearly."
        )
    if speech_seconds < MIN_SPEECH_SECONDS:
        raise NoSpeechError(
            f"only {speech_seconds:.1f} s of speech was found, but at least "
            f"{MIN_SPEECH_SECONDS:g} s is needed: record a sentence or two."
        )
    return is_speech
