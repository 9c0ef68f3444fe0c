import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dataset_scripts.synthetic_cast import speech_synthesis, voices
from dataset_scripts.synthetic_cast.speech_synthesis import (
    KOKORO_VOICES,
    SENTENCES,
    KokoroSynthesiser,
    list_synthetic_voices,
    sentences_of_voice,
)
from dataset_scripts.synthetic_cast.traits import VoiceParameters
from dataset_scripts.synthetic_cast.voice_measurement import (
    measure_formant_spacing,
    measure_pitch,
    vocal_tract_length,
)
from dataset_scripts.synthetic_cast.voice_shift import shift_voice
from tests.fake_speech import SAMPLING_RATE, speak, write_base_voices

# LibriSpeech's readers of whom ten utterances are at hand; agreed to be held out for good.
TEN_UTTERANCES = 10


def test_split_file_holds_out_eighty_readers_for_good():
    rows = voices.read_speakers()
    assert len({row["speaker_id"] for row in rows}) == len(rows) == 261
    counts = Counter((row["split"], row["gender"]) for row in rows)
    assert counts["test", "female"] == counts["test", "male"] == 40
    assert counts["validation", "female"] == counts["validation", "male"] == 10
    with_ten = [row for row in rows if len(row["utterances"]) == TEN_UTTERANCES]
    assert len(with_ten) == 10 and {row["split"] for row in with_ten} == {"test"}


def test_split_file_is_the_one_that_trainings_have_obeyed():
    """Moving a reader to another split would make every published figure wrong: so it fails."""
    import hashlib

    assigned = "\n".join(f"{row['speaker_id']} {row['split']}" for row in voices.read_speakers())
    assert hashlib.sha256(assigned.encode()).hexdigest()[:16] == "3c39f50c139f5d4c"


def test_split_file_measures_what_is_labelled():
    rows = voices.read_speakers()
    for gender, pitch, tract in (("female", (110, 260), (12, 17)), ("male", (75, 205), (15, 20))):
        mine = [row for row in rows if row["gender"] == gender]
        assert all(pitch[0] < float(row["median_pitch_hz"]) < pitch[1] for row in mine)
        spacings = [float(row["formant_spacing_hz"]) for row in mine]
        assert all(tract[0] < vocal_tract_length(spacing) < tract[1] for spacing in spacings)
        mean = voices.MEAN_FORMANT_SPACING_HZ[gender]
        assert np.mean(spacings) == pytest.approx(mean, rel=0.01)


def test_synthetic_voices_split_by_part():
    everyone = list_synthetic_voices(76)
    assert len(everyone) == len({voice.voice_id for voice in everyone}) == 129
    split_of = {voice.parts[0]: voice.split for voice in everyone if len(voice.parts) == 1}
    assert set(split_of) == set(KOKORO_VOICES)
    for voice in everyone:
        assert {split_of[part] for part in voice.parts} == {voice.split}
        assert {part[1] for part in voice.parts} == {voice.gender[0]}
    for split in ("train", "validation", "test"):
        assert {voice.gender for voice in everyone[:53] if voice.split == split} == {
            "female",
            "male",
        }


def test_more_blends_and_sentences_only_append():
    assert list_synthetic_voices(9)[:-4] == list_synthetic_voices(5)
    assert len(SENTENCES) == len(set(SENTENCES)) == 120
    assert sentences_of_voice("kokoro/af_sky", 5)[:2] == sentences_of_voice("kokoro/af_sky", 2)
    assert sentences_of_voice("kokoro/af_sky", 3) != sentences_of_voice("kokoro/am_adam", 3)


@pytest.mark.parametrize("pitch_hz", [95.0, 160.0, 230.0])
def test_pitch_is_measured_through_mains_hum(pitch_hz):
    speech = speak(pitch_hz)
    time = np.arange(len(speech)) / SAMPLING_RATE
    hum = 0.05 * np.abs(speech).max() * np.sin(2 * np.pi * 60 * time)
    assert measure_pitch(speech + hum, SAMPLING_RATE) == pytest.approx(pitch_hz, rel=0.04)


def test_silence_has_neither_pitch_nor_formants():
    silence = np.zeros(SAMPLING_RATE)
    assert np.isnan(measure_pitch(silence, SAMPLING_RATE))
    assert np.isnan(measure_formant_spacing(silence, SAMPLING_RATE, "male"))


@pytest.mark.parametrize(
    ("gender", "pitch_hz", "spacing_hz"),
    [("male", 110.0, 960.0), ("male", 110.0, 1060.0), ("female", 200.0, 1200.0)],
)
def test_formant_spacing_is_the_tubes(gender, pitch_hz, spacing_hz):
    measured = measure_formant_spacing(speak(pitch_hz, spacing_hz), SAMPLING_RATE, gender)
    assert measured == pytest.approx(spacing_hz, rel=0.03)


@pytest.mark.parametrize("pitch_hz", [110.0, 200.0])
@pytest.mark.parametrize("ratio", [0.86, 1.17])
def test_pitch_moves_alone(pitch_hz, ratio):
    gender = "male" if pitch_hz < 150 else "female"
    speech = speak(pitch_hz, 1050.0)
    shifted = shift_voice(speech, SAMPLING_RATE, pitch_ratio=ratio)
    assert len(shifted) == len(speech)
    assert measure_pitch(shifted, SAMPLING_RATE) == pytest.approx(pitch_hz * ratio, rel=0.05)
    spacing = measure_formant_spacing(shifted, SAMPLING_RATE, gender)
    assert spacing == pytest.approx(1050.0, rel=0.05)


@pytest.mark.parametrize("ratio", [0.93, 1.07])
def test_formants_move_alone(ratio):
    speech = speak(110.0, 1000.0)
    shifted = shift_voice(speech, SAMPLING_RATE, formant_ratio=ratio)
    assert measure_pitch(shifted, SAMPLING_RATE) == pytest.approx(110.0, rel=0.03)
    before = measure_formant_spacing(speech, SAMPLING_RATE, "male")
    after = measure_formant_spacing(shifted, SAMPLING_RATE, "male")
    assert after / before == pytest.approx(ratio, rel=0.035)
    assert (after > before) == (ratio > 1)


@pytest.mark.parametrize("ratio", [0.82, 1.22])
def test_rate_moves_alone(ratio):
    speech = speak(130.0)
    shifted = shift_voice(speech, SAMPLING_RATE, rate_ratio=ratio)
    assert len(shifted) == round(len(speech) / ratio)
    assert measure_pitch(shifted, SAMPLING_RATE) == pytest.approx(130.0, rel=0.03)
    # Three syllables a second become 3 x ratio: the envelope's strongest rhythm.
    energy = np.abs(np.fft.rfft(shifted**2 - np.mean(shifted**2)))[: int(8 * len(shifted) / 16000)]
    rhythm = np.argmax(energy) * SAMPLING_RATE / len(shifted)
    assert rhythm == pytest.approx(3 * ratio, abs=0.6)


def test_shift_keeps_the_level_and_the_untouched():
    speech = speak(130.0)
    rng = np.random.default_rng(0)
    shifted = shift_voice(speech, SAMPLING_RATE, 1.1, 0.95, 0.9, 0.5, rng)
    levels = [np.sqrt(np.mean(signal**2)) for signal in (shifted, speech)]
    assert levels[0] == pytest.approx(levels[1], rel=0.01)
    assert np.array_equal(shift_voice(speech, SAMPLING_RATE, 1.001, 1.002, 1.0), speech)


def test_breath_is_noise_in_the_upper_band():
    speech = speak(130.0)

    def breathy(amount):
        rng = np.random.default_rng(0)
        return shift_voice(speech, SAMPLING_RATE, breathiness=amount, rng=rng).astype(np.float64)

    def noise_db(amount, low, high):
        """The level of what was added, relative to the voice, between two frequencies in Hz."""
        from scipy.signal import butter, sosfilt

        clean, result = breathy(1e-9), breathy(amount)
        voice = clean * (result @ clean) / (clean @ clean)
        band = butter(4, (low, high), "bandpass", fs=SAMPLING_RATE, output="sos")
        return 20 * np.log10(np.std(sosfilt(band, result - voice)) / np.std(sosfilt(band, voice)))

    assert noise_db(1.0, 2500, 7000) == pytest.approx(-6, abs=2)
    assert noise_db(0.2, 2500, 7000) == pytest.approx(-20, abs=2)
    assert noise_db(1.0, 600, 2500) < noise_db(1.0, 2500, 7000) - 6
    assert np.array_equal(breathy(0.5), breathy(0.5))
    assert measure_pitch(breathy(0.9), SAMPLING_RATE) == pytest.approx(130.0, rel=0.03)


def test_shift_refuses_the_impossible():
    with pytest.raises(ValueError, match="expected formant_ratio between 0.7 and 1.4, got 2.0"):
        shift_voice(speak(110.0), SAMPLING_RATE, formant_ratio=2.0)
    with pytest.raises(ValueError, match="breathiness is noise: pass rng"):
        shift_voice(speak(110.0), SAMPLING_RATE, breathiness=0.5)


def test_clips_follow_the_voice_that_is_asked_for(tmp_path):
    base = next(v for v in write_base_voices(tmp_path) if v.voice_id == "pulses/train-male")
    wanted = VoiceParameters(base.voice_id, 128.0, base.formant_ratio, 1.0, 0.1)
    clips = voices.render_voice(wanted, base, 3, np.random.default_rng(5))
    again = voices.render_voice(wanted, base, 3, np.random.default_rng(5))
    assert all(np.array_equal(a, b) for a, b in zip(clips, again, strict=True))
    for clip in clips:
        assert clip.dtype == np.float32 and 3 <= len(clip) / SAMPLING_RATE <= 8
        assert measure_pitch(clip, SAMPLING_RATE) == pytest.approx(128.0, rel=0.05)
    with pytest.raises(ValueError, match="expected the base voice kokoro/af_sky"):
        voices.render_voice(VoiceParameters("kokoro/af_sky", 200, 1, 1, 0), base, 1, None)


def test_librispeech_is_found_at_any_depth_or_missed_by_name(tmp_path):
    for row in voices.read_speakers():
        folder = tmp_path / "LibriSpeech" / row["subset"] / row["speaker_id"]
        folder.mkdir(parents=True)
        for name in row["utterances"]:
            (folder / f"{name}.flac").touch()
    found = voices.load_librispeech_voices(tmp_path)
    assert len(found) == 261 and all(voice.is_real for voice in found)
    assert found[0].utterances[0].stem in voices.read_speakers()[0]["utterances"]
    found[0].utterances[0].unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 LibriSpeech utterances"):
        voices.load_librispeech_voices(tmp_path)


def test_librispeech_download_takes_the_listed_utterances_only(tmp_path, monkeypatch):
    import soundfile

    listed = [
        {"speaker_id": "7", "subset": "train-clean-100", "utterances": ["7-1-0001", "7-1-0003"]},
        {"speaker_id": "8", "subset": "test-other", "utterances": ["8-1-0000"]},
    ]
    streams = []

    def stream(configuration, split):
        streams.append((configuration, split))
        for name in ("7-1-0000", "7-1-0001", "7-1-0002", "7-1-0003", "8-1-0000", "8-1-0001"):
            file = io.BytesIO()
            soundfile.write(file, speak(120.0, seconds=11.0), SAMPLING_RATE, format="FLAC")
            yield {"id": name, "audio": {"bytes": file.getvalue()}}

    monkeypatch.setattr(voices, "read_speakers", lambda: listed)
    monkeypatch.setattr(voices, "_stream_librispeech", stream)
    folder = voices.download_librispeech(tmp_path)
    files = sorted(folder.rglob("*"))
    assert [f.name for f in files if f.is_file()] == [
        *("7-1-0001.flac", "7-1-0003.flac", "8-1-0000.flac")
    ]
    assert soundfile.info(files[-1]).duration == 10.0
    assert streams == [("clean", "train.100"), ("other", "test")]
    voices.download_librispeech(tmp_path)
    assert len(streams) == 2  # what is there is not asked for again


def test_without_a_network_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(voices, "_stream_librispeech", refuse)
    with pytest.raises(RuntimeError, match="give a folder that holds it with --librispeech"):
        voices.download_librispeech(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(RuntimeError, match="folder that holds it with --kokoro"):
        speech_synthesis.download_kokoro()
    with pytest.raises(FileNotFoundError, match="No Kokoro model"):
        KokoroSynthesiser(tmp_path, tmp_path)


def test_convolutions_in_floats_compute_the_same_integers(tmp_path):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    kernel = rng.integers(0, 256, (6, 4, 3)).astype(np.uint8)
    graph = helper.make_graph(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("ConvInteger", ["q", "w", "zero", "w_zero"], ["y"], pads=[1, 1]),
        ],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, None])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 6, None])],
        [
            numpy_helper.from_array(kernel, "w"),
            numpy_helper.from_array(np.array(131, np.uint8), "w_zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    signal = {"x": rng.standard_normal((1, 4, 50)).astype(np.float32)}

    def run(source):
        session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
        return session.run(None, signal)[0]

    rewritten = speech_synthesis._with_float_convolutions(tmp_path / "model.onnx")
    assert b"ConvInteger" not in rewritten
    assert np.array_equal(run(rewritten), run(str(tmp_path / "model.onnx")))


@pytest.mark.skipif("SPEECH2FACE_KOKORO" not in os.environ, reason="needs Kokoro-82M's folder")
def test_kokoro_speaks_once_and_is_remembered(tmp_path):
    kokoro = Path(os.environ["SPEECH2FACE_KOKORO"])
    voice_of = {voice.voice_id: voice for voice in list_synthetic_voices(0)}
    bella = voice_of["kokoro/af_bella"]
    path = KokoroSynthesiser(kokoro, tmp_path / "a").speak(bella, "Good morning, everybody.")
    voice = voices._measured(bella, [path])
    assert 150 < voice.median_pitch_hz < 260 and 1050 < voice.formant_spacing_hz < 1350
    other = KokoroSynthesiser(kokoro, tmp_path / "b")
    again = other.speak(bella, "Good morning, everybody.")
    assert path.name == again.name and path.read_bytes() == again.read_bytes()
    other._synthesise = None  # what is cached must not be spoken again
    assert other.speak(bella, "Good morning, everybody.") == again
