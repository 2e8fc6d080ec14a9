"""What travels between the coordinator and the replicas. It is tiny, and no number of a vector is in it."""

import numpy as np

WORK, RESULT, HERE = 40, 41, 42  # tags

# Kinds of WORK, from the coordinator. It arrives in the order in which it was sent.
# ASSIGN: compute the gradient over this portion. SCORE, TEST: try the parameters on this portion of the held-out or of
# the test examples.
# ACCEPT: the portion that you have finished goes into your sum. REJECT: drop it, another was first.
# DROP: stop working on this portion, or never begin. GRANT: send your sum to the shards under this number.
# REVOKE: drop your sum, it will not count; say that you live.
#
# The head of a replica on several ranks sends the others WORK, too, in the moment when it does the same: ASSIGN, SCORE
# and TEST then mean to begin, DROP to leave what is at hand. STEP: compute one minibatch. To REVOKE they answer HERE,
# an empty message; the head says that it lives once all have.
ASSIGN, SCORE, TEST, ACCEPT, REJECT, DROP, GRANT, REVOKE, STEP = range(9)
SCORES = (SCORE, TEST)

WORK_RECORD = np.dtype(
    [
        ("kind", "<i4"),
        ("portion", "<i4"),
        ("evaluation", "<i8"),
        ("point", "<i8"),  # counts the parameters that the shards have exposed: another number, another fetch
        ("shipment", "<i8"),
    ]
)

# Kinds of RESULT, from a replica. DONE: a portion is finished. ALIVE: nothing new.
DONE, ALIVE = range(2)

RESULT_RECORD = np.dtype(
    [
        ("kind", "<i4"),
        ("replica", "<i4"),
        ("evaluation", "<i8"),
        ("portion", "<i8"),
        ("examples", "<i8"),  # of the portion
        ("loss", "<f8"),  # summed over its examples; NaN if its gradient is not finite
        ("right", "<f8"),  # of a score: the examples that are classified rightly; NaN if the model does not say
        ("seconds", "<f8"),  # that the portion took
        # Since the beginning:
        ("seconds_idle", "<f8"),  # without anything to do
        ("bytes_fetched", "<i8"),
    ]
)
