"""Gradients whose memory goes back to the system once they have been sent."""

import mmap

import msgspec
import numpy as np
import pytest

from distbelief.algorithms import returned
from distbelief.algorithms.returned import Leaving, ReturnedArena
from distbelief.algorithms.settings import Downpour
from distbelief.nn.arena import Layout

PAGE = mmap.PAGESIZE // 4  # elements


class Request:
    def __init__(self):
        self.complete = False

    def done(self):
        return self.complete


class Endpoint:
    def __init__(self):
        self.waited = []

    def wait_all(self, requests, timeout, what):
        self.waited += [request for request in requests if not request.complete]
        for request in requests:
            request.complete = True


def an_arena(pages: int) -> ReturnedArena:
    arena = ReturnedArena(Layout({"w": (pages, PAGE)}), np.float32)
    arena.flat[:] = 1
    return arena


def test_whole_pages_are_given_back_and_the_rest_is_kept():
    arena = an_arena(8)
    arena.give_back(10, 4 * PAGE + 10)  # pages 1 to 3
    assert arena.flat[:PAGE].all() and arena.flat[4 * PAGE :].all()
    assert not arena.flat[PAGE : 4 * PAGE].any()
    arena.give_back(10, PAGE - 10)  # not one whole page
    assert arena.flat[:PAGE].all()
    arena["w"][2] = 3
    assert arena.flat[2 * PAGE] == 3


def resident() -> int:
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * mmap.PAGESIZE


def test_what_is_given_back_takes_no_memory():
    pages = 8192
    before = resident()
    arena = an_arena(pages)
    full = resident()
    arena.give_back(0, pages * PAGE)
    assert full - before > 0.9 * pages * mmap.PAGESIZE
    assert resident() - before < 0.1 * pages * mmap.PAGESIZE


def test_pieces_are_given_back_as_they_leave(monkeypatch):
    monkeypatch.setattr(returned, "MOST", 4 * mmap.PAGESIZE)
    arena, endpoint = an_arena(8), Endpoint()
    leaving, requests = Leaving(endpoint, 1.0), [Request() for _ in range(7)]
    for page in range(4):
        leaving.add(requests[page], arena, page * PAGE, (page + 1) * PAGE)
    assert arena.flat.all() and not endpoint.waited  # four pages may be on their way
    requests[0].complete = requests[1].complete = True
    leaving.add(requests[4], arena, 4 * PAGE, 5 * PAGE)
    assert not arena.flat[: 2 * PAGE].any() and arena.flat[2 * PAGE :].all() and not endpoint.waited
    leaving.add(requests[5], arena, 5 * PAGE, 6 * PAGE)
    leaving.add(requests[6], arena, 6 * PAGE, 7 * PAGE)
    assert endpoint.waited == [requests[2]]  # the oldest, as five are too many
    assert not arena.flat[: 3 * PAGE].any() and arena.flat[3 * PAGE :].all()


@pytest.mark.parametrize("settings", [{}, {"local_rate": 0, "n_push": 2}, {"n_push": 1, "local_rate": 0.1}])
def test_a_gradient_that_is_needed_longer_cannot_be_given_back(settings):
    with pytest.raises(msgspec.ValidationError, match="`n_push` = 1 and `local_rate` = 0 with `lean`"):
        msgspec.convert({"lean": True, **settings}, Downpour)
    assert msgspec.convert({"lean": True, "n_push": 1, "local_rate": 0}, Downpour).lean
