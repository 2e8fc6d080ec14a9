"""A replica that says nothing is not told more than the transport has room for."""

import numpy as np
from algorithms.sandblaster_cluster import Table, run

from distbelief.algorithms.sandblaster.outbox import UNHEARD, Outbox
from distbelief.algorithms.sandblaster.settings import Sharing
from distbelief.comm.sim import Cluster

TAG = 5


def test_messages_wait_for_a_silent_replica_alone_and_come_in_order():
    def program(endpoint):
        if endpoint.rank == 0:
            outbox = Outbox(endpoint, [1, 2], TAG)
            for number in range(3 * UNHEARD):
                outbox.tell(0, np.array([number]))
                outbox.tell(1, np.array([number]))
                outbox.hear(1)
            endpoint.wait_message(1.0, 1)  # it has woken up
            outbox.hear(0)
            endpoint.wait_message(1.0, 1, TAG + 1)
            outbox.hear(0)
            return None
        number = np.empty(1, np.int64)
        taken = []

        def take_all():
            while endpoint.wait_message(0.1, 0, TAG) is not None:
                endpoint.wait_all([endpoint.receive(number, 0, TAG)], 1.0, "a message")
                taken.append(int(number[0]))
            return len(taken)

        counts = [take_all()]
        for tag in (TAG + 2, TAG + 1) if endpoint.rank == 1 else ():
            endpoint.wait_all([endpoint.send(number, 0, tag)], 1.0, "rank 0 to hear")
            counts.append(take_all())
        assert taken == list(range(len(taken)))
        return counts

    _, silent, other = Cluster(3).run(program)
    assert other == [3 * UNHEARD]
    assert silent == [UNHEARD, 2 * UNHEARD, 3 * UNHEARD]


def test_a_replica_that_never_gets_a_portion_done_is_told_of_all():
    """Others are through with whatever it has begun, so it has nothing to report."""
    table, speeds = Table(200, 8, 10), {2: 1e-4}
    done = run(shards=1, replicas=2, sharing=Sharing(portion=20), table=table, evaluations=30, flops=1e7, speeds=speeds)
    assert done.complete
    assert sum(accounts.portions[1] for accounts in done.accounts[1:]) == 0
    assert sum(accounts.backups_issued for accounts in done.accounts) > UNHEARD
