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
    model.set_residual_covariance(0.1 * torch.randn(40, FACE_EMBEDDING_SIZE))
    return model
