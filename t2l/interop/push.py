"""Adapters and checkpoints onto a Hugging Face hub, each with its card; private unless asked otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, constants, errors, get_token
from huggingface_hub.utils import validate_repo_id

from t2l.checkpoint import read_info
from t2l.errors import CheckpointError, HubAccessError

_CARD = "README.md"
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_CHECKPOINT = ("config.json", "model.safetensors")
_WHOLE_MODEL = "tokenizer_config.json"
"""Lies beside a merged model, as transformers save it, and in no folder of ours."""
_OPTIONAL = ("nearness.safetensors",)


def operations(directory: str | os.PathLike[str]) -> list[CommitOperationAdd]:
    """What goes to the hub from an adapter's or a checkpoint's folder: its files by name, and nothing else there.

    A base model that is a folder of this machine is left out of the card, which hubs refuse to take otherwise.
    Raises CheckpointError if the folder is neither, or lacks a file.
    """
    folder = Path(directory)
    names = _ADAPTER if (folder / _ADAPTER[0]).is_file() else _CHECKPOINT
    if not folder.is_dir():
        raise CheckpointError(f"the folder {folder} does not exist: give one of an adapter or a checkpoint")
    if names is _CHECKPOINT:
        if (folder / _WHOLE_MODEL).is_file():
            raise CheckpointError(
                f"{folder} holds a whole model, and t2l pushes adapters and checkpoints: push that with transformers' "
                "push_to_hub"
            )
        read_info(folder)
    for name in (*names, _CARD):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} cannot be pushed: it lacks {name}")
    extras = [name for name in _OPTIONAL if names is _CHECKPOINT and (folder / name).is_file()]
    files = [CommitOperationAdd(name, folder / name) for name in (*names, *extras)]
    card = _without_local_base((folder / _CARD).read_text(encoding="utf-8"))
    return [*files, CommitOperationAdd(_CARD, card.encode())]


def push(directory: str | os.PathLike[str], repo: str, private: bool = True) -> str:
    """Commit the folder to the repository `owner/name`, which is made if it is not there; the commit's address.

    A repository that is there keeps its visibility. Raises CheckpointError as `operations` does, HubAccessError if
    there is no token, or if the hub refuses or cannot be reached.
    """
    files = operations(directory)
    check_repo(repo)
    if get_token() is None:
        raise HubAccessError("there is no token for the hub: log in with `hf auth login`, or set HF_TOKEN")
    with _refusals_as_sentences(repo):
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        return api.create_commit(repo, files, commit_message="Pushed by t2l").commit_url


def check_repo(repo: str) -> None:
    """Raise HubAccessError if no repository can have this name."""
    try:
        validate_repo_id(repo)
    except errors.HFValidationError as error:
        raise HubAccessError(f"'{repo}' is no name of a repository ({error}): write it as owner/name") from None
    if "/" not in repo:
        raise HubAccessError(f"'{repo}' is no whole name of a repository: write it as owner/name")


@contextmanager
def _refusals_as_sentences(repo: str) -> Iterator[None]:
    """HubAccessError for whatever a hub may answer."""
    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise HubAccessError(
                f"the hub at {constants.ENDPOINT} refuses to let this token write to '{repo}' (status {status}): "
                "log in with `hf auth login` with a token that may"
            ) from error
        reason = error.server_message or str(error).splitlines()[0]
        raise HubAccessError(f"the hub at {constants.ENDPOINT} answered {status} for '{repo}': {reason}") from error
    # HTTPError is httpx's or httpx2's, as this version of the hub's library has it
    except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:  # pyright: ignore[reportPrivateImportUsage]
        reason = str(error).strip().splitlines()[0]
        raise HubAccessError(f"the hub at {constants.ENDPOINT} cannot be reached ({reason}): connect to it") from error
    except ValueError as error:  # the card's metadata, which the hub checks first
        reason = " ".join(str(error).split())
        raise HubAccessError(f"the hub at {constants.ENDPOINT} refuses the card ({reason}): correct it") from error


def _without_local_base(card: str) -> str:
    """The card, without `base_model` in its front matter if that is a folder and not a name on the hub."""
    lines = card.splitlines(keepends=True)
    return "".join(line for line in lines if not (line.startswith("base_model:") and _names_a_folder(line)))


def _names_a_folder(line: str) -> bool:
    base = yaml.safe_load(line)["base_model"]
    if not isinstance(base, str):  # a list of names
        return False
    try:
        validate_repo_id(base)
    except errors.HFValidationError:
        return True
    return "/" not in base or Path(base).exists()
