"""The benchmark runs on any checkpoint and prints every stage."""

import re

import pytest


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
