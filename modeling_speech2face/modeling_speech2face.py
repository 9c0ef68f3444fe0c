"""A voice in, the embedding of the face that a listener could expect behind it out.

Letters: B rows of a batch, T frames, H hidden size of the backbone, D size of the face embedding.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .checkpoints import loading
from .configuration_speech2face import SpectrogramEncoderConfig, Speech2FaceConfig
from .feature_extraction_speech2face import Speech2FaceFeatureExtractor
from .modeling_spectrogram_encoder import SpectrogramEncoder
from .voice_activity import speech_share_of_windows

WINDOWS_PER_BATCH = 8  # bounds the memory that a long recording needs

# Backbones that blank padded frames before anything mixes frames. The others (a group norm over
# time, data2vec's stacked positional convolutions) see padding, so their rows run without any.
BLANKS_PADDING = ("wav2vec2", "hubert", "wavlm")

# The paper's encoder is known by its name: code that comes with a checkpoint is loaded once for the
# configuration and once for the model, and then there are two classes.
PAPERS_ENCODER = SpectrogramEncoderConfig.model_type


@dataclass
class Speech2FaceOutput(ModelOutput):
    """What `Speech2FaceModel` returns.

    Args:
        face_embeddings (`torch.Tensor` `(B, D)`): prediction, centred by the teacher's mean.
        pooled (`torch.Tensor` `(B, pooled_size)`): what is projected to the embedding. Mean and
            standard deviation over time, 2 H values; with `pooling_type="mean"` the mean after ReLU
            and batch norm, H values.
        layer_weights (`torch.Tensor` `(layers + 1,)`): share of each hidden layer, summing to 1;
            the first is the output of the convolutions. A `SpectrogramEncoder` has no other.
    """

    face_embeddings: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    layer_weights: torch.Tensor | None = None


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and standard deviation over time (https://arxiv.org/abs/1803.10963)."""

    def __init__(self, hidden_size: int, attention_size: int):
        super().__init__()
        self.attention = nn.Sequential(
            nn.Linear(hidden_size, attention_size),
            nn.Tanh(),
            nn.Linear(attention_size, hidden_size),  # a weight for every channel, as in ECAPA-TDNN
        )

    def forward(self, hidden: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        """Pools `hidden` (B, T, H) where `frame_mask` (B, T) is true to (B, 2 H)."""
        scores = self.attention(hidden).float()  # (B, T, H)
        if frame_mask is not None:
            scores = scores.masked_fill(~frame_mask[..., None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=1)
        values = hidden.float()
        mean = (weights * values).sum(dim=1)  # (B, H)
        variance = (weights * (values - mean[:, None]) ** 2).sum(dim=1)
        deviation = variance.clamp(min=1e-6).sqrt()  # the square root has no slope at zero
        return torch.cat([mean, deviation], dim=-1).to(hidden.dtype)


class AveragePooling(nn.Module):
    """Average over time, ReLU, batch norm, as in the paper (Table 1).

    Batch norm has statistics for each channel, over rows and frequencies.
    """

    def __init__(self, channels: int, batch_norm: bool):
        super().__init__()
        self.norm = nn.BatchNorm1d(channels) if batch_norm else None

    def forward(self, hidden: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
        """Pools `hidden` (B, T, H) where `frame_mask` (B, T) is true to (B, H)."""
        values = hidden.float()
        if frame_mask is None:
            mean = values.mean(dim=1)  # (B, H)
        else:
            values = values.masked_fill(~frame_mask[..., None], 0)
            mean = values.sum(dim=1) / frame_mask.sum(dim=1)[:, None]
        pooled = mean.to(hidden.dtype).relu()
        if self.norm is not None:
            by_channel = pooled.unflatten(1, (self.norm.num_features, -1))
            pooled = self.norm(by_channel).flatten(1)
        return pooled


class Speech2FaceModel(PreTrainedModel):
    """Predicts the face recogniser's embedding from a voice.

    An audio backbone, a learned sum of all its hidden layers, attentive-statistics pooling and a
    small MLP; or the paper's: `SpectrogramEncoder`, average over time, and two fully connected
    layers. Padding does not change a row's result. With the prediction comes the covariance of what
    a voice leaves open, estimated on validation speakers, from which faces are drawn.

    Args:
        config (`Speech2FaceConfig`): what to build.

    Attributes:
        pooled_size (`int`): size of the output's `pooled`.

    Example:
        ```python
        >>> import torch
        >>> from modeling_speech2face import Speech2FaceConfig, Speech2FaceModel
        >>> backbone = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 1,
        ...             "num_attention_heads": 2, "feat_extract_norm": "layer"}
        >>> config = Speech2FaceConfig(voice_encoder_config=backbone)
        >>> model = Speech2FaceModel(config).eval()
        >>> model(torch.randn(2, 16000)).face_embeddings.shape
        torch.Size([2, 128])

        ```
    """

    config_class = Speech2FaceConfig
    base_model_prefix = "speech2face"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: Speech2FaceConfig):
        super().__init__(config)
        backbone = config.voice_encoder_config
        hidden_size, embedding_size = backbone.hidden_size, config.face_embedding_size
        channels, batch_norm = hidden_size, True
        if backbone.model_type == PAPERS_ENCODER:
            # Not by AutoModel, which does not know it where this file came from the Hub.
            self.voice_encoder = SpectrogramEncoder(backbone)
            channels, batch_norm = backbone.conv_channels[-1], backbone.batch_norm
            self.supports_gradient_checkpointing = False
        else:
            self.voice_encoder = AutoModel.from_config(backbone)
        self.layer_scores = nn.Parameter(torch.zeros(backbone.num_hidden_layers + 1))
        if config.pooling_type == "mean":
            self.pooled_size = hidden_size
            self.pooling = AveragePooling(channels, batch_norm)
            self.projection = nn.Sequential(
                nn.Linear(hidden_size, config.projection_hidden_size),
                nn.ReLU(),
                nn.Linear(config.projection_hidden_size, embedding_size),
            )
        else:
            self.pooled_size = 2 * hidden_size
            self.pooling = AttentiveStatisticsPooling(hidden_size, config.pooling_hidden_size)
            self.projection = nn.Sequential(
                nn.LayerNorm(2 * hidden_size),
                nn.Linear(2 * hidden_size, config.projection_hidden_size),
                nn.GELU(),
                nn.Dropout(config.projection_dropout),
                nn.Linear(config.projection_hidden_size, embedding_size),
            )
        self.register_buffer("face_embedding_mean", torch.tensor(config.face_embedding_mean))
        # L with covariance = L L^T; zeros, hence draws equal to the prediction, until estimated.
        self.register_buffer("residual_factor", torch.zeros(embedding_size, embedding_size))
        self.post_init()

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            init.zeros_(self.layer_scores)
            init.copy_(self.face_embedding_mean, torch.tensor(self.config.face_embedding_mean))
            init.zeros_(self.residual_factor)
            if self.config.pooling_type == "mean":
                # As He et al. propose: the library's fixed deviation is too wide for the 29,184
                # inputs of the paper. The last layer starts small, hence near the mean face.
                init.kaiming_normal_(self.projection[0].weight, nonlinearity="relu")
                init.normal_(self.projection[-1].weight, std=1 / self.projection[-1].in_features)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs) -> "Speech2FaceModel":
        """Loads a model from a folder or a Hub repository, as any `PreTrainedModel`.

        Only safetensors are read: nothing is unpickled.

        Raises:
            CheckpointError: weights or configuration that are missing, damaged, or of no such
                model.
        """
        with loading(pretrained_model_name_or_path):
            return super().from_pretrained(
                pretrained_model_name_or_path, *args, **{**kwargs, "use_safetensors": True}
            )

    @classmethod
    def from_voice_encoder_pretrained(
        cls, pretrained_model_name_or_path: str, **config_kwargs
    ) -> "Speech2FaceModel":
        """Builds a model around a pretrained audio backbone; pooling and projection are new.

        Args:
            pretrained_model_name_or_path (`str`): folder or Hub repository of the backbone, such as
                "facebook/wav2vec2-base".
            config_kwargs: further fields of `Speech2FaceConfig`.

        Returns:
            `Speech2FaceModel` with the backbone's weights, in evaluation mode.
        """
        voice_encoder = AutoModel.from_pretrained(pretrained_model_name_or_path)
        if Path(pretrained_model_name_or_path).is_dir():
            voice_encoder.config.name_or_path = ""  # a path of this machine is nobody's business
        config = Speech2FaceConfig(voice_encoder_config=voice_encoder.config, **config_kwargs)
        model = cls(config)
        model.voice_encoder.load_state_dict(voice_encoder.state_dict())
        return model.eval()

    def freeze_voice_encoder(self) -> None:
        """Excludes the backbone from training."""
        self.voice_encoder.requires_grad_(False)

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Speech2FaceOutput | tuple:
        """Predicts face embeddings.

        Args:
            input_values (`torch.Tensor` `(B, samples)`): normalised waveforms from the feature
                extractor.
            attention_mask (`torch.Tensor` `(B, samples)`, *optional*): 1 for speech, 0 for padding,
                which must be on the right.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `Speech2FaceOutput`; its `face_embeddings` `(B, D)` are centred.
        """
        layers, frame_mask = self._hidden_layers(input_values, attention_mask)
        layer_weights = self.layer_scores.softmax(dim=0)  # (layers + 1,)
        hidden = sum(weight * layer for weight, layer in zip(layer_weights, layers, strict=True))
        pooled = self.pooling(hidden, frame_mask)  # (B, 2 H)
        face_embeddings = self.projection(pooled)  # (B, D)
        if return_dict is False:
            return face_embeddings, pooled, layer_weights
        return Speech2FaceOutput(face_embeddings, pooled, layer_weights)

    def _hidden_layers(self, input_values, attention_mask):
        """All hidden layers, each (B, T, H), and the mask of frames (B, T) or None."""
        # Compiled or exported code cannot look into the mask, and has to go by it.
        can_look = not torch.compiler.is_compiling()
        if attention_mask is None or (can_look and bool(attention_mask.all())):
            return self.voice_encoder(input_values, output_hidden_states=True).hidden_states, None
        lengths = attention_mask.sum(dim=-1)  # (B,) samples
        if self.sees_padding():
            return self._hidden_layers_by_length(input_values, lengths)
        outputs = self.voice_encoder(
            input_values, attention_mask=attention_mask, output_hidden_states=True
        )
        frames = self.voice_encoder._get_feat_extract_output_lengths(lengths)
        return outputs.hidden_states, _mask_of(frames, outputs.hidden_states[0].shape[1])

    def sees_padding(self) -> bool:
        """Whether the backbone mixes padding into a row, so that rows must run without any."""
        backbone = self.config.voice_encoder_config
        if backbone.model_type == PAPERS_ENCODER:
            return False  # its convolutions are not padded: a frame hears its own samples alone
        return (
            backbone.model_type not in BLANKS_PADDING
            or getattr(backbone, "feat_extract_norm", None) != "layer"
        )

    def _hidden_layers_by_length(self, input_values, lengths):
        """Runs rows of equal length together and without padding, then pads the frames."""
        groups = [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]
        runs = [
            torch.stack(
                self.voice_encoder(
                    input_values[rows, : lengths[rows[0]]], output_hidden_states=True
                ).hidden_states
            )  # (layers + 1, rows, frames, H)
            for rows in groups
        ]
        most_frames = max(run.shape[2] for run in runs)
        padded = [nn.functional.pad(run, (0, 0, 0, most_frames - run.shape[2])) for run in runs]
        back_in_order = torch.cat(groups).argsort()
        frames = torch.cat([lengths.new_full((run.shape[1],), run.shape[2]) for run in runs])[
            back_in_order
        ]
        layers = torch.cat(padded, dim=1)[:, back_in_order]  # (layers + 1, B, T, H)
        return layers.unbind(0), _mask_of(frames, most_frames)

    @property
    def feature_extractor(self) -> Speech2FaceFeatureExtractor:
        """The feature extractor that belongs to this configuration."""
        return Speech2FaceFeatureExtractor(
            sampling_rate=self.config.sampling_rate,
            clip_seconds=self.config.clip_seconds,
            do_normalize=self.config.do_normalize,
        )

    @torch.no_grad()
    def embed_clip(self, waveform: torch.Tensor, sampling_rate: int) -> torch.Tensor:
        """Embeds one clip as it is, whether anybody speaks in it or not.

        Args:
            waveform (array or tensor `(samples,)`): mono, -1 to 1; shorter than the clip is looped.
            sampling_rate (`int`): in Hz; must be the configuration's.

        Returns:
            `torch.Tensor` `(D,)`: the centred prediction, float32.

        Raises:
            ValueError: another sampling rate, or a waveform that is not mono, empty or not finite.
        """
        return self._embed_windows([waveform], sampling_rate, self.feature_extractor)[0]

    @torch.no_grad()
    def embed_recording(
        self,
        waveform: torch.Tensor,
        sampling_rate: int,
        feature_extractor: Speech2FaceFeatureExtractor | None = None,
    ) -> torch.Tensor:
        """Embeds a recording of any length.

        Windows of `clip_seconds` cover it evenly; their embeddings are averaged with the share of
        speech in each as weight.

        Args:
            waveform (array or tensor `(samples,)`): mono, -1 to 1.
            sampling_rate (`int`): in Hz; must be the configuration's.
            feature_extractor (`Speech2FaceFeatureExtractor`, *optional*): that of the configuration
                if None.

        Returns:
            `torch.Tensor` `(D,)`: the centred prediction, float32.

        Raises:
            NoSpeechError: silence, noise or music, or less than one second of speech.
            ValueError: as `embed_clip`.
        """
        extractor = feature_extractor or self.feature_extractor
        if sampling_rate != extractor.sampling_rate:
            raise ValueError(
                f"expected sampling_rate={extractor.sampling_rate} Hz, got {sampling_rate}; "
                "resample the waveform first."
            )
        waveform = torch.as_tensor(waveform, dtype=torch.float32).detach().cpu()
        if waveform.ndim != 1 or not torch.isfinite(waveform).all():
            raise ValueError(
                "expected a mono waveform of shape (samples,) without NaN or infinite samples, got "
                f"shape {tuple(waveform.shape)}; average its channels, or repair it first."
            )
        windows, speech_share = speech_share_of_windows(
            waveform, sampling_rate, extractor.clip_samples
        )
        voiced = [window for window, share in zip(windows, speech_share, strict=True) if share > 0]
        weights = speech_share[speech_share > 0].to(self.device)
        embeddings = self._embed_windows(voiced, sampling_rate, extractor)  # (windows, D)
        return (weights[:, None] * embeddings).sum(dim=0) / weights.sum()

    def _embed_windows(self, windows: list, sampling_rate: int, extractor) -> torch.Tensor:
        """Centred predictions (windows, D) of waveforms, a few at a time."""
        embeddings = []
        for start in range(0, len(windows), WINDOWS_PER_BATCH):
            batch = windows[start : start + WINDOWS_PER_BATCH]
            inputs = extractor(batch, sampling_rate, return_tensors="pt")
            inputs = inputs.to(self.device)
            inputs["input_values"] = inputs["input_values"].to(self.dtype)
            embeddings.append(self(**inputs).face_embeddings.float())
        return torch.cat(embeddings)

    @property
    def residual_covariance(self) -> torch.Tensor:
        """Covariance (D, D) of true minus predicted embeddings on validation speakers."""
        return self.residual_factor @ self.residual_factor.T

    @torch.no_grad()
    def set_residual_covariance(self, residuals: torch.Tensor) -> None:
        """Estimates what a voice leaves open, shrunk towards a sphere (Ledoit and Wolf, 2004).

        Args:
            residuals (`torch.Tensor` `(N, D)`): true minus predicted embeddings, at least two rows,
                from speakers on whom the model was not trained. Their mean is not removed: a
                prediction that is off is uncertain.

        Raises:
            ValueError: another shape, fewer than two rows, or values that are not finite.
        """
        size = self.config.face_embedding_size
        if residuals.ndim != 2 or residuals.shape[1] != size or len(residuals) < 2:
            raise ValueError(
                f"expected residuals of shape (at least 2, {size}), got {tuple(residuals.shape)}."
            )
        if not torch.isfinite(residuals).all():
            raise ValueError("the residuals contain NaN or infinite values; leave those rows out.")
        covariance = shrunk_covariance(residuals.double())
        self.residual_factor.copy_(torch.linalg.cholesky(covariance))

    @torch.no_grad()
    def sample_face_embeddings(
        self, prediction: torch.Tensor, num: int, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Draws faces that fit a voice, from N(prediction, residual covariance).

        Args:
            prediction (`torch.Tensor` `(D,)`): a centred prediction.
            num (`int`): how many to draw.
            generator (`torch.Generator`, *optional*): for exact repetition; its device is used.

        Returns:
            `torch.Tensor` `(num, D)`: centred draws, float32, on the device of the prediction.
        """
        device = generator.device if generator is not None else "cpu"
        noise = torch.randn(num, prediction.shape[-1], generator=generator, device=device)
        factor = self.residual_factor.float().to(prediction.device)
        return prediction.float() + noise.to(prediction.device) @ factor.T


def shrunk_covariance(residuals: torch.Tensor) -> torch.Tensor:
    """Second moment of `residuals` (N, D) about zero, shrunk as far as its own noise asks.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices"
    (2004): the mixture of sample covariance and scaled identity that is expected to be nearest to
    the truth.
    """
    count, size = residuals.shape
    sample = residuals.T @ residuals / count  # (D, D)
    scale = sample.trace() / size
    sphere = scale * torch.eye(size, dtype=residuals.dtype, device=residuals.device)
    distance = ((sample - sphere) ** 2).sum()
    noise = ((residuals**2).sum(dim=1) ** 2).sum() / count**2 - (sample**2).sum() / count
    shrinkage = (noise / distance.clamp(min=1e-30)).clamp(1e-4, 1.0)
    covariance = (1 - shrinkage) * sample + shrinkage * sphere
    return covariance + 1e-12 * torch.eye(size, dtype=residuals.dtype, device=residuals.device)


def _mask_of(lengths: torch.Tensor, most: int) -> torch.Tensor:
    """(B,) lengths to a (B, most) mask that is true where there is something."""
    return torch.arange(most, device=lengths.device)[None] < lengths[:, None]
