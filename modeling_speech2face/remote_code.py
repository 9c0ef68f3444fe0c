"""Code that travels with weights, for whoever does not have this package.

A generic `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)` and the Auto classes then
load a folder, or a Hub repository made of it. Whoever has the package loads the same folder by its
own classes, and runs nothing that came with it.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .modeling_speech2face import Speech2FaceModel
    from .pipeline_speech2face import Speech2FacePipeline

ENTRY = "speech2face_code"  # the module that names all others
# diffusers copies the modules that the entry itself imports, and looks no further.
ENTRY_CODE = '''"""Where a generic `DiffusionPipeline` begins: every module of the pipeline."""

{imports}
'''
# Without `from .module import`: diffusers would look for the module in the component's folder.
PART_CODE = f'''"""Where a generic `DiffusionPipeline` finds the class of this component."""

from . import {ENTRY}


def __getattr__(name):
    return getattr({ENTRY}, name)
'''
AUTO_CLASSES = {
    "voice_encoder/config.json": {
        "AutoConfig": "configuration_speech2face.Speech2FaceConfig",
        "AutoModel": "modeling_speech2face.Speech2FaceModel",
    },
    "feature_extractor/preprocessor_config.json": {
        "AutoFeatureExtractor": "feature_extraction_speech2face.Speech2FaceFeatureExtractor"
    },
}


def save_with_code(
    model_or_pipeline: "Speech2FaceModel | Speech2FacePipeline", folder: str | Path
) -> None:
    """Saves a model with its feature extractor, or a whole pipeline, and their sources.

    Who does not have this package loads the folder, or a Hub repository made of it, by
    `AutoModel.from_pretrained(..., trust_remote_code=True)`, and a pipeline by
    `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)`; its voice encoder by
    `AutoModel` and `subfolder="voice_encoder"`.

    Args:
        model_or_pipeline (`Speech2FaceModel` or `Speech2FacePipeline`): what to save.
        folder (`str` or `Path`): where to; made if it does not exist.
    """
    from .modeling_speech2face import Speech2FaceModel

    if isinstance(model_or_pipeline, Speech2FaceModel):
        return _save_model(model_or_pipeline, folder)
    model_or_pipeline.save_pretrained(folder)
    for name, text in code_of(folder).items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


def _save_model(model: "Speech2FaceModel", folder: str | Path) -> None:
    from .configuration_speech2face import Speech2FaceConfig
    from .feature_extraction_speech2face import Speech2FaceFeatureExtractor
    from .modeling_speech2face import Speech2FaceModel

    auto_classes = {
        Speech2FaceConfig: "AutoConfig",
        Speech2FaceModel: "AutoModel",
        Speech2FaceFeatureExtractor: "AutoFeatureExtractor",
    }
    try:
        for own_class, auto_class in auto_classes.items():
            own_class.register_for_auto_class(auto_class)
        model.save_pretrained(folder)
        model.feature_extractor.save_pretrained(folder)
    finally:  # what is saved otherwise stays without code
        for own_class in auto_classes:
            own_class._auto_class = None
        vars(model.config).pop("auto_map", None)


def code_of(folder: str | Path) -> dict[str, str]:
    """What to write into a saved pipeline's folder so that it is loaded without this package.

    Args:
        folder (`str` or `Path`): of the pipeline.

    Returns:
        `dict`: text by path: the sources, and the configurations that now name them.
    """
    from .pipeline_speech2face import CODE_OF_PART

    folder, home = Path(folder), Path(__file__).parent
    modules = _modules_of("pipeline_speech2face")
    files = {f"{name}.py": (home / f"{name}.py").read_text(encoding="utf-8") for name in modules}
    imports = "\n".join(f"from .{name} import *  # noqa: F403" for name in modules)
    files[f"{ENTRY}.py"] = ENTRY_CODE.format(imports=imports)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    for name, entry in index.items():
        if isinstance(entry, list) and str(entry[0]).split(".")[0] in (__package__, CODE_OF_PART):
            index[name] = [CODE_OF_PART, entry[1]]
            files[f"{name}/{CODE_OF_PART}.py"] = PART_CODE
    index["_class_name"] = [ENTRY, "Speech2FacePipeline"]
    files["model_index.json"] = _as_json(index)
    for name, auto_map in AUTO_CLASSES.items():
        config = json.loads((folder / name).read_text(encoding="utf-8"))
        files[name] = _as_json(config | {"auto_map": auto_map})
    return files


def _modules_of(name: str) -> list[str]:
    """A module of this package, and all that it needs of it."""
    found, to_read = {name}, [name]
    while to_read:
        source = (Path(__file__).parent / f"{to_read.pop()}.py").read_text(encoding="utf-8")
        new = set(re.findall(r"^\s*from \.(\w+) import", source, re.MULTILINE)) - found
        found |= new
        to_read += new
    return sorted(found)


def _as_json(config: dict) -> str:
    return json.dumps(config, indent=2, sort_keys=True) + "\n"
