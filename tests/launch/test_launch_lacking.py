"""What ranks of unlike processors lack, in the simulator: rank 0 alone hears of it, and of which ranks."""

import pytest

from distbelief.comm.sim import Cluster
from distbelief.launch.lacking import lacking, told

NEITHER, NO_MKL = "bfloat16: this CPU has neither", "bfloat16: MKL is not installed"


def heard(*words):
    """What `lacking` returns on each rank of a cluster whose ranks have these words to say."""
    return Cluster(len(words), jitter=0.5).run(lambda endpoint: lacking(endpoint, words[endpoint.rank]))


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ([None] * 3, []),
        ([NEITHER] * 3, [NEITHER]),
        ([None, NEITHER, None], [f"rank 1: {NEITHER}"]),
        ([NEITHER, None, NEITHER], [f"ranks 0, 2: {NEITHER}"]),
        ([None, NEITHER, NEITHER, NEITHER], [f"ranks 1 to 3: {NEITHER}"]),
        ([NO_MKL, NEITHER, NO_MKL], [f"ranks 0, 2: {NO_MKL}", f"rank 1: {NEITHER}"]),
        ([NEITHER], [NEITHER]),
        ([None], []),
    ],
)
def test_rank_0_hears_once_which_ranks_lack_what(words, lines):
    first, *others = heard(*words)
    assert first == lines
    assert others == [[]] * (len(words) - 1)


def test_a_process_alone_says_what_it_lacks():
    assert lacking(None, NEITHER) == [NEITHER] and lacking(None, None) == []


def test_many_ranks_are_named_in_few_words():
    said = [NEITHER if rank % 100 < 98 else "" for rank in range(300)]
    assert told(said) == [f"ranks 0 to 97, 100 to 197, 200 to 297: {NEITHER}"]
