"""Speech2FaceConfig: what it holds, what it refuses, and that it survives a file."""

import pytest
from transformers import AutoConfig, HubertConfig

from modeling_speech2face import Speech2FaceConfig
from tests.tiny import tiny_config, tiny_voice_encoder_config


def test_save_and_load_give_the_same_configuration(tmp_path):
    config = tiny_config(face_recogniser="arcface", clip_seconds=3.0)
    config.save_pretrained(tmp_path)
    loaded = Speech2FaceConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert type(loaded.voice_encoder_config) is type(config.voice_encoder_config)


def test_auto_config_knows_the_model_type(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), Speech2FaceConfig)


def test_a_backbone_may_be_a_configuration_or_a_dict():
    as_config = Speech2FaceConfig(voice_encoder_config=HubertConfig(num_hidden_layers=3))
    as_dict = Speech2FaceConfig(
        voice_encoder_config={"model_type": "hubert", "num_hidden_layers": 3}
    )
    assert as_config.voice_encoder_config.to_dict() == as_dict.voice_encoder_config.to_dict()


def test_layerdrop_is_off_because_every_layer_is_summed():
    backbone = tiny_voice_encoder_config(layerdrop=0.5)
    assert tiny_config(voice_encoder_config=backbone).voice_encoder_config.layerdrop == 0


def test_the_mean_defaults_to_zeros_of_the_right_length():
    assert Speech2FaceConfig(face_embedding_size=5).face_embedding_mean == [0.0] * 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"face_embedding_mean": [0.0, 1.0]}, "face_embedding_mean"),
        ({"clip_seconds": 0.0}, "positive"),
        ({"sampling_rate": -1}, "positive"),
        ({"face_embedding_size": "many"}, "face_embedding_size"),
        ({"voice_encoder_config": tiny_voice_encoder_config(add_adapter=True)}, "add_adapter"),
        ({"voice_encoder_config": {"model_type": "nonesuch"}}, "nonesuch"),
    ],
)
def test_contradictions_are_refused(wrong, message):
    with pytest.raises(Exception, match=message):
        tiny_config(**wrong)
