"""The examples in the package's docstrings do what they show."""

import doctest
from importlib import import_module

import pytest

from modeling_speech2face.pipeline_speech2face import DEMO_CHECKPOINT


@pytest.mark.parametrize(
    "name",
    [
        "configuration_speech2face",
        "modeling_speech2face",
        "modeling_spectrogram_encoder",
        "audio",
        "pipeline_speech2face",
        "modeling_arc2face",
        "modeling_face_decoder",
        "modeling_face_recogniser",
        "modeling_face_traits",
        "signing",
    ],
)
def test_examples(name):
    if name == "pipeline_speech2face" and not DEMO_CHECKPOINT.exists():
        pytest.skip("needs the demo checkpoint")
    module = import_module(f"modeling_speech2face.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
