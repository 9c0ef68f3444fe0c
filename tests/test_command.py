"""The `speech2face` command: what it writes, what it says, and its exit status."""

import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_speech2face import read_provenance
from modeling_speech2face.__main__ import main
from tests.tiny import tiny_pipeline

MAN, WOMAN = "samples/librispeech-2414.flac", "samples/librispeech-3080.flac"
VOICES = [MAN, WOMAN]
RATE = 16000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    pipeline = tiny_pipeline(face_embedding_size=128, with_normalized_decoder=True)
    pipeline.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run(checkpoint, tmp_path, capsys):
    """Runs the command in this process; returns exit status, error lines and output folder."""

    def run(*arguments: str) -> tuple[int, list[str], Path]:
        output = tmp_path / "out"
        status = main([*arguments, "--output", str(output), "--checkpoint", checkpoint])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        lines = captured.err.replace("\r", "\n").splitlines()
        return status, [line for line in lines if line.startswith("speech2face")], output

    return run


def write_wave(path: Path, samples: np.ndarray) -> str:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return str(path)


def test_it_writes_faces_average_certainty_and_a_contact_sheet(run):
    status, errors, output = run(MAN)
    assert status == 0 and errors == []
    stem = Path(MAN).stem
    expected = {f"{stem}{suffix}.png" for suffix in ("_0 _1 _2 _3 _average _certainty".split())}
    assert {path.name for path in output.iterdir()} == expected | {f"{stem}.png"}
    assert Image.open(output / f"{stem}_0.png").size == (256, 256)  # 16x16, enlarged
    for path in output.iterdir():
        provenance = read_provenance(path)
        assert provenance["checkpoint"] == "tiny" and provenance["seed"] == 0


def test_the_same_seed_writes_the_same_bytes(run, tmp_path):
    def picture(seed: str) -> bytes:
        assert run(MAN, "--seed", seed, "--num-images", "2", "--unsigned")[0] == 0
        return (tmp_path / "out" / f"{Path(MAN).stem}_1.png").read_bytes()

    assert picture("1") == picture("1") != picture("2")


def test_options_reach_the_pipeline(run):
    def pixels(*options: str) -> np.ndarray:
        status, _, output = run(MAN, "--num-images", "2", *options)
        assert status == 0
        return np.asarray(Image.open(output / f"{Path(MAN).stem}_0.png"), dtype=float)

    plain = pixels()
    assert np.abs(plain - pixels("--steps", "4")).max() > 1
    assert np.abs(plain - pixels("--guidance-scale", "7")).max() > 1
    assert np.abs(plain - pixels("--device", "cpu")).max() == 0


def test_what_a_voice_fixes_does_not_depend_on_the_number_of_images(run):
    status, _, output = run(MAN, "--num-images", "1")
    assert status == 0 and len(list(output.iterdir())) == 4
    certainty = output / f"{Path(MAN).stem}_certainty.png"
    of_one = pixels(certainty)
    run(MAN, "--num-images", "2")
    assert np.array_equal(pixels(certainty), of_one)


def test_a_single_image_that_is_all_there_is_has_no_certainty(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "plain")
    arguments = [MAN, "--output", str(tmp_path / "out"), "--checkpoint", str(tmp_path / "plain")]
    assert main([*arguments, "--num-images", "1"]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_it_says_what_each_voice_tells(tmp_path, capsys):
    pipeline = tiny_pipeline(with_face_traits=True)
    pipeline.save_pretrained(tmp_path / "telling")
    told = [pipeline(voice, generator=torch.Generator().manual_seed(3)).told for voice in VOICES]
    arguments = ["--output", str(tmp_path / "out"), "--checkpoint", str(tmp_path / "telling")]
    assert main([*VOICES, *arguments, "--seed", "3"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert said == [f"{voice}: {words}" for voice, words in zip(VOICES, told, strict=True)]
    assert told[0].startswith("The voice fixes")


def test_bad_files_get_a_sentence_each_and_do_not_stop_the_others(run, tmp_path):
    rng = np.random.default_rng(0)
    times = np.arange(4 * RATE) / RATE
    chord = sum(0.2 * np.sin(2 * np.pi * hertz * times) for hertz in (220, 277, 330))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "corrupt.mp3").write_bytes(rng.bytes(5000))
    speech = Path(MAN).read_bytes()
    bad = {
        str(tmp_path / "missing.wav"): "does not exist",
        str(tmp_path): "is a folder",
        str(tmp_path / "empty.wav"): "is empty",
        str(tmp_path / "corrupt.mp3"): "cannot be decoded",
        write_wave(tmp_path / "silence.wav", np.zeros(3 * RATE)): "is silent",
        write_wave(tmp_path / "noise.wav", 0.1 * rng.standard_normal(3 * RATE)): "no speech",
        write_wave(tmp_path / "music.wav", chord): "no speech",
        write_wave(tmp_path / "short.wav", 0.1 * rng.standard_normal(RATE // 2)): "lasts 0.5 s",
    }
    (tmp_path / "good.flac").write_bytes(speech)
    status, errors, output = run(MAN, *bad, str(tmp_path / "good.flac"), "--num-images", "2")
    assert status == 1 and len(errors) == len(bad)
    for (path, message), line in zip(bad.items(), errors, strict=True):
        assert path in line and message in line and line.endswith(".")
    assert (output / "good.png").exists() and (output / f"{Path(MAN).stem}.png").exists()
    assert len(list(output.iterdir())) == 2 * 5


def test_several_voices_show_their_progress(checkpoint, tmp_path, capsys):
    arguments = [MAN, WOMAN, "--output", str(tmp_path), "--checkpoint", checkpoint]
    assert main(arguments) == 0
    assert "2/2" in capsys.readouterr().err
    assert main([MAN, *arguments[2:]]) == 0
    assert "1/1" not in capsys.readouterr().err


def test_two_voices_of_the_same_name_are_refused_before_anything_is_written(run, tmp_path):
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / Path(MAN).name
    copy.write_bytes(Path(MAN).read_bytes())
    status, errors, output = run(MAN, str(copy))
    assert status == 1 and len(errors) == 1 and "same names" in errors[0]
    assert not output.exists()


@pytest.mark.parametrize("other", ["A.mp3", "a_0.wav", "a_average.wav"])
def test_a_voice_whose_pictures_would_replace_another_s_is_refused(run, other):
    status, errors, output = run("a.wav", other)
    assert status == 1 and len(errors) == 1 and f"a.wav and {other}" in errors[0]
    assert not output.exists()


def test_a_long_recording_is_cut_and_the_command_says_so(run, monkeypatch):
    from modeling_speech2face import audio

    monkeypatch.setattr(audio.load_audio, "__defaults__", (RATE, 3.0))
    status, said, output = run(MAN, "--num-images", "1")
    assert status == 0 and said == [f"speech2face: only the first 3 s of {MAN} are used."]
    assert len(list(output.iterdir())) == 4


@pytest.mark.parametrize(
    ("checkpoint_name", "message"),
    [
        ("/nowhere/at/all", "nowhere"),
        ("no/such-repo", "no/such-repo"),
        ("a b", "a b cannot be loaded"),
    ],
)
def test_a_missing_checkpoint_is_one_line(checkpoint_name, message, tmp_path, capsys):
    status = main([MAN, "--output", str(tmp_path), "--checkpoint", checkpoint_name])
    captured = capsys.readouterr().err
    assert status == 1 and "Traceback" not in captured
    lines = [line for line in captured.splitlines() if line.startswith("speech2face")]
    assert len(lines) == 1 and message in lines[0]


def test_torn_weights_are_one_line(checkpoint, tmp_path, capsys):
    torn = tmp_path / "torn"
    shutil.copytree(checkpoint, torn)
    for weights in torn.rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1000])
    assert main([MAN, "--output", str(tmp_path / "out"), "--checkpoint", str(torn)]) == 1
    (said,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert said.startswith(f"speech2face: {torn}") and "cannot be loaded" in said


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_the_normalized_decoder_makes_one_face_of_the_prediction_or_several_draws(run):
    status, errors, output = run(MAN, "--decoder", "normalized")
    stem = Path(MAN).stem
    assert status == 0 and errors == []
    assert {path.name for path in output.iterdir()} == {
        f"{stem}_0.png",
        f"{stem}_average.png",
        f"{stem}_certainty.png",
        f"{stem}.png",
    }
    of_prediction = pixels(output / f"{stem}_0.png")
    assert of_prediction.shape == (224, 224, 3)  # 56x56, four times
    run(MAN, "--decoder", "normalized", "--seed", "1")
    assert np.array_equal(pixels(output / f"{stem}_0.png"), of_prediction)  # nothing is drawn
    run(MAN, "--decoder", "normalized", "--num-images", "2")
    first, second = (pixels(output / f"{stem}_{i}.png") for i in range(2))
    assert not np.array_equal(first, second) and not np.array_equal(first, of_prediction)


def test_exaggeration_changes_the_face(run):
    stem, faces = Path(MAN).stem, []
    for amount in ("1", "3", "0.1"):
        status, _, output = run(MAN, "--decoder", "normalized", "--exaggeration", amount)
        assert status == 0
        faces.append(pixels(output / f"{stem}_0.png"))
    plain, more, less = faces
    assert np.abs(more - less).mean() > np.abs(plain - less).mean() > 0


def test_faces_on_the_way_between_two_voices(run):
    status, errors, output = run(MAN, WOMAN, "--interpolate", "3", "--decoder", "normalized")
    assert status == 0 and errors == []
    name = f"{Path(MAN).stem}_to_{Path(WOMAN).stem}"
    expected = {f"{name}_0.png", f"{name}_1.png", f"{name}_2.png", f"{name}_average.png"}
    assert {path.name for path in output.iterdir()} == expected | {f"{name}.png"}
    assert "between two voices" in read_provenance(output / f"{name}_1.png")["content"]
    ends = [pixels(output / f"{name}_{i}.png") for i in (0, 2)]
    run(MAN, WOMAN, "--decoder", "normalized")
    for voice, end in zip((MAN, WOMAN), ends, strict=True):
        assert np.array_equal(pixels(output / f"{Path(voice).stem}_0.png"), end)


def test_a_face_picture_is_decoded_from_its_own_embedding(run, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("one", "other"):
        picture = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8).repeat(32, 0).repeat(32, 1)
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    Image.fromarray(picture[:100]).save(tmp_path / "wide.png")
    (tmp_path / "text.png").write_text("no picture")
    names = ("one", "other", "wide", "text", "missing")
    files = [str(tmp_path / f"{name}.png") for name in names]
    status, errors, output = run(*files, "--face-images", "--decoder", "normalized")
    assert status == 1
    assert [line.split(": ", 1)[1].split(".png")[0] for line in errors] == [
        str(tmp_path / name) for name in ("wide", "text", "missing")
    ]
    assert "square" in errors[0] and "cannot be read as a picture" in errors[1]
    faces = [pixels(output / f"{name}_0.png") for name in ("one", "other")]
    assert not np.array_equal(*faces)
    assert "a face's embedding" in read_provenance(output / "one_0.png")["content"]


def test_without_the_teachers_weights_a_face_picture_is_one_line(run, tmp_path, monkeypatch):
    from modeling_speech2face import modeling_face_recogniser

    monkeypatch.setattr(modeling_face_recogniser, "find_spec", lambda name: None)
    Image.new("RGB", (150, 150)).save(tmp_path / "face.png")
    status, errors, _ = run(str(tmp_path / "face.png"), "--face-images")
    assert status == 1
    assert len(errors) == 1 and "pip install face-recognition-models" in errors[0]


def test_a_checkpoint_without_the_decoder_says_so(tmp_path, capsys):
    tiny_pipeline().save_pretrained(tmp_path / "old")
    arguments = [MAN, "--output", str(tmp_path), "--checkpoint", str(tmp_path / "old")]
    assert main([*arguments, "--decoder", "normalized"]) == 1
    assert "no normalized decoder" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_one_line(checkpoint, tmp_path, capsys):
    (tmp_path / "file").touch()
    status = main([MAN, "--output", str(tmp_path / "file"), "--checkpoint", checkpoint])
    assert status == 1
    message = f"speech2face: {tmp_path / 'file'} cannot be made (File exists): name another"
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("device", ["nonesuch", "meta:x", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(device, checkpoint, tmp_path, capsys):
    arguments = [MAN, "--output", str(tmp_path), "--checkpoint", checkpoint, "--device", device]
    assert main(arguments) == 1
    assert f"the device '{device}' is not available here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--num-images", "0"],
        ["--num-images", "x"],
        ["--steps", "0"],
        ["--guidance-scale", "0.5"],
        ["--guidance-scale", "inf"],
        ["--seed", "-1"],
        ["--seed", "9" * 30],
        ["--decoder", "gan"],
        ["--exaggeration", "0"],
        ["--exaggeration", "inf"],
        ["--interpolate", "1"],
        ["--interpolate", "3"],  # one voice
        ["--steps", "3", "--decoder", "normalized"],
        ["--guidance-scale", "2", "--decoder", "normalized"],
    ],
)
def test_wrong_options_exit_with_2(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main([MAN, "--output", str(tmp_path), *wrong])
    assert exit.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_help_needs_nothing_heavy():
    code = (
        "import sys\nfrom modeling_speech2face.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as exit:\n    assert exit.code == 0\n"
        "assert not {'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "VOICE" in run.stdout and "--guidance-scale" in run.stdout
