"""What every test needs: no network, and threads that do not spin while they wait."""

import os
from pathlib import Path

# Before torch, huggingface_hub or gradio are imported: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def sample_recording() -> Path:
    """A real recording of one person speaking, from the repository."""
    return sorted((ROOT / "samples").glob("*.flac"))[0]
