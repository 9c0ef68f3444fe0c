"""The benchmarks run on small things and print every stage."""

import json
import re

import numpy as np
import pytest

from modeling_speech2face import load_audio
from tests.drawn_face import draw_face, empty_scene, mouth_of
from tests.film_files import write_video

SECONDS = 4


@pytest.fixture(scope="module")
def film(tmp_path_factory, sample_recording):
    """A folder with a drawn face that speaks, and the truth that films of the cast have."""
    speech = load_audio(sample_recording)[: SECONDS * 16000]
    scene = empty_scene()
    mouths = mouth_of(speech, SECONDS * 25)
    heads = [(160 + 5 * np.sin(k / 15), 120) for k in range(len(mouths))]
    pictures = [draw_face(scene, at, opening=o) for at, o in zip(heads, mouths, strict=True)]
    folder = tmp_path_factory.mktemp("films")
    (folder / "videos").mkdir()
    path = write_video(folder / "videos" / "one.mkv", pictures, sounds=[speech])
    truth = {"width": 320, "height": 240, "fps": 25.0}
    path.with_suffix(".json").write_text(json.dumps(truth))
    return folder


@pytest.mark.slow
def test_the_benchmark_of_pairs_times_every_step(film, capsys):
    from tests.benchmarks.pairs import main, measure_memory

    main([str(film), "--lines", "240", "--engines"])
    printed = capsys.readouterr().out
    shares = dict(re.findall(r"^  ([a-z][a-z ]+?) +([\d.]+)%", printed, re.MULTILINE))
    assert {"detect", "decode", "landmarks", "synchrony", "speech", "embed"} <= set(shares)
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=1)
    assert float(re.search(r"ratio +([\d.]+)", printed)[1]) > 1  # it does more than that
    with pytest.raises(SystemExit, match="no films of 360 lines"):
        main([str(film)])
    with pytest.raises(SystemExit, match="more films"):
        list(measure_memory(film, [50]))


@pytest.mark.slow
def test_the_table_of_clips_counts_what_was_wished(film, capsys):
    from tests.benchmarks.clips import main

    (film / "videos" / "text.mp4").write_text("no film")
    lines = ["file\tkind\tgroup", "one.mkv\tpositive\tdrawn", "one.mkv\tnegative\tdrawn"]
    lines += ["text.mp4\tnegative\tdamaged", "text.mp4\tpositive\tdamaged"]
    (film / "videos" / "CLIPS.tsv").write_text("\n".join(lines))
    main([str(film / "videos")])
    printed = capsys.readouterr().out.splitlines()
    assert [line[:4].strip() for line in printed[:4]] == ["ok", "NOT", "ok", "NOT"]
    assert "unreadable x1" in printed[2]
    assert [line.split()[:5] for line in printed[-2:]] == [
        ["positive", "all", "1", "of", "2"],
        ["negative", "all", "1", "of", "2"],
    ]


@pytest.mark.slow
def test_the_pipeline_benchmark_times_every_stage(tmp_path, capsys):
    from tests.benchmarks.pipeline import main
    from tests.tiny import tiny_pipeline

    tiny_pipeline().save_pretrained(tmp_path)
    main(["--checkpoint", str(tmp_path), "--runs", "1"])
    lines = re.findall(r"^(.+?) +(\d+) ms$", capsys.readouterr().out, re.MULTILINE)
    named = [name.strip() for name, _ in lines]
    for stage in [
        "decode the file",
        "find speech",
        "features",
        "voice encoder",
        "plain transformers, same backbone",
        "decoder, one step for 4 images",
        "file to 4 images, warm",
        "command, cold, one face",
        "its imports alone",
        "import modeling_speech2face",
        "import transformers",
    ]:
        assert named.count(stage) == 1
    milliseconds = dict(zip(named, (int(figure) for _, figure in lines), strict=True))
    assert milliseconds["command, cold, one face"] > 0
    assert milliseconds["file to 4 images, warm"] > 0


@pytest.mark.slow
def test_the_benchmark_of_decoders_times_both_and_the_teacher(tmp_path, capsys):
    from tests.benchmarks.decoders import main
    from tests.tiny import tiny_pipeline

    pipeline = tiny_pipeline(with_normalized_decoder=True)
    pipeline.save_pretrained(tmp_path)
    main(["--checkpoint", str(tmp_path), "--runs", "1"])
    lines = re.findall(r"^(.+?) +([\d.]+) ms$", capsys.readouterr().out, re.MULTILINE)
    milliseconds = {name.strip(): float(figure) for name, figure in lines}
    assert set(milliseconds) == {
        "normalized, 56x56, 1 at once",
        "normalized, 56x56, 4 at once",
        "diffusion, 2 steps, 1 at once",
        "diffusion, 2 steps, 4 at once",
        "diffusion, 25 steps, 4 at once",
        "a guided step for 4 faces, two passes",
        *(f"teacher, {kind}, batch {b}" for kind in ("dlib", "torch") for b in (1, 32)),
        *(f"teacher, torch, with gradients, batch {b}" for b in (1, 32)),
    }
    assert milliseconds["teacher, torch, batch 32"] < milliseconds["teacher, dlib, batch 32"]


def test_one_pass_of_a_distilled_unet_is_timed_beside_two():
    from tests.benchmarks.decoders import measure_step
    from tests.tiny import tiny_pipeline
    from training.configuration import FaceDecoderDistillation
    from training.diffusion import FaceDecoder
    from training.distill_face_decoder import build_student

    pipeline = tiny_pipeline()
    decoder = FaceDecoder(pipeline.unet, pipeline.embedding_projection)
    pipeline.unet = build_student(FaceDecoderDistillation(), decoder).unet
    assert list(measure_step(pipeline, "cpu", 1)) == [
        "a guided step for 4 faces, two passes",
        "a distilled step for 4 faces, one pass",
    ]


@pytest.mark.slow
def test_the_benchmark_of_training_stands_beside_a_trainer(capsys):
    from tests.benchmarks.training import main

    main(["training/configs/tiny_voice_encoder.yaml", "--steps", "6", "--rounds", "1"])
    printed = capsys.readouterr().out
    loop, trainer = (
        float(re.search(rf"^{name} +([\d.]+) steps/s", printed, re.MULTILINE)[1])
        for name in ("this loop", "transformers.Trainer")
    )
    ratio = float(re.search(r"this loop / Trainer +([\d.]+)", printed)[1])
    assert ratio == pytest.approx(loop / trainer, rel=0.02)
    assert 0 < float(re.search(r"peak +([\d.]+) %", printed)[1]) < 100


@pytest.mark.slow
def test_the_ways_of_a_voice_encoder_are_compared_with_transformers(capsys):
    from tests.benchmarks.voice_encoder import main

    main(["--tiny", "--rounds", "2", "--ways", "model", "torch-int8", "onnx", "onnx-int8"])
    time = r" +\d+ ms +([\d.]+) x"
    lines = capsys.readouterr().out
    found = re.findall(rf"^(\S.+?){time}{time} +([\d.]+) +([\d.]+)$", lines, re.MULTILINE)
    assert found[0] == ("plain transformers, fp32", "1.00", "1.00", "1.00000", "1.00000")
    least = {name: float(cosine) for name, *_, cosine in found}
    assert list(least) == [
        "plain transformers, fp32",
        "Speech2FaceModel",
        "torch, int8 linear layers",
        "onnxruntime, fp32",
        "onnxruntime, int8",
    ]
    assert all(cosine > 0.9999 for name, cosine in least.items() if "int8" not in name)
    assert all(cosine > 0.99 for name, cosine in least.items() if "int8" in name)
    assert "medians of 2 rounds, 2 recordings" in lines and "between recordings" in lines
