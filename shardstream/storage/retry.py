"""One request to storage, tried until it succeeds, cannot succeed, or runs out of time.

What may pass (resets, timeouts, 429, 5xx) is tried again after a wait drawn uniformly from
zero to twice the mean, the mean doubling each time: full jitter keeps many clients that failed
together from coming back together (M. Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015).
"""

from __future__ import annotations

import errno
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from shardstream.config import RetryPolicy
from shardstream.errors import ShardstreamError, StorageError, StorageRefused, scrubbed

logger = logging.getLogger("shardstream")

T = TypeVar("T")
MAX_WRONG = 6  # replies whose bytes are wrong before they are taken to be so in the store
TELL_AFTER_S, TELL_AGAIN_S = 5.0, 60.0
SLOWEST_NBYTES_PER_S = 10**6  # an upload slower than this is taken to hang
DEFAULT_RETRY = RetryPolicy()
PASSING_STATUS = {408, 409, 425, 429}  # the 4xx that may pass: request timeout, conflict, too early, too many
ABSENT_STATUS = {404, 410}
LASTING_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
LASTING = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError,
           NotImplementedError, ImportError, TypeError, ValueError, KeyError, AttributeError)  # fmt: skip
LASTING_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound",
                 "InvalidRegionError", "NoRegionError"}  # fmt: skip  (botocore's; not imported to look)
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
UNREACHABLE = {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyConnectionError", "FSTimeoutError",
               "ClientConnectorError", "ConnectError", "ConnectTimeout"}  # fmt: skip
REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"}


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those it was raised from or during; at most 16, so that a cycle ends."""
    seen: BaseException | None = error
    for _ in range(16):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status behind a client library's error, ``None`` when there was no reply."""
    for link in chain(error):
        if type(link).__module__ == "aiohttp.http_exceptions":
            continue  # a body cut off bears "code = 400" there, which no server said
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = next((value for name in ("status", "status_code", "code")
                           if isinstance(value := getattr(link, name, None), int)), None)  # fmt: skip
        if isinstance(status, int) and 100 <= status <= 599:
            return status
    return None


def code_of(error: BaseException) -> str | None:
    """Return the S3 error code behind an error, such as ``"NoSuchKey"``."""
    for link in chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code"))
    return None


def may_pass(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    status = status_of(error)
    if status is not None:
        return status >= 500 and status != 501 or status in PASSING_STATUS
    if isinstance(error, ShardstreamError) or any(type(link).__name__ in LASTING_NAMES for link in chain(error)):
        return False
    if isinstance(error, OSError) and error.errno in LASTING_ERRNO:
        return False
    return not isinstance(error, LASTING)


def unmasked(error: Exception) -> Exception:
    """Return the lost connection or the server's refusal that a client calls a missing file, as fsspec's for HTTP does; else the error."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception) or isinstance(cause, FileNotFoundError):
        return error
    status = status_of(cause)
    if status is not None:
        return error if status in ABSENT_STATUS else cause
    is_of_connection = isinstance(cause, OSError) and cause.errno is not None or isinstance(cause, (TimeoutError, ConnectionError))
    return cause if is_of_connection or type(cause).__module__.startswith("aiohttp.") else error


def explained(error: BaseException, what: str) -> StorageError:
    """Return the error to raise when ``what`` failed for good, saying what to do where that is known."""
    code, status = code_of(error), status_of(error)
    names = {type(link).__name__ for link in chain(error)}
    if code in EXPIRED:
        advice = "the credentials have expired: renew them and start again."
    elif code in REFUSED:
        advice = "the server refused the credentials: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the clock."
    elif names & {"NoCredentialsError", "PartialCredentialsError"} or "NoCredentialsError" in str(error):
        advice = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or storage_options."
    elif status == 403 or isinstance(error, PermissionError):
        advice = "permission denied; S3 also says so for a missing object where s3:ListBucket is not granted: grant it, too."
    elif isinstance(error, FileNotFoundError):
        advice = "the bucket or folder does not exist."
    elif isinstance(error, ImportError):
        advice = str(error)
    else:
        advice = f"{code or type(error).__name__}: {scrubbed(str(error)) or 'no answer in time'}"
        if status is None and (isinstance(error, (TimeoutError, ConnectionError)) or names & UNREACHABLE):
            advice += "; check the endpoint (AWS_ENDPOINT_URL, storage_options), its name, proxies and the network."
        elif isinstance(error, TypeError):
            advice += "; check the names in storage_options."
    kind = StorageError if may_pass(error) else StorageRefused
    return kind(f"{what} failed: {advice}")


def attempt(policy: RetryPolicy, what: str, operation: Callable[[float], T], *, nbytes: int = 0,
            passing: tuple | type[ShardstreamError] = ()) -> T:  # fmt: skip
    """Return ``operation(timeout_s)``, tried by ``policy``; ``what`` names it in errors.

    ``nbytes`` to send lengthen the deadline. Errors of ours that the operation raises are passed on at
    once, but those of class ``passing`` only when they came ``MAX_WRONG`` times or by the last try. A server that has not
    answered for ``TELL_AFTER_S`` is told of in the log, once an outage.

    Raises:
        FileNotFoundError: the object is absent (never retried).
        ShardstreamError: raised by the operation itself.
        StorageError: everything else, from the last try's error.
    """
    began = time.monotonic()
    end = began + policy.deadline_s + nbytes / SLOWEST_NBYTES_PER_S
    tried = num_wrong = 0
    while True:
        tried += 1
        wait_s = backoff_s(policy, tried)
        try:
            return operation(max(end - time.monotonic(), 0.001))
        except Exception as raised:
            error = unmasked(raised)
            if isinstance(error, FileNotFoundError):
                if isinstance(error, ShardstreamError):
                    raise
                raise FileNotFoundError(f"{what} failed: it is absent.") from shown(error)
            ours = isinstance(error, ShardstreamError)
            num_wrong += ours
            lasts = not isinstance(error, passing) or num_wrong == MAX_WRONG if ours else not may_pass(error)
            if lasts or tried >= policy.max_attempts or time.monotonic() + wait_s >= end:
                if ours:
                    raise
                raise explained(error, what) from shown(error)
            if time.monotonic() - began > TELL_AFTER_S:
                _tell(what, error, end - time.monotonic())
        time.sleep(wait_s)


_told = -math.inf  # when an outage was last told of


def _tell(what: str, error: BaseException, left_s: float) -> None:
    """Log that a request fails and is repeated; of many that fail together, one is enough."""
    global _told
    now = time.monotonic()
    if now - _told > TELL_AGAIN_S:
        _told = now
        logger.warning("%s fails (%s); it is tried again for up to %.0f s.", what, scrubbed(str(error)) or type(error).__name__, left_s)


def backoff_s(policy: RetryPolicy, tried: int) -> float:
    """Return how long to wait after ``tried`` failures, in seconds, with full jitter."""
    mean = policy.first_delay_s * 2.0 ** min(tried - 1, 60)
    return min(random.uniform(0.0, 2.0 * mean), policy.max_delay_s)


def shown(error: BaseException) -> BaseException:
    """Return the cause to show for an error: itself, or its scrubbed text if a traceback would show more."""
    if all(scrubbed(text) == text for link in chain(error) for text in (str(link), repr(link))):
        return error
    return OSError(f"{type(error).__name__}: {scrubbed(str(error))}")
