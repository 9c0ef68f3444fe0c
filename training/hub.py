"""What everything that is pushed to the Hugging Face Hub has in common.

One commit holds all that changed, so that a push which breaks leaves what was published as it was;
what did not change is not sent, and where nothing changed there is no commit.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


def check_can_push(repo: str, private: bool = False) -> str:
    """Refuses at once what would fail after hours of work.

    Args:
        repo: its name on the Hub, OWNER/NAME or NAME.
        private: whether only its owner is to see it, a model.

    Returns:
        OWNER/NAME.

    Raises:
        ValueError: if nobody is logged in, the token may only read, the owner is somebody else, the
            name is none, it is to be private and is public already, or the Hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalTokenNotFoundError,
    )
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        user = HfApi().whoami()
    except LocalTokenNotFoundError:
        raise ValueError("nobody is logged in to the Hub: run `hf auth login` first") from None
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no name for a repository: {error}") from error
    except UnicodeError:
        raise ValueError("no token has such letters as yours: run `hf auth login` again") from None
    except HfHubHTTPError as error:
        raise ValueError(f"the Hub does not answer as it should: {first_line(error)}") from error
    except (HTTPError, OSError) as error:
        raise ValueError(
            f"the Hub cannot be reached ({first_line(error)}): try again with a network"
        ) from error
    if (user.get("auth") or {}).get("accessToken", {}).get("role") == "read":
        raise ValueError("your token may only read: make one that may write, and `hf auth login`")
    owner, _, name = repo.rpartition("/")
    owners = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    if owner and owner not in owners:
        raise ValueError(
            f"{owner!r} is not yours to push to: name it {owners[0]}/{name}, or log in as another"
        )
    repo = f"{owner or owners[0]}/{name}"
    if private and HfApi().repo_exists(repo):
        _check_private(repo, HfApi().repo_info(repo))
    return repo


def push_files(
    repo: str,
    files: Mapping[str, Path | str],
    message: str,
    kind: str = "model",
    private: bool = False,
    delete: Sequence[str] = (),
) -> tuple[str, bool]:
    """Pushes files in one commit; none, if they are all there already.

    Args:
        repo: OWNER/NAME on the Hub, made if there is none.
        files: by their paths in the repository: a file of this machine, or a text.
        message: of the commit.
        kind: "model", "dataset" or "space".
        private: whether only its owner is to see it; a private repository that exists stays so.
        delete: patterns of files that are deleted there unless they are among `files`.

    Returns:
        The address, and whether anything was new.

    Raises:
        RuntimeError: if the Hub refuses, or somebody else pushes meanwhile; then nothing is
            published that was not before.
        ValueError: if it is to be private, and is public already.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HTTPError

    api = HfApi()
    try:
        address = api.create_repo(
            repo,
            repo_type=kind,
            private=private,
            exist_ok=True,
            space_sdk="gradio" if kind == "space" else None,
        )
        before = api.repo_info(repo, repo_type=kind)
        if private:
            _check_private(repo, before)
        operations = [
            CommitOperationAdd(path, data.encode() if isinstance(data, str) else data)
            for path, data in files.items()
        ]
        operations += [
            CommitOperationDelete(path)
            for path in sorted(file.rfilename for file in before.siblings or ())
            if path not in files and any(fnmatch(path, pattern) for pattern in delete)
        ]
        commit = api.create_commit(
            repo, operations, commit_message=message, repo_type=kind, parent_commit=before.sha
        )
    except (HTTPError, OSError, RuntimeError) as error:  # the last for an upload that broke
        raise RuntimeError(
            f"the Hub refused {repo}, and what was published there is as it was; the same command "
            f"tries again ({first_line(error.__cause__ or error)})"
        ) from error
    return str(address), commit.oid != before.sha


def _check_private(repo: str, info: Any) -> None:
    if info.private is False:
        raise ValueError(
            f"{repo} is public already: make it private on the Hub, leave out --private, or choose "
            "another name"
        )


def first_line(error: Exception) -> str:
    """What an error says, without what follows it, and without a token."""
    from huggingface_hub import get_token

    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(rf"hf_\w+|{re.escape(get_token() or 'hf_')}", "hf_...", line)
