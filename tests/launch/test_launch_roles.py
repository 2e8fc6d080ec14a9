import pytest

from distbelief.algorithms.roles import Roles
from distbelief.errors import UserError
from distbelief.launch.roles import assign


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
