"""Where models and data sets are loaded from: a folder, the machine's own store of them, or the hub.

The store is for clusters without a hub: a folder DIR that holds `DIR/org/name`, or `DIR/name`. Every command takes it
as --local-dir DIR; it is kept in the environment (T2L_LOCAL_DIR), because it is a fact of the machine, not of a run:
configs and checkpoints hold hub names, and work wherever these can be found.
"""

import os
from pathlib import Path
from typing import Literal

from t2l.errors import ConfigError, HubAccessError

LOCAL_DIR = "T2L_LOCAL_DIR"
LOCAL_DIR_HELP = "folder of models and data sets, as DIR/org/name, that is searched before the hub"
_PROBED = {"model": "config.json", "dataset": "README.md"}
_PROBE_SECONDS = 10

Kind = Literal["model", "dataset"]


def use_local_dir(folder: str | os.PathLike[str] | None) -> None:
    """Search this folder before the hub, in this process and in those that it starts; None changes nothing.

    Raises ConfigError if there is no such folder.
    """
    if folder is None:
        return
    if not Path(folder).is_dir():
        raise ConfigError(f"the local directory {folder} does not exist: give a folder that holds models as org/name")
    os.environ[LOCAL_DIR] = str(Path(folder).absolute())


def environment() -> dict[str, str]:
    """What processes on other machines need in their environment, to find what this one finds."""
    return {LOCAL_DIR: os.environ[LOCAL_DIR]} if os.environ.get(LOCAL_DIR) else {}


def find(name: str, revision: str | None = None, kind: Kind = "model") -> str:
    """What to load `name` from: a folder, or the name itself, which is then known to be within reach on the hub.

    A name is a folder, or a hub's org/name. Where the hub is out of reach, a copy in its cache will do.
    Raises HubAccessError at once, rather than after a minute of retries, if there is nothing to load.
    """
    if Path(name).is_dir():
        return name
    if (stored := _stored(name)) is not None:
        return str(stored)
    _check_name(name, kind)
    problem = _probe(name, revision, kind)
    if problem is None:
        return name
    if (cached := _cached(name, revision, kind)) is not None:
        return cached
    raise HubAccessError(f"the {_word(kind)} '{name}' {problem}, or give a folder: its path, or --local-dir{_tried()}")


def _stored(name: str) -> Path | None:
    """The name's folder in the local directory, if there is one."""
    if not (store := os.environ.get(LOCAL_DIR)):
        return None
    folders = (Path(store) / name, Path(store) / name.rpartition("/")[2])
    return next((folder for folder in folders if folder.is_dir()), None)


def _check_name(name: str, kind: Kind) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise HubAccessError(
            f"there is no folder {name}, and no hub can have that name: give the folder of a {_word(kind)}, or org/name"
        ) from None


def _probe(name: str, revision: str | None, kind: Kind) -> str | None:
    """One request, without retries: why the hub does not give a model or data set, with what to do; None if it does."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(name, _PROBED[kind], repo_type=kind, revision=revision), timeout=_PROBE_SECONDS)
    except errors.EntryNotFoundError:  # no such file, but the rest may be there
        return None
    except errors.GatedRepoError:
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
        return f"is gated: accept its licence at {page} and log in with `hf auth login`"
    except errors.RevisionNotFoundError:
        return f"has no revision '{revision}' on the hub: correct it"
    except errors.RepositoryNotFoundError:
        return "is neither a folder nor on the hub (or it is private): correct the name, log in with `hf auth login`"
    except errors.OfflineModeIsEnabled:
        return "is not in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it: unset that"
    # HTTPError is httpx's or httpx2's, as this version of the hub's library has it
    except (errors.HTTPError, errors.FileMetadataError) as error:  # pyright: ignore[reportPrivateImportUsage]
        reason = str(error).strip().splitlines()[0] or type(error).__name__
        return f"cannot be fetched from {constants.ENDPOINT} ({reason}): connect to it"
    return None


def _cached(name: str, revision: str | None, kind: Kind) -> str | None:
    """The snapshot in the hub's cache, if a model or data set was fetched before."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(name, _PROBED[kind], repo_type=kind, revision=revision)
    return str(Path(file).parent) if isinstance(file, str) else None


def _word(kind: Kind) -> str:
    return "data set" if kind == "dataset" else kind


def _tried() -> str:
    return f" ({os.environ[LOCAL_DIR]} does not hold it)" if os.environ.get(LOCAL_DIR) else ""
