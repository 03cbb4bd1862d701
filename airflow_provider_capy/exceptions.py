"""Every error this provider raises, in one tree, so that callers can catch by meaning.

::

    CapyError
    ├── CapyInputError                 an argument or a connection that is sure to be refused (also a ValueError)
    ├── CapyStoreError                 Airflow's task state store cannot be read or written
    ├── CapyEventError                 the triggerer handed back what is not the event of this wait
    ├── CapyRequestError               a request to Capy that brought no usable answer
    │   ├── CapyConnectError           it never reached Capy: surely not processed
    │   │   ├── CapyCertificateError   the certificate that was shown cannot be verified
    │   │   └── CapyLookUpError        Airflow gave no connection to reach Capy with
    │   ├── CapyNoAnswerError          it may have been processed: timeout, reset, broken off
    │   ├── CapyResponseError          an answer that cannot be read, or is not Capy's: a proxy, a redirect, no JSON
    │   └── CapyAPIError               Capy's own answer that says no (429 and 5xx: whoever sent it)
    │       ├── CapyUnauthorizedError  401
    │       ├── CapyForbiddenError     403
    │       ├── CapyNotFoundError      404
    │       ├── CapyConflictError      409
    │       ├── CapyValidationError    422
    │       ├── CapyRateLimitError     429
    │       └── CapyServerError        5xx
    └── CapyThreadError                a thread that did not end as the task wants it
        ├── CapyCreateUnknownError     the create was sent, its answer was lost: a thread may exist
        ├── CapyReferenceError         a lookup by reference that found what cannot be ours, or too much
        ├── CapyThreadBlockedError     a person must act
        ├── CapyThreadArchivedError    archived, which is not success
        ├── CapyThreadTaskError        ready, but one of its tasks failed
        ├── CapyThreadTimeoutError     not settled before the deadline
        ├── CapyThreadStoppedError     stopped on our own request
        ├── CapyPollError              nobody could see it for longer than is tolerated
        └── CapyStopUnconfirmedError   not surely at rest, although it has to be
"""

from __future__ import annotations

from typing import Any, TypeVar

from airflow_provider_capy.foreign_text import clean_text

# Airflow stores the tracebacks of failed triggers in its database.
LONGEST_MESSAGE = 4000


class CapyError(Exception):
    """Base of every error of this provider.

    Args:
        message: what happened; it may quote anybody, so what a database refuses is taken out of it, and it is cut
            after :data:`LONGEST_MESSAGE` characters.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(clean_text(message, LONGEST_MESSAGE))


E = TypeVar("E", bound=BaseException)


def with_words(error: E, words: str) -> E:
    """Give an error other words after it was made, within the bounds of a new one's, and return it.

    Args:
        error: the error; its attributes stay as they are.
        words: what it is to say instead, e.g. its own words and more.
    """
    error.args = (clean_text(words, LONGEST_MESSAGE),)
    return error


class CapyInputError(CapyError, ValueError):
    """An argument or a connection field that is sure to be refused; names the field, the value and the fix."""


class CapyStoreError(CapyError):
    """Airflow's task state store cannot be read or written, so nobody knows what earlier tries left."""


class CapyEventError(CapyError):
    """The triggerer handed back what is not the event of this wait, so nothing is known about the thread."""


class CapyRequestError(CapyError):
    """A request that brought no usable answer.

    Attributes:
        method: HTTP method, e.g. ``"GET"``.
        path: path below the base URL, e.g. ``"/v1/threads/jam_1"``; never carries the token or the prompt.
    """

    def __init__(self, message: str, *, method: str = "", path: str = "") -> None:
        super().__init__(message)
        self.method = method
        self.path = path


class CapyConnectError(CapyRequestError):
    """The request never reached Capy, so nothing was processed."""


class CapyCertificateError(CapyConnectError):
    """The certificate that the other side showed cannot be verified: nothing was sent; asking again at once is no help."""


class CapyLookUpError(CapyConnectError):
    """The connection could not be looked up: it is not there, access was denied, or whatever keeps it is away."""


class CapyNoAnswerError(CapyRequestError):
    """The request was sent and no complete answer came: it may have been processed."""


class CapyResponseError(CapyRequestError):
    """An answer came and cannot be read, or is not Capy's: of a proxy, a redirect, not JSON, the wrong shape, too large.

    Attributes:
        status_code: HTTP status of that answer.
    """

    def __init__(self, message: str, *, method: str = "", path: str = "", status_code: int = 0) -> None:
        super().__init__(message, method=method, path=path)
        self.status_code = status_code


class CapyAPIError(CapyRequestError):
    """Capy answered with an error.

    A 4xx, but 429, is raised as this only with Capy's own error body; a 429 or 5xx may be a proxy's.

    Attributes:
        status_code: HTTP status, e.g. ``422``.
        code: Capy's own code, e.g. ``"validation_error"``; empty when the body was not Capy's.
        details: Capy's ``details``, any JSON value within bounds, or ``None``; ``None`` as well when they repeat what was
            sent.
        retry_after: seconds that the answer asked to wait, a day at the most, or ``None``.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str = "",
        path: str = "",
        status_code: int = 0,
        code: str = "",
        details: Any = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, method=method, path=path)
        self.status_code = status_code
        self.code = code
        self.details = details
        self.retry_after = retry_after


class CapyUnauthorizedError(CapyAPIError):
    """401: the token is missing, wrong or revoked."""


class CapyForbiddenError(CapyAPIError):
    """403: the token is good, but not for this."""


class CapyNotFoundError(CapyAPIError):
    """404: no such thread or project, or it belongs to somebody else."""


class CapyConflictError(CapyAPIError):
    """409: the thread's state does not allow this, e.g. stopping one that is not running."""


class CapyValidationError(CapyAPIError):
    """422: Capy refused the request; ``details`` says why."""


class CapyRateLimitError(CapyAPIError):
    """429: too many requests, whoever said it; surely not processed."""


class CapyServerError(CapyAPIError):
    """5xx: Capy or something before it failed; a write may have been processed."""


class CapyThreadError(CapyError):
    """A thread that did not end as the task wants it.

    Attributes:
        thread_id: the thread's id; empty when it is not known.
        thread_url: its web address; empty when it is not known.
    """

    def __init__(self, message: str, *, thread_id: str = "", thread_url: str = "") -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.thread_url = thread_url


class CapyCreateUnknownError(CapyThreadError):
    """The create was sent and its answer was lost: a thread may exist."""


class CapyReferenceError(CapyThreadError):
    """The lookup by reference found a thread that cannot be ours, or several."""


class CapyThreadBlockedError(CapyThreadError):
    """The thread waits for a person (``blockedOn``: authorisation or permission)."""


class CapyThreadArchivedError(CapyThreadError):
    """The thread was archived, by a person or by a failure of the platform: not a success."""


class CapyThreadTaskError(CapyThreadError):
    """The thread is ready, but at least one of its tasks has status ``error``."""


class CapyThreadTimeoutError(CapyThreadError):
    """The thread had not settled when the deadline passed."""


class CapyThreadStoppedError(CapyThreadError):
    """The thread was stopped on our own request, so its ``ready`` is not a success."""


class CapyPollError(CapyThreadError):
    """Nobody could see the thread for longer than ``tolerate_outage``; nothing is known about it since the last good look."""


class CapyStopUnconfirmedError(CapyThreadError):
    """A thread is not surely at rest although it has to be: still at work when the time was over, or not to be asked."""


_BY_STATUS: dict[int, type[CapyAPIError]] = {
    401: CapyUnauthorizedError,
    403: CapyForbiddenError,
    404: CapyNotFoundError,
    409: CapyConflictError,
    422: CapyValidationError,
    429: CapyRateLimitError,
}


def api_error_class(status_code: int) -> type[CapyAPIError]:
    """Return the class for an HTTP status; a status without one of its own gives :class:`CapyAPIError`."""
    if status_code >= 500:
        return CapyServerError
    return _BY_STATUS.get(status_code, CapyAPIError)
