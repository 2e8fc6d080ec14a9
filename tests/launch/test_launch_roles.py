from types import SimpleNamespace

import pytest

from distbelief.algorithms.roles import Roles
from distbelief.errors import UserError
from distbelief.launch.roles import assign, expect_parameters
from distbelief.nn import Layout
from distbelief.server import Server


@pytest.mark.parametrize(
    ("ranks", "shards", "replicas"),
    [(2, 1, [1]), (4, 1, [1, 2, 3]), (4, 3, [3]), (8, 2, [2, 3, 4, 5, 6, 7])],
)
def test_shards_come_first_and_replicas_are_the_rest(ranks, shards, replicas):
    roles = assign(ranks, shards)
    assert roles.coordinator == 0
    assert roles.shards == list(range(shards))
    assert roles.replicas == replicas


def test_one_rank_is_enough_for_serial_training():
    assert assign(1, 1).replicas == []


@pytest.mark.parametrize(
    ("place", "coordinator", "shards", "replicas"),
    [
        ("apart", "beside", [0, 1], [2, 3, 4, 5]),
        ("apart", "apart", [1, 2], [3, 4, 5]),
        ("beside", "beside", [0, 1], [0, 1, 2, 3, 4, 5]),
        ("beside", "apart", [1, 2], [1, 2, 3, 4, 5]),
    ],
)
def test_places(place, coordinator, shards, replicas):
    assert assign(6, 2, place, coordinator) == Roles(0, shards, replicas)


@pytest.mark.parametrize(
    ("ranks", "shards", "place", "coordinator"),
    [(3, 2, "apart", "apart"), (2, 1, "apart", "apart"), (3, 4, "beside", "beside"), (3, 3, "beside", "apart")],
)
def test_places_need_ranks(ranks, shards, place, coordinator):
    with pytest.raises(UserError, match=f"^server.shards: {shards}.* {ranks} ranks.*expected"):
        assign(ranks, shards, place, coordinator)
    if shards > 1:
        assign(ranks, shards - 1, place, coordinator)


@pytest.mark.parametrize(("ranks", "shards"), [(1, 2), (2, 2), (2, 3), (4, 4), (4, 400)])
def test_somebody_must_be_left_to_train(ranks, shards):
    with pytest.raises(UserError, match=f"^server.shards: {shards}.* {ranks} ranks.*") as caught:
        assign(ranks, shards)
    assert "expected" in str(caught.value)


def test_replicas_of_several_ranks():
    roles = assign(8, 2, partitions=3)
    assert roles.shards == [0, 1] and roles.cut == [[2, 3, 4], [5, 6, 7]] and roles.replicas == [2, 5]
    assert roles.partitions == 3 and roles.ranks == roles.cut
    assert roles.place(6) == (1, 1) and roles.place(0) is None
    beside = assign(6, 2, "beside", partitions=3)
    assert beside.shards == [0, 1] and beside.cut == [[0, 1, 2], [3, 4, 5]]
    apart = assign(8, 1, "apart", "apart", partitions=2)
    assert (apart.coordinator, apart.shards, apart.cut) == (0, [1], [[2, 3], [4, 5], [6, 7]])


@pytest.mark.parametrize(
    "nodes", [[0, 0, 0, 0, 1, 1, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 2, 2, 2, 2], [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]]
)
def test_the_ranks_of_a_replica_are_on_one_node(nodes):
    """What makes no whole replica on its node is a shard."""
    roles = assign(10, 4, partitions=2, nodes=nodes)
    assert all(len({nodes[rank] for rank in ranks}) == 1 for ranks in roles.cut)
    assert len(roles.shards) == 4 and roles.shards[0] == 0
    everyone = [*roles.shards, *(rank for ranks in roles.cut for rank in ranks)]
    assert sorted(everyone) == list(range(10))


def test_a_replica_that_no_node_can_hold_goes_over_several():
    roles = assign(9, 1, partitions=4, nodes=[0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert sorted(rank for ranks in roles.cut for rank in ranks) == list(range(1, 9))
    beside = assign(8, 2, "beside", partitions=4, nodes=[0, 0, 0, 0, 0, 0, 1, 1])
    assert beside.shards == [0, 1] and sorted(map(len, beside.cut)) == [4, 4]


@pytest.mark.parametrize(("ranks", "place"), [(4, "apart"), (5, "beside"), (2, "apart")])
def test_ranks_that_make_no_whole_replica_are_refused(ranks, place):
    with pytest.raises(UserError, match=f"^network.partitions: {ranks} ranks leave .* expected a multiple of 2"):
        assign(ranks, 1, place, partitions=2)


def test_more_shards_than_parameters():
    job = SimpleNamespace(problem=SimpleNamespace(model=lambda: SimpleNamespace(layout=Layout({"w": (3,)}))))
    expect_parameters(Server(shards=3), job)
    with pytest.raises(UserError, match=r"^server\.shards: 4 shards for 3 parameters, expected fewer$"):
        expect_parameters(Server(shards=4), job)
