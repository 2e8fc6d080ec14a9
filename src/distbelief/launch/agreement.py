"""Agreement at the start and at the end: either every rank goes on, or every rank ends, and one says why."""

import zlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint
from distbelief.errors import UserError

_TAG, _FIRST, _WORDS = 20, 21, 24
_LENGTH = 1000  # bytes of a message; longer ones are cut
_TIMEOUT = 600.0  # a cold file system may take its time

Result = TypeVar("Result")


class Elsewhere(UserError):
    """Another rank has said what is wrong."""


def agree(endpoint: Endpoint, prepare: Callable[[], Result], timeout: float = _TIMEOUT) -> Result:
    """Call `prepare` on every rank and return what it returns here. Collective over the endpoint.

    If it raises UserError on any rank, every rank raises: rank 0 the error of the lowest such rank, the others
    Elsewhere. `timeout`: seconds that ranks may be apart in this, before DeadlineExpired.
    """
    result, mistake, text = None, None, ""
    try:
        result = prepare()
    except UserError as error:
        mistake, text = error, str(error) or repr(error)
    mine = _message(text)
    verdict = np.zeros(1, np.int64)
    if endpoint.rank == 0:
        said = _collect(endpoint, mine, _TAG, timeout)
        wrong = [rank for rank, words in enumerate(said) if words]
        verdict[0] = bool(wrong)
        telling = [endpoint.send(verdict, rank, _TAG) for rank in range(1, endpoint.size)]
        endpoint.wait_all(telling, timeout, "all ranks to hear whether the job goes on")
        if wrong:
            raise mistake or UserError(f"rank {wrong[0]}: {said[wrong[0]]}")
    else:
        endpoint.wait_all([endpoint.send(mine, 0, _TAG)], timeout, "rank 0 to hear that this rank is ready")
        endpoint.wait_all([endpoint.receive(verdict, 0, _TAG)], timeout, "rank 0 to say whether the job goes on")
        if verdict[0]:
            raise Elsewhere(text)
    return result


def expect_same(endpoint: Endpoint, what: str) -> None:
    """Make sure that `what` says the same on every rank. Collective over the endpoint.

    If it does not, every rank raises as in `agree`, and rank 0's error shows what another rank says.
    """
    mine = np.array([zlib.crc32(what.encode())], np.int64)
    first = mine.copy()
    if endpoint.rank == 0:
        telling = [endpoint.send(mine, rank, _FIRST) for rank in range(1, endpoint.size)]
        endpoint.wait_all(telling, _TIMEOUT, "all ranks to hear what rank 0 has")
    else:
        endpoint.wait_all([endpoint.receive(first, 0, _FIRST)], _TIMEOUT, "rank 0 to say what it has")

    def compare() -> None:
        if mine[0] != first[0]:
            raise UserError(f"{what}, expected the same as on rank 0")

    agree(endpoint, compare)


def gather(endpoint: Endpoint, words: str) -> list[str] | None:
    """What every rank says, on rank 0; None on the others. Collective over the endpoint."""
    if endpoint.rank == 0:
        return _collect(endpoint, _message(words), _WORDS, _TIMEOUT)
    endpoint.wait_all([endpoint.send(_message(words), 0, _WORDS)], _TIMEOUT, "rank 0 to hear what this rank says")
    return None


def _message(text: str) -> np.ndarray:
    message = np.zeros(_LENGTH, np.uint8)
    message[: min(len(text.encode()), _LENGTH)] = np.frombuffer(text.encode()[:_LENGTH], np.uint8)
    return message


def _collect(endpoint: Endpoint, mine: np.ndarray, tag: int, timeout: float) -> list[str]:
    words = np.zeros((endpoint.size, _LENGTH), np.uint8)
    words[0] = mine
    hearing = [endpoint.receive(words[rank], rank, tag) for rank in range(1, endpoint.size)]
    try:
        endpoint.wait_all(hearing, timeout, "all ranks to be ready")
    except DeadlineExpired as error:
        late = [rank for rank, request in enumerate(hearing, start=1) if not request.done()]
        raise DeadlineExpired(f"{error}; not heard of: ranks {late}") from None
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in words]
