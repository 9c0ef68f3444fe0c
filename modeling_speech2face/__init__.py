"""Speech2Face: a voice goes in, the faces that a listener could expect behind it come out."""

from importlib import import_module

from .auto import register_auto_classes

__version__ = "0.1.0"

# Where each public name lives; nothing is imported before it is used.
_HOMES = {
    "Speech2FaceConfig": "configuration_speech2face",
    "Speech2FaceFeatureExtractor": "feature_extraction_speech2face",
    "Speech2FaceModel": "modeling_speech2face",
    "Speech2FaceOutput": "modeling_speech2face",
    "NoSpeechError": "voice_activity",
    "speech_probabilities": "voice_activity",
    "save_with_code": "auto",
    "AudioError": "audio",
    "load_audio": "audio",
    "resample": "audio",
    "FaceEmbeddingProjection": "modeling_face_decoder",
    "faces_to_latents": "modeling_face_decoder",
    "latents_to_faces": "modeling_face_decoder",
    "patch_size_of": "modeling_face_decoder",
    "Speech2FacePipeline": "pipeline_speech2face",
    "Speech2FacePipelineOutput": "pipeline_speech2face",
    "contact_sheet": "pipeline_speech2face",
    "enlarge": "pipeline_speech2face",
    "GeneratedImage": "provenance",
    "describe": "provenance",
    "read_provenance": "provenance",
    "save_image": "provenance",
    "with_provenance": "provenance",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


register_auto_classes()


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
