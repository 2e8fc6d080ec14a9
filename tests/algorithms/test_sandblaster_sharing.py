"""How Sandblaster shares the work in virtual time: traffic, stragglers, affinity."""

import io

import pytest
from algorithms.sandblaster_cluster import Table, run

from distbelief.algorithms.sandblaster.settings import Sharing

FLOPS = 1e8
EXAMPLES, WIDTH = 4000, 40
WORK = EXAMPLES * 3000 / FLOPS
"""Seconds of one evaluation on one replica of full speed: LeastSquares takes 1000 operations for a score."""


@pytest.fixture(scope="module")
def table() -> Table:
    return Table(EXAMPLES, WIDTH, 10)


def traffic(log: io.StringIO, rank: int) -> tuple[int, int]:
    """Bytes that `rank` sent and received by messages, and those that it read one-sided."""
    sent = read = 0
    for line in log.getvalue().splitlines():
        _, who, kind, peer, _, nbytes, _ = line.split()
        if kind == "send" and str(rank) in (who, peer):
            sent += int(nbytes)
        if kind in ("get", "got") and who == str(rank):
            read += int(nbytes)
    return sent, read


def test_no_vector_passes_through_the_coordinator():
    """Its bytes depend on portions, shards and shipments, and not at all on the number of parameters."""
    seen = []
    for width in (50, 5000):
        log = io.StringIO()
        sharing = Sharing(portion=20, ship_every=3)
        # Networks so fast that the size of a message changes nobody's turn.
        fast = dict(latency=1e-9, bandwidth=1e15, memory_bandwidth=1e15)
        run(shards=2, replicas=3, sharing=sharing, table=Table(240, width, 10), apart=True, log=log, flops=1e6, **fast)
        seen.append(traffic(log, rank=5))
        everybody = sum(traffic(log, rank)[0] for rank in range(6)) / 2
        assert seen[-1][0] < 120 * 24 * 4 * 3  # some words for each portion, evaluation and message
    assert seen[0] == seen[1]
    assert seen[1][1] == 0
    assert everybody > 8 * 5000 * 3 * 3  # the gradients went from replicas to shards


def test_replicas_fetch_once_for_each_point_and_ship_every_few_portions(table):
    sharing = Sharing(portion=40, ship_every=5, backup=False)
    done = run(shards=2, replicas=4, sharing=sharing, table=table, flops=FLOPS, evaluations=3)
    vector = 8 * WIDTH
    assert [accounts.bytes_fetched for accounts in done.accounts] == [4 * vector * (i + 1) for i in range(3)]
    # 100 portions: 25 for each replica, as they are as fast as each other.
    assert [accounts.shipments for accounts in done.accounts] == [20] * 3


def test_a_straggler_costs_little_with_backups_and_small_portions(table):
    """One of four replicas ten times slower; the ideal: the work divided by the speed of all together, 3.1."""
    ideal = WORK / 3.1
    settings = dict(shards=1, replicas=4, table=table, flops=FLOPS, speeds={4: 0.1}, jitter=0.1, evaluations=4)
    done = run(sharing=Sharing(portion=40), **settings)
    assert max(done.seconds) < 1.15 * ideal
    assert sum(accounts.backups_issued for accounts in done.accounts) > 4
    # A part for each replica, as large as the others', and no backups.
    without = run(sharing=Sharing(portion=EXAMPLES // 4, ship_every=1, backup=False), **settings)
    assert min(without.seconds) > 6 * ideal


def test_with_equals_nobody_waits_for_long(table):
    done = run(shards=1, replicas=4, sharing=Sharing(portion=40), table=table, flops=FLOPS, jitter=0.1, evaluations=4)
    assert max(done.seconds) < 1.06 * WORK / 4
    assert sum(accounts.seconds_idle for accounts in done.accounts) < 0.02 * 4 * sum(done.seconds)


def test_replicas_have_the_same_portions_again_and_as_many_as_they_are_fast():
    """What each replica reads: the first evaluation finds out who is fast, later ones keep to it."""
    table = Read(600, 10, 10)
    speeds = {2: 0.5, 3: 0.25}
    cluster = dict(shards=1, replicas=3, flops=1e7, speeds=speeds)
    done = run(sharing=Sharing(portion=10), table=table, held_out=Table(30, 10, 10), evaluations=6, **cluster)
    for accounts in done.accounts[1:]:
        assert accounts.portions == pytest.approx([60 / 1.75, 30 / 1.75, 15 / 1.75], abs=2)
    # Without affinity a portion would soon have been with all three replicas.
    assert sum(len(readers) for readers in table.readers.values()) < 1.3 * 60


class Ahead(Table):
    """Remembers what it was asked to read ahead, and what was read without."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.ahead: list[int] = []
        self.unasked = 0

    def read_ahead(self, positions):
        self.ahead.append(int(positions[0]))

    def read(self, positions):
        self.unasked += int(positions[0]) not in self.ahead
        return super().read(positions)


def test_a_replica_reads_ahead_the_portion_after_the_one_at_hand():
    tables = [Ahead(400, 8, 10) for _ in range(2)]
    tables[0].by = lambda replica: tables[replica]
    run(shards=1, replicas=2, sharing=Sharing(portion=10), table=tables[0], held_out=Table(30, 8, 10), flops=FLOPS)
    for table in tables:
        assert len(table.ahead) >= 30 and not table.unasked


class Read(Table):
    """Remembers for each portion which replicas have read it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.readers: dict[int, set[int]] = {}

    def read(self, positions, reader: int = 0):
        self.readers.setdefault(int(positions[0]), set()).add(reader)
        return super().read(positions)

    def by(self, reader: int) -> "ReadBy":
        return ReadBy(self, reader)


class ReadBy:
    """The same examples, for one replica."""

    def __init__(self, table: Read, reader: int):
        self._table = table
        self._reader = reader

    def __len__(self) -> int:
        return len(self._table)

    def read_ahead(self, positions):
        pass

    def read(self, positions):
        return self._table.read(positions, self._reader)
