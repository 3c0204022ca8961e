"""Fetch adapters from the Hugging Face Hub: four named files of one commit, sizes checked
before."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Limits
from ramole_core.pool.config import CONFIG
from ramole_core.pool.disk import DISK_ERRORS
from ramole_core.pool.files import PICKLES, USED, SourceInfo, too_large
from ramole_core.pool.inspection import WEIGHTS

PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[\w./-]{1,96}))?", re.A)


class HubUnreachable(AdapterRefused):
    """The Hub did not answer, whatever the adapter; try again later."""


def copy_hub(source: str, into: Path, *, limits: Limits, use_token: bool) -> SourceInfo:
    """Fetch `hf:owner/name[@revision]` into `into`; raises AdapterRefused.

    `use_token`: whether the operator's own Hub login may be used. A visitor's request must not,
    or it would read the operator's private repositories.
    """
    found = _NAME.fullmatch(source)
    if found is None:
        raise AdapterRefused(
            f"{source[:120]!r} names no Hub repository; expected hf:owner/name or "
            "hf:owner/name@revision."
        )
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    endpoint = os.environ.get("HF_ENDPOINT")
    token = None if use_token else False
    repo, revision = found["repo"], found["revision"]
    fetched = into / ".hub"
    try:
        info = HfApi(endpoint=endpoint, token=token).model_info(
            repo, revision=revision, files_metadata=True, timeout=30
        )
        sizes = {f.rfilename: f.size or 0 for f in info.siblings or []}
        names = choose_files(repo, sizes, limits)
        for name in names:
            path = hf_hub_download(
                repo,
                name,
                revision=info.sha,
                cache_dir=fetched,
                endpoint=endpoint,
                token=token,
            )
            if os.stat(path).st_size > limits.bytes:
                raise too_large(limits)
            shutil.copyfile(path, into / name)
    except AdapterRefused:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        # the client raises what its HTTP library of the day raises
        gone = isinstance(
            error, EntryNotFoundError | RepositoryNotFoundError | RevisionNotFoundError
        ) and not isinstance(error, LocalEntryNotFoundError)  # the client's word for no network
        kind = AdapterRefused if gone else HubUnreachable
        reason = str(error).strip().split("\n")[0][:160]
        raise kind(
            f"{source} could not be fetched from the Hub ({type(error).__name__}: {reason}); check "
            "the name and the network, or give the files themselves."
        ) from None
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    return repo.rpartition("/")[2], [f"From the Hub: {repo} at {info.sha}."]


def choose_files(repo: str, sizes: Mapping[str, int], limits: Limits) -> list[str]:
    """The files to fetch of those that a repository has; raises AdapterRefused."""
    for wanted in (WEIGHTS, CONFIG):
        if wanted not in sizes:
            pickles = [name for name in sizes if name.endswith(PICKLES)]
            instead = f" but {pickles[0][:120]}, which can run code" if pickles else ""
            raise AdapterRefused(
                f"hf:{repo} has no {wanted}{instead}; choose a repository that PEFT's "
                "save_pretrained filled, with safetensors."
            )
    names = [name for name in USED if name in sizes]
    if sum(sizes[name] for name in names) > limits.bytes:
        raise too_large(limits)
    return names
