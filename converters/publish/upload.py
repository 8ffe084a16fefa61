"""The way to the Hub: a repository is looked at, made where it is missing, and given one commit.

Large files go first, each by itself; the commit that names them all comes last. So a repository is
at every moment as it was or as it is to be, whatever breaks off, and a second try sends only what
the Hub has not got yet. Knows nothing of what a packed folder holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from converters.publish.contents import Contents, is_own_name
from converters.publish.refusals import in_sentences, taken
from converters.sources.card import README
from converters.sources.remote.hub_client import quiet
from sparity_edge.errors import OptionError
from sparity_edge.packed.manifest import MANIFEST
from sparity_edge.progress import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

LARGE = 1 << 20  # bytes; smaller files go with the commit
MESSAGE = "Upload a packed model"
# What may stand in a repository beside a packed folder: the Hub's own file, and texts of people.
_BESIDE = (".gitattributes", README, "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")


def upload(
    contents: Contents,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = MESSAGE,
    progress: Progress = silent,
    bars: bool = False,
) -> str:
    """Send a packed folder to the Hub, in one commit.

    Args:
        contents: what goes up.
        repository: `org/name`; made where there is none.
        private: whether it is one that others do not see.
        revision: the branch, made where there is none; None: the main one.
        message: of the commit.
        progress: told of bytes that are there, after each file.
        bars: have the Hub's client draw bars of its own.

    Returns:
        The web address of the model.

    Raises:
        OptionError: the repository holds another model, or is public and should not be.
        SourceError: the Hub refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with nullcontext() if bars else quiet(), in_sentences(repository):
        info = _repository(api, repository, private, revision)
        present = {each.rfilename for each in info.siblings or ()}
        _refuse_another_model(repository, present)
        additions = [CommitOperationAdd(name, content) for name, content in contents.all.items()]
        stale = sorted(each for each in present - contents.sizes.keys() if is_own_name(each))
        large = [each for each in additions if contents.sizes[each.path_in_repo] >= LARGE]
        done, total = 0, sum(contents.sizes.values())
        progress("upload", done, total)
        for each in large:
            # One at a time: an interruption is heard at once, and nothing waits for others.
            api.preupload_lfs_files(repository, [each], revision=revision)
            done += contents.sizes[each.path_in_repo]
            progress("upload", done, total)
        commit = api.create_commit(
            repository,
            [*additions, *(CommitOperationDelete(each) for each in stale)],
            commit_message=message,
            revision=revision,
            parent_commit=info.sha,
        )
        progress("upload", total, total)
    return str(commit.repo_url)


def _repository(api: HfApi, repository: str, private: bool, revision: str | None) -> ModelInfo:
    """What the Hub tells of the repository and its branch, which are made where they are missing.

    Raises:
        OptionError: it is public, and a private one was asked for.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = api.model_info(repository)
    except RepositoryNotFoundError:
        # Without a token, or with a wrong one, this is what refuses.
        with taken(repository):
            api.create_repo(repository, private=private, repo_type="model")
        info = api.model_info(repository)
    if private and not info.private:
        raise OptionError(
            f"{repository} is there already and public, so nothing is sent; make it private in its "
            "settings on the Hub, choose another name, or leave --private out."
        )
    if revision is None:
        return info
    with contextlib.suppress(RevisionNotFoundError):
        return api.model_info(repository, revision=revision)
    api.create_branch(repository, branch=revision)
    return api.model_info(repository, revision=revision)


def _refuse_another_model(repository: str, present: Collection[str]) -> None:
    others = sorted(each for each in present if each not in _BESIDE)
    if others and MANIFEST not in present:
        raise OptionError(
            f"{repository} holds something else ({_named(others)}), so nothing is sent; choose "
            "another name."
        )


def _named(names: list[str]) -> str:
    more: Any = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0][:60]}{more}"
