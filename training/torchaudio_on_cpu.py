"""Make torchaudio importable beside a CPU-only torch: `python -m training.torchaudio_on_cpu`.

On Linux, PyPI's torchaudio is linked against CUDA libraries that a CPU-only torch does not bring,
and its import fails for want of them. Its compiled extensions are optional: without them resample,
spectrograms, MFCC and masking work, lfilter is slow, and RNN-T and forced alignment are missing.
So they are removed, there and only there.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

CUDA_LIBRARY = re.compile(r"lib(c10_cuda|torch_cuda|cudart|nvrtc)\b")


def import_error(module: str) -> str:
    """Import `module` in a fresh Python; return what it printed if that failed, else ""."""
    result = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True)
    return result.stderr.decode(errors="replace") if result.returncode else ""


def remove_cuda_extensions(package: Path, torch_is_cpu_only: bool, error: str) -> bool:
    """Remove `package`/lib if torch is CPU-only and `error` says that a CUDA library is missing.

    Args:
        package (`Path`): folder of the installed torchaudio.
        torch_is_cpu_only (`bool`): whether torch was built without CUDA and without ROCm.
        error (`str`): what `import torchaudio` printed, "" if it works.

    Returns:
        `bool`: whether anything was removed.
    """
    extensions = package / "lib"
    if not (torch_is_cpu_only and CUDA_LIBRARY.search(error) and extensions.is_dir()):
        return False
    shutil.rmtree(extensions)
    return True


def main() -> None:
    spec = importlib.util.find_spec("torchaudio")
    if spec is None:
        raise SystemExit("torchaudio is not installed: pip install -c constraints.txt -e .[train]")
    import torch

    cpu_only = torch.version.cuda is None and torch.version.hip is None
    error = import_error("torchaudio") if cpu_only else ""
    if remove_cuda_extensions(Path(spec.origin).parent, cpu_only, error):
        print("removed torchaudio/lib: it wants CUDA libraries, and this torch is CPU-only")
        error = import_error("torchaudio")
    if error:
        raise SystemExit(f"torchaudio cannot be imported:\n{error}")


if __name__ == "__main__":
    main()
