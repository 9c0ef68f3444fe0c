"""The real classes at a size at which a test takes milliseconds."""

import torch

from modeling_speech2face import Speech2FaceConfig, Speech2FaceModel

FACE_EMBEDDING_SIZE = 8


def tiny_voice_encoder_config(model_type: str = "wav2vec2", **kwargs) -> dict:
    """A backbone with two layers and a stride of 40 samples (400 frames a second)."""
    return {
        "model_type": model_type,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": [8, 8, 8],
        "conv_stride": [5, 4, 2],
        "conv_kernel": [10, 4, 2],
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "feat_extract_norm": "layer",
        "mask_time_prob": 0.0,
        **kwargs,
    }


def tiny_spectrogram_encoder_config(**kwargs) -> dict:
    """The paper's encoder with three convolutions, 33 frequencies and 400 frames a second."""
    return {
        "model_type": "speech2face-spectrogram",
        "window_length": 60,
        "hop_length": 40,
        "fft_size": 64,
        "conv_channels": [4, 4, 6],
        "conv_strides": [1, 1, 2],
        "time_pools": [1, 2, 1],
        **kwargs,
    }


def tiny_config(**kwargs) -> Speech2FaceConfig:
    """A configuration with an 8-dimensional teacher and clips of half a second."""
    defaults = {
        "voice_encoder_config": tiny_voice_encoder_config(),
        "face_embedding_size": FACE_EMBEDDING_SIZE,
        "face_embedding_mean": [0.1 * i for i in range(FACE_EMBEDDING_SIZE)],
        "projection_hidden_size": 16,
        "pooling_hidden_size": 8,
        "clip_seconds": 0.5,
    }
    return Speech2FaceConfig(**{**defaults, **kwargs})


def tiny_model(seed: int = 0, **kwargs) -> Speech2FaceModel:
    """A seeded model in evaluation mode, with some residual covariance."""
    torch.manual_seed(seed)
    model = Speech2FaceModel(tiny_config(**kwargs)).eval()
    model.set_residual_covariance(0.1 * torch.randn(40, model.config.face_embedding_size))
    return model


def tiny_normalized_decoder(seed: int = 0, face_embedding_size: int = FACE_EMBEDDING_SIZE):
    """A seeded `NormalizedFaceDecoder` of 56x56 pixels whose landmarks move by some of them."""
    from modeling_speech2face import NormalizedFaceDecoder

    torch.manual_seed(seed)
    decoder = NormalizedFaceDecoder(
        face_embedding_size=face_embedding_size,
        hidden_size=16,
        landmark_hidden_size=8,
        texture_channels=(8, 4, 4),
        texture_rank=4,
        embedding_scale=3.0,
    )
    decoder.set_mean_landmarks(8 + 40 * torch.rand(68, 2))
    torch.nn.init.normal_(decoder.landmark_branch[-1].weight, std=0.005)
    return decoder.eval()


def tiny_face_traits(face_embedding_size: int = FACE_EMBEDDING_SIZE):
    """A `FaceTraitProbe` of gender, age and skin tone, each along an axis of its own."""
    from modeling_speech2face import FaceTraitProbe

    probe = FaceTraitProbe(
        face_embedding_size, names=["gender", "age", "skin_tone"], held_out=[0.9, 0.8, 0.7]
    )
    probe.weights.copy_(torch.eye(3, face_embedding_size))
    return probe


def tiny_pipeline(
    seed: int = 0,
    patch: int = 2,
    with_vae: bool = False,
    face_embedding_size: int = FACE_EMBEDDING_SIZE,
    with_normalized_decoder: bool = False,
    with_face_traits: bool = False,
    voice_encoder_config: dict | None = None,
    **kwargs,
):
    """A pipeline with random weights that makes 16x16 faces in two steps.

    Args:
        seed: of the weights.
        patch: side of the pixel patches that the UNet sees.
        with_vae: whether the UNet works on the latents of a tiny AutoencoderKL instead.
        face_embedding_size: the teacher's.
        with_normalized_decoder: whether it has the paper's decoder, too, which makes 56x56 faces.
        with_face_traits: whether it says what a voice tells.
        voice_encoder_config: the backbone; that of `tiny_config` if None.
        kwargs: further arguments of `Speech2FacePipeline`.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    from modeling_speech2face import FaceEmbeddingProjection, Speech2FacePipeline

    mean = [0.1 * i for i in range(face_embedding_size)]
    voice_encoder = tiny_model(
        seed,
        face_embedding_size=face_embedding_size,
        face_embedding_mean=mean,
        voice_encoder_config=voice_encoder_config or tiny_voice_encoder_config(),
    )
    channels = 4 if with_vae else 3 * patch**2
    unet = UNet2DConditionModel(
        sample_size=8 if with_vae else 16 // patch,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    projection = FaceEmbeddingProjection(
        face_embedding_size=face_embedding_size,
        num_tokens=2,
        cross_attention_dim=8,
        hidden_size=16,
        embedding_scale=3.0,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    normalized_decoder = None
    if with_normalized_decoder:
        normalized_decoder = tiny_normalized_decoder(seed, face_embedding_size)
    pipeline = Speech2FacePipeline(
        voice_encoder=voice_encoder,
        feature_extractor=voice_encoder.feature_extractor,
        embedding_projection=projection.eval(),
        unet=unet.eval(),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
        vae=vae.eval() if with_vae else None,
        normalized_decoder=normalized_decoder,
        face_traits=tiny_face_traits(face_embedding_size) if with_face_traits else None,
        **{"num_inference_steps": 2, "guidance_scale": 2.0, **kwargs},
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
