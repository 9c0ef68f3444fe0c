"""What a voice encoder is made of, and which teacher of faces it was trained against."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig


@strict
class SpectrogramEncoderConfig(PreTrainedConfig):
    """Configuration of a `SpectrogramEncoder`; the defaults are the paper's (Table 1).

    Args:
        window_length (`int`): of the Hann window, in samples; 400 are 25 ms at 16 kHz.
        hop_length (`int`): from one frame to the next, in samples; 160 are 10 ms.
        fft_size (`int`): to which a window is padded with zeros; 512 give 257 frequencies.
        compression (`float`, above 0 to 1): exponent p of sgn(S)|S|^p; 1 leaves S as it is.
        conv_channels (`list[int]`): channels that each convolution puts out.
        conv_kernel (`int`): side of every kernel, in frames and in frequencies.
        conv_strides (`list[int]`): of each convolution, over time and over frequency alike.
        time_pools (`list[int]`): over how many frames the maximum is taken after each convolution;
            1 for no pooling. Frequencies are never pooled.
        batch_norm (`bool`): False leaves every batch norm out. Without it all faces look alike,
            says the paper: this is for showing so.

    Example:
        The whole voice encoder of the paper, for a teacher with 4096 values:

        ```python
        >>> from modeling_speech2face import Speech2FaceConfig, SpectrogramEncoderConfig
        >>> config = Speech2FaceConfig(
        ...     voice_encoder_config=SpectrogramEncoderConfig(),
        ...     projection_hidden_size=4096,
        ...     face_embedding_size=4096,
        ... )
        >>> config.voice_encoder_config.hidden_size  # 512 channels at 57 frequencies
        29184

        ```
    """

    model_type = "speech2face-spectrogram"

    window_length: int = 400  # samples, 25 ms
    hop_length: int = 160  # samples, 10 ms
    fft_size: int = 512
    compression: float | int = 0.3
    conv_channels: list[int] | tuple[int, ...] = (64, 64, 128, 128, 128, 256, 512, 512, 512)
    conv_kernel: int = 4
    conv_strides: list[int] | tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1, 2, 2)
    time_pools: list[int] | tuple[int, ...] = (1, 1, 2, 2, 2, 2, 1, 1, 1)
    batch_norm: bool = True

    def __post_init__(self, **kwargs):
        self.conv_channels = list(self.conv_channels)  # as they come back from a file
        self.conv_strides = list(self.conv_strides)
        self.time_pools = list(self.time_pools)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Refuses values that contradict each other."""
        sizes = [self.conv_channels, self.conv_strides, self.time_pools]
        if not self.conv_channels or len({len(of_layers) for of_layers in sizes}) > 1:
            raise ValueError(
                "conv_channels, conv_strides and time_pools must have a value for each "
                f"convolution, got {', '.join(str(len(of_layers)) for of_layers in sizes)} values."
            )
        numbers = [self.window_length, self.hop_length, self.conv_kernel, *sum(sizes, [])]
        if min(numbers) < 1:
            raise ValueError("lengths, channels, kernels, strides and pools must be at least 1.")
        if self.fft_size < self.window_length:
            raise ValueError(
                f"fft_size={self.fft_size} must not be less than "
                f"window_length={self.window_length}."
            )
        if not 0 < self.compression <= 1:
            raise ValueError(f"compression must be above 0 and at most 1, got {self.compression}.")
        if self.num_frequencies < 1:
            raise ValueError(
                f"the convolutions leave nothing of {self.fft_size // 2 + 1} frequencies: use "
                "fewer of them, smaller strides, or a larger fft_size."
            )

    @property
    def num_frequencies(self) -> int:
        """What the convolutions, which are not padded, leave of `fft_size // 2 + 1`."""
        size = self.fft_size // 2 + 1
        for stride in self.conv_strides:
            size = (size - self.conv_kernel) // stride + 1
        return size

    @property
    def hidden_size(self) -> int:
        """Values of a frame of the output: every channel at every frequency."""
        return self.conv_channels[-1] * self.num_frequencies

    @property
    def num_hidden_layers(self) -> int:
        """0: the output of the convolutions is the only hidden state."""
        return 0

    @property
    def min_samples(self) -> int:
        """How many samples one frame of the output hears."""
        frames = 1
        for stride, pool in zip(self.conv_strides[::-1], self.time_pools[::-1], strict=True):
            frames = (frames * pool - 1) * stride + self.conv_kernel
        return (frames - 1) * self.hop_length + self.window_length


@strict
class Speech2FaceConfig(PreTrainedConfig):
    """Configuration of a `Speech2FaceModel`.

    Args:
        voice_encoder_config (`PreTrainedConfig` or `dict`): the audio backbone, any
            configuration that `AutoConfig` knows and whose model takes a waveform (wav2vec2,
            HuBERT, WavLM, data2vec-audio), or the paper's `SpectrogramEncoderConfig`; a dict names
            its `model_type`. LayerDrop is switched off, because the weighted layer sum needs every
            layer.
        face_embedding_size (`int`): D, the size of the teacher's embedding.
        face_recogniser (`str`): the teacher's name; decoders of another teacher are refused.
        face_embedding_mean (`list[float]` of length D): mean of the teacher's embeddings over the
            training faces; predictions are centred by it. Zeros if not given.
        pooling_type (`str`, *optional*): "attentive_statistics", followed by LayerNorm and an MLP
            with GELU; or "mean", the paper's head: average over time, ReLU, batch norm, and an MLP
            with ReLU. None takes the paper's for the paper's encoder, and the other otherwise.
        projection_hidden_size (`int`): width of the MLP between pooling and embedding; 4096 in the
            paper.
        projection_dropout (`float`, 0 to 1): dropout inside that MLP; the paper's head has none.
        pooling_hidden_size (`int`): width of the attention in the statistics pooling.
        sampling_rate (`int`): of the input, in Hz.
        clip_seconds (`float`): length of a clip; shorter speech is looped to it, longer is cut into
            windows of it.
        do_normalize (`bool`): whether each waveform is brought to zero mean and unit variance.

    Example:
        ```python
        >>> from modeling_speech2face import Speech2FaceConfig
        >>> backbone = {"model_type": "wav2vec2", "num_hidden_layers": 2}
        >>> config = Speech2FaceConfig(voice_encoder_config=backbone)
        >>> config.face_embedding_size
        128

        ```
    """

    model_type = "speech2face"
    sub_configs = {"voice_encoder_config": AutoConfig}

    voice_encoder_config: dict | PreTrainedConfig | None = None
    face_embedding_size: int = 128
    face_recogniser: str = "dlib"
    face_embedding_mean: list[float] | None = None
    pooling_type: Literal["attentive_statistics", "mean"] | None = None
    projection_hidden_size: int = 256
    projection_dropout: float | int = 0.1
    pooling_hidden_size: int = 128
    sampling_rate: int = 16000  # Hz
    clip_seconds: float | int = 6.0
    do_normalize: bool = True

    def __post_init__(self, **kwargs):
        backbone = self.voice_encoder_config
        if backbone is None:
            backbone = {"model_type": "wav2vec2", "feat_extract_norm": "layer"}
        if isinstance(backbone, dict):
            backbone = {"model_type": "wav2vec2", **backbone}
            if backbone["model_type"] == SpectrogramEncoderConfig.model_type:
                # Not by AutoConfig, which does not know it where this file came from the Hub.
                backbone = SpectrogramEncoderConfig(**backbone)
            else:
                backbone = AutoConfig.for_model(**backbone)
        is_papers = backbone.model_type == SpectrogramEncoderConfig.model_type
        if not is_papers:
            backbone.layerdrop = 0.0  # the weighted sum needs every layer at every step
        self.voice_encoder_config = backbone
        if self.pooling_type is None:
            self.pooling_type = "mean" if is_papers else "attentive_statistics"
        if self.face_embedding_mean is None:
            self.face_embedding_mean = [0.0] * self.face_embedding_size
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Refuses values that contradict each other."""
        if len(self.face_embedding_mean) != self.face_embedding_size:
            raise ValueError(
                f"face_embedding_mean must have face_embedding_size={self.face_embedding_size} "
                f"values, got {len(self.face_embedding_mean)}."
            )
        if self.clip_seconds <= 0 or self.sampling_rate <= 0:
            raise ValueError("clip_seconds and sampling_rate must be positive.")
        if getattr(self.voice_encoder_config, "add_adapter", False):
            raise ValueError(
                "Set add_adapter=False in voice_encoder_config: its layers are pooled before "
                "an adapter."
            )
        shortest = getattr(self.voice_encoder_config, "min_samples", 0)
        clip_samples = round(self.clip_seconds * self.sampling_rate)
        if clip_samples < shortest:
            raise ValueError(
                f"clip_seconds={self.clip_seconds} are {clip_samples} samples, but this voice "
                f"encoder needs {shortest}: make clips longer."
            )
