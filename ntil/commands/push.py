"""An exported folder on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from data.common.counts import counted
from ntil.config.errors import ConfigError


def check_repository(name: str) -> None:
    """Check a repository's name without asking the hub.

    Raises:
        ConfigError: no owner, or not what the hub takes.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"push={name}: {error}") from error
    if not re.fullmatch(r"[^/]+/[^/]+", name):
        raise ConfigError(f"push={name}: name the owner too, as in push=owner/{name}")


def push(folder: Path, repository: str, private: bool = True, dry_run: bool = False) -> None:
    """Print what the folder holds, and send it to the hub unless that is a dry run.

    Args:
        private: a new repository is private, and one that is there and public gets nothing.

    Raises:
        ConfigError: the hub can't be reached, or refuses it; or the repository is public where it was to be private.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in files)
    for path in files:
        print(f"{path.stat().st_size:>16,}  {path.relative_to(folder)}")
    content = f"{counted(len(files), 'file')}, {total:,} bytes"
    if dry_run:
        print(f"{repository} ({_kind(private)} if it is new): would get {content}; nothing was sent")
        return
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        # One that was there before is what it was: `private` is of a new one alone.
        is_private = bool(api.repo_info(repository).private)
        if private and not is_private:
            raise ConfigError(
                f"push={repository}: is there and public, and nothing was sent; make it private on the hub, name "
                "another, or say private=false"
            )
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="ntil export")
    except LocalTokenNotFoundError as error:
        raise ConfigError(f"push={repository}: no token of the hub here; log in with `hf auth login`") from error
    except (HfHubHTTPError, OSError) as error:
        raise ConfigError(f"push={repository}: {' '.join(str(error).split())}") from error
    print(f"{repository} ({_kind(is_private)}): {content}, sent to {commit.commit_url}")


def _kind(private: bool) -> str:
    return "private" if private else "public"
