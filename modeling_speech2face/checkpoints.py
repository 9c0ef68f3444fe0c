"""What goes wrong when a checkpoint is loaded, in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EISDIR, ENOENT, ENOTDIR
from pathlib import Path

MAX_REASON = 200  # letters of a library's message


class CheckpointError(OSError, ValueError):
    """A checkpoint cannot be loaded, or its parts do not belong together."""


@contextmanager
def loading(name: str | Path) -> Iterator[None]:
    """Turns whatever the libraries raise over a checkpoint into one `CheckpointError`.

    A lack of memory, and files that may not be read, are told apart from a damaged checkpoint. What
    the Hub answers, and what a missing package raises, passes as it is.
    """
    try:
        yield
    except (CheckpointError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and not Path(name).is_dir():
            raise
        raise CheckpointError(
            f"{name} cannot be loaded ({_reason(error)}): {_advice(error)}."
        ) from error


def _advice(error: Exception) -> str:
    """What to do about it, as far as the error tells."""
    if _is_out_of_memory(error):
        return "free some memory, or use a smaller checkpoint"
    # The libraries' own words for what is missing in a checkpoint have no number.
    if isinstance(error, OSError) and error.errno not in (None, ENOENT, ENOTDIR, EISDIR):
        return "see that its files can be read here, and try again"
    return (
        "use a checkpoint whose parts are whole and belong together, with safetensors, which alone "
        "are read"
    )


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    # Torch has an error of its own for a GPU's memory, and mere words for a CPU's.
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error).lower()


def _reason(error: Exception) -> str:
    """The one line of an error that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "ignore_mismatched_sizes" in str(error):
        return "weights of other shapes than its configuration says"
    # huggingface_hub's typed configurations name the fault in their last line.
    line = lines[-1 if lines and "alidation error" in lines[0] else 0] if lines else ""
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line.split(". ")[0].rstrip(".")[:MAX_REASON] or type(error).__name__
