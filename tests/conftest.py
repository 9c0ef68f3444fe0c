"""What every test needs: no network, and one thread."""

import os
from pathlib import Path

# Before torch, huggingface_hub or gradio are imported: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread, in what tests start, too: those that compare two runs bit for bit need one order of
# their sums, and `make test` keeps two processes busy. The second is software OpenGL's.
os.environ["OMP_NUM_THREADS"] = os.environ["LP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def sample_recording() -> Path:
    """A real recording of one person speaking, from the repository."""
    return sorted((ROOT / "samples").glob("*.flac"))[0]


@pytest.fixture(scope="module")
def no_workers():
    """Pairs are built in this process: to start a worker takes seconds, and test_engines does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dataset_scripts.engines._run_here", lambda units, work, _: map(work, units))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_key_in_the_users_home(tmp_path_factory):
    """The `speech2face` command keeps the key that it signs with in the user's configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        for variable in ("SPEECH2FACE_CERTIFICATE", "SPEECH2FACE_KEY"):
            patch.delenv(variable, raising=False)
        yield
