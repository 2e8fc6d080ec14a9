"""The ledger of one evaluation, without messages: each portion counts once, whatever happens in whatever order."""

import random
from collections import Counter

import pytest

from distbelief.algorithms.sandblaster.affinity import Pace, runs
from distbelief.algorithms.sandblaster.ledger import MOST_COPIES, Ledger


def even(replica: int, portions: int) -> float:
    return float(portions)


def ledger_of(*made: list[int], **settings) -> Ledger:
    return Ledger(made, settings.pop("shards", 1), **settings)


def test_a_replica_has_its_own_run_first_and_then_the_end_of_the_longest():
    ledger = ledger_of([0, 1], [2, 3, 4, 5], [6, 7])
    assert [ledger.assign(0, 0.0, even) for _ in range(4)] == [0, 1, 5, 4]
    # What a slow replica has left takes longest, however little it is.
    assert ledger.assign(0, 0.0, lambda replica, portions: portions * (10 if replica == 2 else 1)) == 7


def test_only_the_first_to_finish_a_portion_counts_it_and_the_others_drop_it():
    ledger = ledger_of([0], [1], [])
    assert [ledger.assign(r, 10.0 * r, even) for r in range(3)] == [0, 1, 1]  # the one that would be there last
    verdict = ledger.report(2, 1, 0.5, 25.0)
    assert verdict.accepted and verdict.losers == {1: 15.0}
    assert not ledger.report(1, 1, 0.75, 26.0).accepted
    assert (ledger.backups_issued, ledger.backups_won) == (1, 1)
    assert ledger.loss == 0.5


def test_without_backup_nobody_gets_what_another_is_at():
    ledger = ledger_of([0], [1], [], backup=False)
    assert [ledger.assign(r, 0.0, even) for r in range(3)] == [0, 1, None]


def test_copies_are_limited():
    ledger = ledger_of([0], *[[] for _ in range(6)])
    assert [ledger.assign(r, 0.0, even) for r in range(7)] == [0] * MOST_COPIES + [None] * (7 - MOST_COPIES)


def test_a_shipment_is_due_after_so_many_portions_and_at_the_end():
    ledger = ledger_of([0, 1, 2], [3, 4], ship_every=2, shipments=1, shards=2)
    for portion in (0, 1, 2):
        assert ledger.grant(0.0) is None
        ledger.assign(0, 0.0, even)
        ledger.report(0, portion, 1.0, 0.0)
        if portion == 1:
            number, shipment = ledger.grant(0.0)
            assert shipment.portions == [0, 1]
    ledger.assign(1, 0.0, even)
    ledger.assign(1, 0.0, even)
    ledger.report(1, 3, 1.0, 0.0)
    assert ledger.grant(0.0) is None  # one at a time
    assert ledger.held(number, 0) is None
    assert ledger.held(number, 1) is shipment
    # Nothing is left to hand out: replica 0 has nothing more to do, replica 1 has.
    assert ledger.grant(0.0)[1].portions == [2]
    assert ledger.counted == [2, 0]


def test_what_a_lost_replica_had_not_committed_is_done_again():
    ledger = ledger_of([0, 1, 2, 3], [], ship_every=1, shipments=4, shards=2)
    for portion in range(3):
        ledger.assign(0, 0.0, even)
        ledger.report(0, portion, 2.0**portion, 0.0)
        if portion < 2:
            number, _ = ledger.grant(0.0)
            if portion == 0:
                assert ledger.held(number, 0) is None and ledger.held(number, 1)
    ledger.assign(0, 0.0, even)
    taken = ledger.give_up(0, 1.0)  # 0 counts, 1 is in a shipment, 2 is accepted, 3 is at work
    assert (taken.shipments, sorted(taken.revoked), taken.at_work) == ([number], [1, 2], [3])
    assert ledger.held(number, 0) is None and ledger.held(number, 1) is None  # too late
    assert ledger.loss == 1.0
    assert [ledger.assign(1, 1.0, even) for _ in range(3)] == [1, 2, 3]
    # It was only slow: what it finishes before anybody else does counts.
    assert ledger.report(0, 3, 8.0, 2.0).losers == {1: None}
    assert ledger.loss == 9.0


@pytest.mark.parametrize("seed", range(300))
def test_in_any_order_of_events_each_portion_counts_exactly_once(seed):
    dice = random.Random(seed)
    replicas, shards, count = dice.randint(1, 5), dice.randint(1, 3), dice.randint(1, 25)
    shares = [dice.random() for _ in range(replicas)]
    ledger = ledger_of(
        *runs(range(count), shares, {}),
        shards=shards,
        backup=dice.random() < 0.7,
        ship_every=dice.randint(1, 4),
        shipments=dice.randint(1, 3),
    )
    at_work: list[tuple[int, int]] = []  # what replicas will report, wanted or not
    accepted: dict[int, list[int]] = {r: [] for r in range(replicas)}
    holding: list[tuple[int, int]] = []  # (shipment, shard) still to be told
    shipped: Counter = Counter()
    for moment in range(100_000):
        if ledger.complete:
            break
        replica = dice.randrange(replicas)
        event = dice.random()
        if event < 0.4:
            if len(ledger.working(replica)) < 2:
                portion = ledger.assign(replica, moment, even)
                if portion is not None:
                    at_work.append((replica, portion))
        elif event < 0.7 and at_work:
            replica, portion = at_work.pop(dice.randrange(len(at_work)))
            if ledger.report(replica, portion, 2.0**-portion, moment).accepted:
                accepted[replica].append(portion)
        elif event < 0.8:
            granted = ledger.grant(moment)
            if granted:
                number, shipment = granted
                assert shipment.portions == accepted[shipment.replica]
                accepted[shipment.replica] = []
                holding += [(number, shard) for shard in range(shards)]
        elif event < 0.97 and holding:
            shipment = ledger.held(*holding.pop(dice.randrange(len(holding))))
            if shipment:
                shipped.update(shipment.portions)
        elif event >= 0.985:
            ledger.give_up(replica, moment)
            accepted[replica] = []
    assert ledger.complete
    assert shipped == Counter(range(count))
    assert ledger.loss == sum(2.0**-portion for portion in range(count))
    assert sum(ledger.counted) == count
    assert not ledger.shipments and not any(ledger.working(r) for r in range(replicas)) and not ledger.unassigned


def test_runs_follow_speed_and_keep_what_a_replica_had():
    assert runs(range(10), [1, 1], {}) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert runs(range(10), [3, 1, 1], {}) == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]
    assert runs(range(10), [1, 0, 1], {}) == [[0, 1, 2, 3, 4], [], [5, 6, 7, 8, 9]]
    swapped = {portion: 0 if portion >= 5 else 1 for portion in range(10)}
    assert runs(range(10), [1, 1], swapped) == [[5, 6, 7, 8, 9], [0, 1, 2, 3, 4]]
    # Replica 0 has become slower: it keeps two of its own, the others go over.
    assert runs(range(10), [1, 4], swapped) == [[5, 6], [0, 1, 2, 3, 4, 7, 8, 9]]


def test_pace_is_learnt_from_what_was_finished_and_from_what_was_not():
    pace = Pace(3)
    assert pace.shares() == [1.0, 1.0, 1.0]
    pace.learn(0, 100, 1.0)
    pace.learn(1, 100, 10.0)
    assert pace.shares() == [100.0, 10.0, 55.0]
    assert pace.seconds(2, 10) == 1.0  # unknown: as slow as any
    pace.limit(0, 100, 4.0)
    assert pace.shares()[0] == 25.0
    pace.limit(0, 100, 0.5)
    pace.learn(0, 100, 1.0)
    assert pace.shares()[0] == 62.5
