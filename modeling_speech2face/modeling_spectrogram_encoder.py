"""The paper's voice encoder: a convolutional network over the complex spectrogram.

Letters: B rows of a batch, T frames, F frequencies, C channels, H = C F values of an output frame.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from .configuration_speech2face import SpectrogramEncoderConfig

# Below this, sgn(S)|S|^p turns into a straight line through zero, where its slope would be
# infinite. White noise of unit variance has |S| near 9; this is 79 dB below.
STRAIGHT_BELOW = 1e-3


class SpectrogramEncoder(PreTrainedModel):
    """The convolutions of the paper's voice encoder (https://arxiv.org/abs/1905.09773, Table 1).

    A backbone for `Speech2FaceModel`, which adds the rest of the table: the average over time,
    ReLU, batch norm and two fully connected layers. With the paper's 6 s, 4096 hidden units and
    4096 values of a face embedding, the whole has 148,062,977 parameters, one of them the share of
    the only hidden layer; with 128 values, dlib's, it has 131,806,081. The convolutions have
    11,738,880 of them. 6 s of speech become 598 frames of 257 frequencies, and these 6 frames of 57
    frequencies in 512 channels.

    What the paper leaves open is decided here:

    - The waveform comes as the feature extractor gives it, with unit variance, so that loudness
      does not matter. The spectrogram is not scaled further.
    - The Hann window is periodic. Frames begin every `hop_length` samples as long as a whole window
      fits, and each is padded with zeros at its end: 598 frames for 6 s.
    - Convolutions and pools are not padded. A frame of the output then hears its own 2.6 s
      (`config.min_samples`) and nothing else, so that neither padding nor neighbours in the batch
      change it; shorter input is refused.
    - Every convolution has a bias and is followed by ReLU, then batch norm, as the table prints
      them; the last one by neither, because both come after the average over time.
    - The maximum is taken over pairs of frames. Frequencies are kept, and all of them enter the
      first fully connected layer: channels times frequencies are the `hidden_size`, ordered by
      channel.
    - Batch norm is torch's (momentum 0.1, eps 1e-5), with statistics for each channel over rows,
      frames and frequencies. In training they include padded frames: train on clips of equal
      length. Each process of a distributed training has its own unless the model goes through
      `torch.nn.SyncBatchNorm.convert_sync_batchnorm`. The running ones are float32 under autocast;
      a model that is itself cast to bfloat16 is for inference.
    - Weights are drawn as He et al. propose for ReLU (normal, fan in); biases are zero.
    - sgn(S)|S|^p is computed as S (S^2 + e^2)^((p - 1) / 2) with e = 0.001: the same to 0.4 % from
      |S| = 0.01 on, and with a finite slope at zero, so that silence gives finite gradients.

    There is no gradient checkpointing: a second pass would count every batch twice in the running
    statistics.

    Args:
        config (`SpectrogramEncoderConfig`): what to build.

    Example:
        ```python
        >>> import torch
        >>> from modeling_speech2face import SpectrogramEncoder, SpectrogramEncoderConfig
        >>> config = SpectrogramEncoderConfig(
        ...     conv_channels=[8, 8, 16], conv_strides=[1, 2, 2], time_pools=[2, 1, 1]
        ... )
        >>> encoder = SpectrogramEncoder(config).eval()
        >>> encoder.spectrogram(torch.randn(2, 96000)).shape  # 6 s
        torch.Size([2, 2, 598, 257])
        >>> encoder(torch.randn(2, 96000)).last_hidden_state.shape  # 16 channels, 62 frequencies
        torch.Size([2, 72, 992])

        ```
    """

    config_class = SpectrogramEncoderConfig
    base_model_prefix = "spectrogram_encoder"
    main_input_name = "input_values"
    input_modalities = ("audio",)

    def __init__(self, config: SpectrogramEncoderConfig):
        super().__init__(config)
        layers, channels_in = [], 2  # real and imaginary part
        sizes = list(zip(config.conv_channels, config.conv_strides, config.time_pools, strict=True))
        for index, (channels, stride, pool) in enumerate(sizes):
            layers.append(nn.Conv2d(channels_in, channels, config.conv_kernel, stride))
            if index < len(sizes) - 1:
                layers.append(nn.ReLU(inplace=True))
                if config.batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
            if pool > 1:
                layers.append(nn.MaxPool2d((pool, 1)))
            channels_in = channels
        self.layers = nn.Sequential(*layers)
        self.post_init()

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple:
        """Encodes waveforms.

        Args:
            input_values (`torch.Tensor` `(B, samples)`): normalised waveforms from the feature
                extractor.
            attention_mask (`torch.Tensor` `(B, samples)`, *optional*): 1 for speech, 0 for padding,
                which must be on the right. It changes nothing but what is refused as too short: who
                pools the frames leaves out those after `_get_feat_extract_output_lengths`.
            output_hidden_states (`bool`, *optional*): whether to return `hidden_states`, too.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `BaseModelOutput` with `last_hidden_state` `(B, T, H)`, and the same as only one of the
            `hidden_states`.

        Raises:
            ValueError: waveforms of another shape, or shorter than `config.min_samples`.
        """
        if input_values.ndim != 2:
            raise ValueError(
                f"expected waveforms of shape (batch, samples), got {tuple(input_values.shape)}."
            )
        shortest = input_values.shape[1]
        if attention_mask is not None and not torch.compiler.is_compiling():
            shortest = int(attention_mask.sum(dim=-1).min())
        if shortest < self.config.min_samples:
            raise ValueError(
                f"expected at least {self.config.min_samples} samples, got {shortest}: loop the "
                "waveform to a clip, as Speech2FaceFeatureExtractor does."
            )
        hidden = self.layers(self.spectrogram(input_values).to(self.dtype))  # (B, C, T, F)
        hidden = hidden.transpose(1, 2).flatten(2)  # (B, T, H)
        output = BaseModelOutput(hidden, (hidden,) if output_hidden_states else None)
        return output.to_tuple() if return_dict is False else output

    def spectrogram(self, waveform: torch.Tensor) -> torch.Tensor:
        """Compressed real and imaginary parts of the short-time Fourier transform.

        Args:
            waveform (`torch.Tensor` `(B, samples)`): at least one window long.

        Returns:
            `torch.Tensor` `(B, 2, T, F)`: float32, or float64 for such a waveform.
        """
        config = self.config
        waveform = waveform.to(torch.promote_types(waveform.dtype, torch.float32))
        # Made anew each time: a buffer would be rounded with the weights, or be lost on loading.
        window = torch.hann_window(
            config.window_length, dtype=waveform.dtype, device=waveform.device
        )
        frames = waveform.unfold(-1, config.window_length, config.hop_length)  # (B, T, window)
        spectrum = torch.fft.rfft(frames * window, n=config.fft_size)  # (B, T, F), complex
        parts = torch.stack([spectrum.real, spectrum.imag], dim=1)  # (B, 2, T, F)
        return parts * (parts.square() + STRAIGHT_BELOW**2) ** ((config.compression - 1) / 2)

    def _get_feat_extract_output_lengths(self, input_lengths: torch.Tensor) -> torch.Tensor:
        """Frames of the output for waveforms of so many samples; as wav2vec2 calls it."""
        config = self.config
        frames = (input_lengths - config.window_length) // config.hop_length + 1
        for stride, pool in zip(config.conv_strides, config.time_pools, strict=True):
            frames = ((frames - config.conv_kernel) // stride + 1) // pool
        return frames
