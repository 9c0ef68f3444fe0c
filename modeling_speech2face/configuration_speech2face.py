"""What a voice encoder is made of, and which teacher of faces it was trained against."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig


@strict
class Speech2FaceConfig(PreTrainedConfig):
    """Configuration of a `Speech2FaceModel`.

    Args:
        voice_encoder_config (`PreTrainedConfig` or `dict`): the audio backbone, any
            configuration that `AutoConfig` knows and whose model takes a waveform (wav2vec2,
            HuBERT, WavLM, data2vec-audio); a dict names its `model_type`. LayerDrop is switched
            off, because the weighted layer sum needs every layer.
        face_embedding_size (`int`): D, the size of the teacher's embedding.
        face_recogniser (`str`): the teacher's name; decoders of another teacher are refused.
        face_embedding_mean (`list[float]` of length D): mean of the teacher's embeddings over the
            training faces; predictions are centred by it. Zeros if not given.
        projection_hidden_size (`int`): width of the MLP between pooling and embedding.
        projection_dropout (`float`, 0 to 1): dropout inside that MLP.
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
            backbone = AutoConfig.for_model(**{"model_type": "wav2vec2", **backbone})
        backbone.layerdrop = 0.0  # the weighted sum needs every layer at every step
        self.voice_encoder_config = backbone
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
