"""The weights that the page draws with: what it says of them at once, and how they are loaded."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import modeling_speech2face

if TYPE_CHECKING:
    from modeling_speech2face import Speech2FacePipeline

BUNDLED = Path(modeling_speech2face.__file__).parent / "demo_checkpoint"
CHECKPOINT_VARIABLE = "SPEECH2FACE_CHECKPOINT"  # a folder, or a repository on the Hub


@dataclass(frozen=True)
class Weights:
    """What the page must know of a checkpoint before it is loaded.

    Args:
        name (`str`): its folder or repository.
        num_inference_steps (`int`): denoising steps, if nobody says how many.
        guidance_scale (`float`): if nobody says which.
        have_normalized_decoder (`bool`): whether the paper's decoder is among its parts.
    """

    name: str
    num_inference_steps: int
    guidance_scale: float
    have_normalized_decoder: bool

    @property
    def are_bundled(self) -> bool:
        """Whether they are those that come with the package."""
        return is_bundled(self.name)


def is_bundled(name: str) -> bool:
    """Whether a folder or repository is the one that comes with the package."""
    return Path(name) == BUNDLED


def weights_of(pipeline: "Speech2FacePipeline") -> Weights:
    """The same of a pipeline that is loaded already."""
    return _weights(pipeline.name_or_path or "", pipeline.config)


def announced_weights() -> Weights:
    """What the index of the checkpoint says that SPEECH2FACE_CHECKPOINT names, or the bundled one.

    Raises:
        CheckpointError: it has no index that can be read.
        OSError: the Hub does not have it or cannot be reached.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from modeling_speech2face import CheckpointError

    name = os.environ.get(CHECKPOINT_VARIABLE) or str(BUNDLED)
    try:
        return _weights(name, json.loads(_index_of(name).read_text(encoding="utf-8")))
    except LocalEntryNotFoundError:  # the Hub cannot be reached; it is a FileNotFoundError, too
        raise
    except (EntryNotFoundError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{name} has no model_index.json of a Speech2Face pipeline: let {CHECKPOINT_VARIABLE} "
            "name a folder or a repository of one."
        ) from error


def load_pipeline(name: str) -> "Speech2FacePipeline":
    """The pipeline of a folder or repository; on a GPU if there is one."""
    import torch

    from modeling_speech2face import Speech2FacePipeline

    pipeline = Speech2FacePipeline.from_pretrained(name)
    return pipeline.to("cuda") if torch.cuda.is_available() else pipeline


def _index_of(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name) / "model_index.json"
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, "model_index.json"))


def _weights(name: str, index: Mapping) -> Weights:
    steps, scale = index["num_inference_steps"], index["guidance_scale"]
    decoder = index.get("normalized_decoder") or [None]  # its library and class
    return Weights(name, steps, scale, decoder[0] is not None)
