"""A built data set on the Hugging Face Hub: private unless it is said otherwise, never without
a statement of rights.

`python -m dataset_scripts.publishing FOLDER REPO [--rights TEXT] [--contact TEXT] [--public]`
pushes pairs that were built from video, or a synthetic cast.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from dataset_scripts.assembly import move_into_place, remove_folder
from dataset_scripts.data_card import (
    CARD_FILE,
    HISTOGRAMS_FILE,
    REFUSED_FILE,
    SHEET_FILE,
    measure,
    read_about,
    render_card,
    split_files,
)
from dataset_scripts.removal import dataset_about

NO_RIGHTS = (
    'voices and faces are biometric data: state with --rights "..." by what right they may be '
    "passed on, for example the people's consent and where it is kept"
)
CAST = "dataset_scripts.synthetic_cast"
# Its card says so, too: nobody is shown, and whoever is heard is named with the licence.
CAST_RIGHTS = "invented faces; voices under the licences that its card names"
LEAST_RIGHTS = 20  # characters: a sentence, not a tick


def state_rights(folder: Path, rights: str | None, contact: str | None) -> None:
    """Writes into a data set's card by what right it may be passed on, and whom people can ask.

    Args:
        folder: of the data set.
        rights, contact: what to write; None leaves what is there.

    Raises:
        ValueError: if the folder holds no finished data set.
    """
    about = dataset_about(folder)
    said = {name: text for name, text in (("rights", rights), ("contact", contact)) if text}
    if all(about.get(name) == text for name, text in said.items()):
        return
    figures = measure(split_files(folder), folder / REFUSED_FILE)
    new = folder / "unfinished-card"
    remove_folder(new)
    new.mkdir()
    card = render_card({**about, **said}, figures)
    (new / CARD_FILE).write_text(card, encoding="utf-8")
    move_into_place(new, folder)
    remove_folder(new)


def published_about(folder: Path) -> dict:
    """What the card of a data set says of its making and of the rights.

    Raises:
        ValueError: if the folder holds no finished data set.
    """
    card = folder / CARD_FILE
    about = read_about(card) if card.is_file() else {}
    if about.get("builder") == CAST:
        return about | {"rights": CAST_RIGHTS}
    return dataset_about(folder)


def check_can_push(repo: str, public: bool, rights: str | None) -> None:
    """Refuses at once what would fail, or show people to the world, after hours of work.

    Args:
        repo: its name on the Hub, OWNER/NAME or NAME.
        public: whether everybody is to see it.
        rights: by what right it may be passed on.

    Raises:
        ValueError: without rights, without a token, for a bad name, and for a public repository
            that is not asked for.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalTokenNotFoundError,
    )

    if not rights or len(rights.strip()) < LEAST_RIGHTS:
        raise ValueError(f"not pushed: {NO_RIGHTS}")
    api = HfApi()
    try:
        api.whoami()
        is_private = _is_private(api, repo)
    except LocalTokenNotFoundError:
        raise ValueError("nobody is logged in to the Hub: run `hf auth login` first") from None
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no name for a repository: {error}") from error
    except UnicodeError:
        raise ValueError("no token has such letters as yours: run `hf auth login` again") from None
    except HfHubHTTPError as error:
        raise ValueError(f"the Hub does not answer as it should: {_first_line(error)}") from error
    except (HTTPError, OSError) as error:
        raise ValueError(
            f"the Hub cannot be reached ({_first_line(error)}): try again with a network"
        ) from error
    if is_private is False and not public:
        raise ValueError(f"{repo} is public already: add --public, or choose another name")


def push_dataset(folder: Path, repo: str, public: bool) -> str:
    """Pushes a data set; files that it has no more are deleted there.

    If anybody was taken out of it, the history of the repository goes too: earlier versions hold
    them still.

    Args:
        folder: of the data set, with rights in its card.
        repo: its name on the Hub.
        public: whether everybody is to see it.

    Returns:
        The address.

    Raises:
        RuntimeError: if the Hub refuses.
        ValueError: if the card states no rights, and for a public repository that is not asked for.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    about = published_about(folder)
    if not about.get("rights"):
        raise ValueError(f"not pushed: {NO_RIGHTS}")
    api = HfApi()
    try:
        was_private = _is_private(api, repo)
        if was_private is False and not public:  # it may have become so since it was checked
            raise ValueError(f"{repo} is public already: add --public, or choose another name")
        repo = api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True).repo_id
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            # Not removed.json: who was taken out concerns whoever builds, and nobody else.
            allow_patterns=[CARD_FILE, "*.parquet", SHEET_FILE, HISTOGRAMS_FILE],
            ignore_patterns=["*/*"],
            delete_patterns=["*.parquet"],
            commit_message="Speech-face pairs",
        )
        if about.get("removed") and was_private is not None:
            _forget_history(api, repo)
        if public:
            api.update_repo_settings(repo, repo_type="dataset", private=False)
    except (HTTPError, OSError, RuntimeError) as error:  # the last for an upload that broke
        raise RuntimeError(f"the Hub refused {repo}: {_first_line(error)}") from error
    return f"{api.endpoint}/datasets/{repo}"


def _is_private(api, repo: str) -> bool | None:
    """Whether a data set is private; None if there is none of that name."""
    from huggingface_hub.errors import RepositoryNotFoundError

    if "/" not in repo:
        repo = f"{api.whoami()['name']}/{repo}"
    try:
        return bool(api.repo_info(repo, repo_type="dataset").private)
    except RepositoryNotFoundError:
        return None


def _forget_history(api, repo: str) -> None:
    """Deletes earlier versions, and the files that only they have."""
    api.super_squash_history(repo, repo_type="dataset")
    kept = {
        entry.lfs.sha256
        for entry in api.list_repo_tree(repo, repo_type="dataset", recursive=True)
        if getattr(entry, "lfs", None)
    }
    old = [
        file for file in api.list_lfs_files(repo, repo_type="dataset") if file.file_oid not in kept
    ]
    if old:
        api.permanently_delete_lfs_files(repo, old, repo_type="dataset")


def _first_line(error: Exception) -> str:
    """What an error says, without what follows it, and without a token."""
    from huggingface_hub import get_token

    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(rf"hf_\w+|{re.escape(get_token() or 'hf_')}", "hf_...", line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Pushes a data set as it is; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.publishing",
        description="Push pairs built from video, or a synthetic cast, to the Hugging Face Hub.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the data set")
    parser.add_argument("repo", metavar="REPO", help="OWNER/NAME on the Hub")
    parser.add_argument("--rights", metavar="TEXT", help="by what right it may be passed on")
    parser.add_argument("--contact", metavar="TEXT", help="whom people can ask to be taken out")
    parser.add_argument("--public", action="store_true", help="for everybody to see")
    options = parser.parse_args(arguments)
    try:
        about = published_about(options.folder)
        is_cast = about["builder"] == CAST
        if is_cast and (options.rights or options.contact):
            raise ValueError(
                "a cast's card states its rights itself: leave out --rights, --contact"
            )
        check_can_push(options.repo, options.public, options.rights or about.get("rights"))
        if not is_cast:
            state_rights(options.folder, options.rights, options.contact)
        print(push_dataset(options.folder, options.repo, options.public))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"publishing: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
