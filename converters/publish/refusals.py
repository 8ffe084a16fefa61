"""What the Hub's client raises while a model is sent, as sentences with the remedy.

Which library carries the client's requests differs between its versions, so what is no answer of
the Hub is told apart by what it is not. Knows nothing of what is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sparity_edge.errors import SourceError, SparityError, library_words

LOG_IN = (
    "log in with: hf auth login (the token needs write access: "
    "https://huggingface.co/settings/tokens), or set HF_TOKEN"
)
AGAIN = "the repository is as it was; push again, and what has arrived is not sent again"


@contextmanager
def in_sentences(repository: str) -> Iterator[None]:
    """Have whatever goes wrong with a repository end in one sentence.

    Raises:
        SourceError: the Hub refuses, or cannot be reached.
    """
    try:
        yield
    except SparityError:
        raise
    except Exception as error:  # the HTTP library below differs between versions of the Hub client
        raise _refusal(repository, error) from error


@contextmanager
def taken(repository: str) -> Iterator[None]:
    """Tell what it means that a repository, which cannot be seen, cannot be made either.

    Raises:
        SourceError: its name is taken.
    """
    try:
        yield
    except Exception as error:
        if _status(error) == 409:
            raise SourceError(
                f"{repository}: the name is taken, by a repository that your token may not see or "
                "that was made just now; choose another name, or push again."
            ) from error
        raise


def _refusal(repository: str, error: Exception) -> SourceError:
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    origin = _root(error)
    status, words = _status(origin), library_words(origin)
    owner = repository.partition("/")[0]
    if status == 401 or isinstance(origin, LocalTokenNotFoundError):
        return SourceError(f"{repository}: the Hub does not know who you are; {LOG_IN}.")
    if status == 403:
        return SourceError(
            f"{repository}: your token may not write there; give it write access to {owner} "
            "(https://huggingface.co/settings/tokens), or push to a name of your own."
        )
    if status == 404:
        return SourceError(
            f"{repository}: the Hub has no such repository, owner or branch, or your token may not "
            f"see it; check the spelling of {owner}, or {LOG_IN}."
        )
    if status in (409, 412):
        return SourceError(
            f"{repository}: somebody else changed the repository meanwhile; {AGAIN}."
        )
    if status == 429:
        return SourceError(f"{repository}: the Hub asks to wait ({words}); {AGAIN}.")
    if isinstance(origin, ValueError) and "metadata" in str(origin):
        return SourceError(
            f"{repository}: the Hub refuses the model card ({_last(origin)}); give --license by a "
            "name of https://huggingface.co/docs/hub/repositories-licenses, or other."
        )
    if isinstance(origin, OfflineModeIsEnabled):
        return SourceError(f"{repository}: HF_HUB_OFFLINE forbids to send; unset it.")
    if status is not None and status < 500:
        return SourceError(f"{repository}: the Hub refused ({words}).")
    return SourceError(f"{repository}: the upload broke off ({words}); check the network; {AGAIN}.")


def _root(error: Exception) -> Exception:
    """What began it: the client wraps what goes wrong with a file into an error of its own."""
    while type(error) is RuntimeError and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _status(error: Exception) -> int | None:
    """The status of the answer that an error tells of."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _last(error: Exception) -> str:
    """The last line of what a library says: of a list of faults one."""
    return library_words(ValueError(str(error).strip().splitlines()[-1].lstrip("- ")))
