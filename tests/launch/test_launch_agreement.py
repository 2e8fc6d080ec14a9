"""Agreement, in the simulator: either all ranks begin, or all end and rank 0 says why."""

import pytest

from distbelief.comm.sim import Cluster
from distbelief.errors import UserError
from distbelief.launch.agreement import Elsewhere, agree, expect_same

RANKS = 5


def agree_on(wrong: dict[int, str], speeds: dict[int, float] | None = None) -> list:
    """What each rank of a cluster gets from `agree` if those in `wrong` find these errors: a result or an error."""

    def program(endpoint):
        def prepare() -> str:
            endpoint.charge(flops=1e9)
            if endpoint.rank in wrong:
                raise UserError(wrong[endpoint.rank])
            return f"ready {endpoint.rank}"

        try:
            return agree(endpoint, prepare)
        except UserError as error:
            return error

    return Cluster(RANKS, jitter=0.5, speeds=speeds).run(program)


@pytest.mark.parametrize("slow", range(RANKS))
def test_all_is_well(slow):
    assert agree_on({}, {slow: 0.01}) == [f"ready {rank}" for rank in range(RANKS)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({0: "no file"}, "no file"),
        ({3: "no file"}, "rank 3: no file"),
        ({4: "no disk", 2: "no file"}, "rank 2: no file"),
        ({rank: "no file" for rank in range(RANKS)}, "no file"),
        ({1: "no file: /a/Größe/数据"}, "rank 1: no file: /a/Größe/数据"),
    ],
    ids=["rank 0", "another", "two", "all", "not ASCII"],
)
@pytest.mark.parametrize("slow", [0, 3])
def test_rank_0_says_what_is_wrong(wrong, said, slow):
    first, *others = agree_on(wrong, {slow: 0.01})
    assert type(first) is UserError and str(first) == said
    assert [type(other) for other in others] == [Elsewhere] * (RANKS - 1)


@pytest.mark.parametrize("letter", ["x", "ß", "数"])
def test_long_words_from_another_rank_are_cut(letter):
    words = "begin " + letter * 5000
    assert str(agree_on({0: words})[0]) == words
    said = str(agree_on({2: words})[0])
    assert f"begin {letter * 100}" in said and len(said) < 1100
    assert words.startswith(said.removeprefix("rank 2: ").rstrip("\N{REPLACEMENT CHARACTER}.…"))


def test_what_is_not_the_users_fault_is_not_agreed_on():
    def program(endpoint):
        agree(endpoint, lambda: 1 // endpoint.rank)

    with pytest.raises(ZeroDivisionError):
        Cluster(2).run(program)


@pytest.mark.parametrize("odd", [None, 0, 2, RANKS - 1])
def test_what_must_be_the_same_everywhere(odd):
    def program(endpoint):
        try:
            expect_same(endpoint, f"{'others' if endpoint.rank == odd else 'model'} of 3 tensors")
        except UserError as error:
            return error

    first, *others = Cluster(RANKS, jitter=0.5).run(program)
    if odd is None:
        assert [first, *others] == [None] * RANKS
        return
    said = "rank 1: model" if odd == 0 else f"rank {odd}: others"
    assert type(first) is UserError and str(first) == f"{said} of 3 tensors, expected the same as on rank 0"
    assert [type(other) for other in others] == [Elsewhere] * (RANKS - 1)
