"""A model that is loaded with its own code, where this package is not installed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modeling_speech2face import save_with_code
from tests.tiny import tiny_model

# For the head of a script: the package is not there.
NO_PACKAGE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_speech2face":
            raise ModuleNotFoundError("No module named 'modeling_speech2face'")

sys.meta_path.insert(0, Refuse())
try:
    import modeling_speech2face
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package is still there")
"""
WITHOUT_THE_PACKAGE = (
    NO_PACKAGE
    + """
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

folder = sys.argv[1]
trust = {"trust_remote_code": True}
assert AutoConfig.from_pretrained(folder, **trust).face_embedding_size == 8
extractor = AutoFeatureExtractor.from_pretrained(folder, **trust)
model = AutoModel.from_pretrained(folder, **trust)
speech = torch.load(sys.argv[2])
inputs = extractor(speech, sampling_rate=16000, return_tensors="pt")
torch.save(
    {
        "forward": model(**inputs).face_embeddings.detach(),
        "clip": model.embed_clip(speech, 16000),
        "covariance": model.residual_covariance,
    },
    sys.argv[3],
)
"""
)


def check_loads_without_the_package(model, folder):
    """Saves a model with its code; a process that has no package must compute the same with it."""
    save_with_code(model, folder / "model")
    speech = 0.1 * torch.randn(5000)
    torch.save(speech, folder / "speech.pt")
    script = folder / "script.py"
    script.write_text(WITHOUT_THE_PACKAGE)
    arguments = [str(folder / name) for name in ("model", "speech.pt", "result.pt")]
    environment = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    run = subprocess.run(
        [sys.executable, "-I", str(script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    result = torch.load(folder / "result.pt")
    inputs = model.feature_extractor(speech, 16000, return_tensors="pt")
    torch.testing.assert_close(result["forward"], model(**inputs).face_embeddings)
    torch.testing.assert_close(result["clip"], model.embed_clip(speech, 16000))
    torch.testing.assert_close(result["covariance"], model.residual_covariance)


@pytest.mark.slow
def test_a_folder_with_code_needs_no_package(tmp_path):
    check_loads_without_the_package(tiny_model(), tmp_path)


def test_only_what_is_saved_with_code_carries_code(tmp_path):
    model = tiny_model()
    save_with_code(model, tmp_path / "with")
    model.save_pretrained(tmp_path / "without")
    assert (tmp_path / "with" / "modeling_speech2face.py").exists()
    assert "auto_map" in (tmp_path / "with" / "config.json").read_text()
    assert not list((tmp_path / "without").glob("*.py"))
    assert "auto_map" not in (tmp_path / "without" / "config.json").read_text()


def test_the_copied_code_imports_only_what_everybody_has():
    """Every import in these files is asked of whoever loads them from the Hub."""
    from transformers.dynamic_module_utils import get_imports

    for name in (
        "configuration_speech2face",
        "feature_extraction_speech2face",
        "modeling_speech2face",
        "modeling_spectrogram_encoder",
    ):
        source = Path("modeling_speech2face") / f"{name}.py"
        extra = set(get_imports(source)) - set(sys.stdlib_module_names)
        assert extra <= {"torch", "numpy", "transformers", "huggingface_hub"}, (source, extra)


def test_no_module_of_the_pipeline_needs_itself():
    """diffusers fetches what a module imports, and what that imports, and never looks back."""
    home, waiting = Path("modeling_speech2face"), [["pipeline_speech2face"]]
    while waiting:
        path = waiting.pop()
        source = (home / f"{path[-1]}.py").read_text()
        for other in re.findall(r"^\s*from \.(\w+) import", source, re.MULTILINE):
            assert other not in path, " needs ".join([*path, other])
            waiting.append([*path, other])


AUTO_CLASSES = """
import sys
{imports}
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
folder = sys.argv[1]
assert type(AutoFeatureExtractor.from_pretrained(folder)).__name__ == "Speech2FaceFeatureExtractor"
assert type(AutoConfig.from_pretrained(folder)).__name__ == "Speech2FaceConfig"
assert type(AutoModel.from_pretrained(folder)).__module__.startswith("modeling_speech2face.")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import modeling_speech2face",
        "import transformers.models.auto.modeling_auto, modeling_speech2face",
        "from modeling_speech2face import Speech2FaceConfig",
        "from modeling_speech2face import Speech2FaceModel",
        "import modeling_speech2face.feature_extraction_speech2face",
    ],
)
def test_the_auto_classes_know_the_package_in_whatever_order_things_are_imported(imports, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    model.feature_extractor.save_pretrained(tmp_path)
    code = AUTO_CLASSES.format(imports=imports)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, modeling_speech2face\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'numpy', 'PIL', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_imported():
    import modeling_speech2face

    for name in modeling_speech2face.__all__:
        assert getattr(modeling_speech2face, name) is not None
    assert set(modeling_speech2face.__all__) <= set(dir(modeling_speech2face))
    source = Path(modeling_speech2face.__file__).read_text()
    for_editors = [
        alias.name
        for block in ast.parse(source).body
        if isinstance(block, ast.If)
        for statement in block.body
        for alias in statement.names
    ]
    assert sorted(for_editors) == sorted(modeling_speech2face.__all__)
    with pytest.raises(AttributeError, match="Nonesuch"):
        modeling_speech2face.Nonesuch  # noqa: B018
