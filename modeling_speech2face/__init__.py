"""Speech2Face: a voice goes in, the faces that a listener could expect behind it come out."""

# ruff: noqa: F401
from importlib import import_module
from typing import TYPE_CHECKING

from .auto import register_auto_classes

__version__ = "0.1.0"

# Where each public name lives; nothing is imported before it is used.
_HOMES = {
    "SpectrogramEncoderConfig": "configuration_speech2face",
    "Speech2FaceConfig": "configuration_speech2face",
    "Speech2FaceFeatureExtractor": "feature_extraction_speech2face",
    "SpectrogramEncoder": "modeling_spectrogram_encoder",
    "Speech2FaceModel": "modeling_speech2face",
    "Speech2FaceOutput": "modeling_speech2face",
    "NoSpeechError": "voice_activity",
    "speech_probabilities": "voice_activity",
    "save_with_code": "remote_code",
    "code_of": "remote_code",
    "AudioCutWarning": "audio",
    "AudioError": "audio",
    "load_audio": "audio",
    "CheckpointError": "checkpoints",
    "resample": "audio",
    "Arc2FaceProjection": "modeling_arc2face",
    "DlibFaceRecogniser": "modeling_face_recogniser",
    "FaceEmbeddingProjection": "modeling_face_decoder",
    "NormalizedFaceDecoder": "modeling_face_decoder",
    "NormalizedFaceDecoderOutput": "modeling_face_decoder",
    "decode_latents": "modeling_face_decoder",
    "FaceTraitProbe": "modeling_face_traits",
    "faces_to_latents": "modeling_face_decoder",
    "guidance_embedding": "modeling_face_decoder",
    "latents_to_faces": "modeling_face_decoder",
    "patch_size_of": "modeling_face_decoder",
    "set_timesteps": "modeling_face_decoder",
    "thin_plate_spline": "spline_warp",
    "warp": "spline_warp",
    "Speech2FacePipeline": "pipeline_speech2face",
    "Speech2FacePipelineOutput": "pictures",
    "contact_sheet": "pictures",
    "enlarge": "pictures",
    "with_scale": "pictures",
    "GeneratedImage": "provenance",
    "describe": "provenance",
    "read_provenance": "provenance",
    "save_image": "provenance",
    "with_provenance": "provenance",
    "SigningKey": "signing",
    "load_signing_key": "signing",
    "sign": "signing",
    "signed": "signing",
    "Verification": "verification",
    "verify_image": "verification",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:  # for editors; the same names as in _HOMES
    from .audio import AudioCutWarning, AudioError, load_audio, resample
    from .checkpoints import CheckpointError
    from .configuration_speech2face import SpectrogramEncoderConfig, Speech2FaceConfig
    from .feature_extraction_speech2face import Speech2FaceFeatureExtractor
    from .modeling_arc2face import Arc2FaceProjection
    from .modeling_face_decoder import (
        FaceEmbeddingProjection,
        NormalizedFaceDecoder,
        NormalizedFaceDecoderOutput,
        decode_latents,
        faces_to_latents,
        guidance_embedding,
        latents_to_faces,
        patch_size_of,
        set_timesteps,
    )
    from .modeling_face_recogniser import DlibFaceRecogniser
    from .modeling_face_traits import FaceTraitProbe
    from .modeling_spectrogram_encoder import SpectrogramEncoder
    from .modeling_speech2face import Speech2FaceModel, Speech2FaceOutput
    from .pictures import Speech2FacePipelineOutput, contact_sheet, enlarge, with_scale
    from .pipeline_speech2face import Speech2FacePipeline
    from .provenance import GeneratedImage, describe, read_provenance, save_image, with_provenance
    from .remote_code import code_of, save_with_code
    from .signing import SigningKey, load_signing_key, sign, signed
    from .spline_warp import thin_plate_spline, warp
    from .verification import Verification, verify_image
    from .voice_activity import NoSpeechError, speech_probabilities


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_auto_classes()
