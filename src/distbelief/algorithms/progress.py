"""What a training procedure tells of itself while it runs, and what it leaves."""

import math
from dataclasses import dataclass, field
from typing import Protocol

from distbelief.nn.arena import Arena


@dataclass(frozen=True)
class Progress:
    """How far training has come."""

    time: float
    """Seconds since training began."""
    step: int
    """Steps of all replicas together."""
    examples: int
    train_loss: float
    """Mean loss of the latest minibatches."""


@dataclass(frozen=True)
class Evaluation:
    """The parameters of one moment, tried on the held-out examples: a record of metrics.jsonl."""

    time: float
    """Seconds since training began."""
    step: int
    """Steps of all replicas together."""
    examples: int
    loss: float
    accuracy: float | None
    """None if the model does not count what it gets right."""
    train_loss: float | None
    """Mean loss of the latest minibatches; None before the first."""
    examples_per_s: float
    staleness: list[float] = field(default_factory=list)
    """Per shard: the mean staleness of its updates so far. Empty for serial training."""
    staleness_max: list[int] = field(default_factory=list)
    staleness_histogram: list[list[int]] = field(default_factory=list)
    """Per shard: how many of its updates had a staleness in each bucket."""
    staleness_edges: list[int] = field(default_factory=list)
    """Where each bucket begins; the last one is open. The mean and the largest above are exact, not by buckets."""
    updates: list[int] = field(default_factory=list)
    """Per shard: the updates it has applied."""
    refused: list[int] = field(default_factory=list)
    """Per shard: the messages that it could not take, and has dropped."""
    drift: int = 0
    """By how many updates at least one shard was ahead of another."""
    bytes_fetched: int = 0
    bytes_pushed: int = 0
    seconds_fetching: float = 0.0
    """Seconds that replicas waited for fetches and for slower replicas, summed over replicas."""
    seconds_pushing: float = 0.0
    """Seconds that replicas waited for pushes, summed over replicas."""
    replica_examples_per_s: list[float] = field(default_factory=list)
    """Per replica, since it was started."""


@dataclass(frozen=True)
class BatchEvaluation:
    """One evaluation of the loss over a batch and of its gradient, by Sandblaster: a record of evaluations.jsonl."""

    time: float
    """Seconds since training began."""
    evaluation: int
    """Counted from 1."""
    iteration: int
    """Steps that had been accepted."""
    loss: float
    """Mean over the batch."""
    gradient_norm: float
    step_length: float
    """Along the method's direction; 0: no step."""
    examples: int
    """In the batch."""
    seconds: float
    """That this evaluation took."""
    portions: list[int]
    """Per replica: its portions that count."""
    backups_issued: int
    backups_won: int
    given_up: int
    """Times that a replica was silent for so long that others did its work again."""
    seconds_idle: float
    """Seconds that replicas had nothing to do, since the evaluation before; summed over replicas."""
    bytes_fetched: int
    """Of parameters by all replicas, since training began."""
    bytes_shipped: int
    """Of gradients to the shards, likewise."""


@dataclass(frozen=True)
class Fault:
    """Why training ended early: a loss or a gradient that is not finite."""

    replica: int | None
    """Who met it; None if an evaluation did, on the held-out examples."""
    step: int
    """The replica's own step, counted from 1; for an evaluation, the steps of all replicas so far."""
    loss: float

    def __str__(self) -> str:
        what = "the gradient has a NaN or infinity" if math.isfinite(self.loss) else f"the loss is {self.loss:g}"
        if self.replica is None:
            return f"{what} on the held-out examples after {self.step} steps"
        return f"{what} at step {self.step} of replica {self.replica}"


@dataclass(frozen=True)
class Outcome:
    """What training leaves. Ranks other than the coordinator's learn only whether it failed."""

    failed: bool
    parameters: Arena | None = None
    """The last parameters whose loss on the held-out examples was finite; None if a keeper has them elsewhere."""
    evaluation: Evaluation | None = None
    """What they scored; None if training failed before the first evaluation."""
    fault: Fault | Exception | None = None
    """What it says as a string is why training failed."""
    reason: str = ""
    """Why a batch method stopped."""
    rank_missing: bool = False
    """A rank did not answer at the end, and may never come to a collective call."""
    test_score: tuple[float, float | None] | None = None
    """Loss and accuracy on the test examples, if a replica has scored them."""


class Listener(Protocol):
    """Hears of progress, on the coordinator's rank alone."""

    def progress(self, progress: Progress) -> None: ...

    def evaluated(self, evaluation: Evaluation) -> None: ...

    def batch_evaluated(self, evaluation: BatchEvaluation) -> None:
        """A listener of a user's own may do without."""
        ...

    def warned(self, words: str) -> None:
        """Something is odd, and training goes on. A listener of a user's own may do without."""
        ...
