"""What the algorithms know of a model and of its data: any gradient-based model will do."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from distbelief.nn.accrual import Accrual
from distbelief.nn.arena import Arena, Layout
from distbelief.nn.interval import Interval
from distbelief.partition import Peers

Hook = Callable[..., None]
"""Called with names of tensors."""


class Batch(Protocol):
    """A minibatch; what else it holds is between the problem and its model."""

    @property
    def size(self) -> int: ...


class Model(Protocol):
    """Named parameter tensors and the gradient of a loss by them. `nn.Network` is one."""

    layout: Layout
    dtype: np.dtype

    def initialise(self, parameters: Arena, seed: int) -> None:
        """Fill `parameters` with the beginning that `seed` names, the same on every rank. Local.

        A large model may also have `initialise_interval(values, seed, start)`, which fills `values` with elements
        start..start+size-1 of it.
        """
        ...

    def gradient(self, parameters: Arena, batch: Any, gradient: Arena) -> float:
        """The mean loss over `batch`; overwrites `gradient` with its gradient. Local.

        A model that goes layer by layer takes two more arguments, `needed=None` and `produced=None`, to be called with
        names of tensors: `needed(*names)` before it first computes with them, `produced(*names)` once their gradients
        are final and it is done with the tensors themselves; if the loss is not finite, not at all. Meanwhile the
        tensors change: what `needed` has not been called for may hold values of an earlier step. A model that knows
        that all numbers of these gradients are finite may say so, `produced(*names, finite=True)`: nobody looks then.

        A model that can do what follows while it computes takes `accrual=None`, too: a nn.Accrual that says what is to
        become of each gradient before `produced` is called; if the loss is not finite, of none. It may then write to
        `gradient`, or not.
        """
        ...

    def score(self, parameters: Arena, batch: Any) -> tuple[float, float | None]:
        """The sum of the losses over `batch`, and the number of its examples that are classified rightly. Local.

        The number is None for a model that knows no right and wrong.
        """
        ...

    def flops(self, examples: int) -> float:
        """Floating-point operations of `score` on `examples` (a gradient: three times that), for virtual time."""
        ...


def takes_hooks(gradient: Any) -> bool:
    """Whether a model's `gradient` goes layer by layer: takes `needed` and `produced`."""
    return callable(gradient) and {"needed", "produced"} <= set(inspect.signature(gradient).parameters)


def takes_accruals(gradient: Any) -> bool:
    """Whether a model's `gradient` takes `accrual`, too."""
    return takes_hooks(gradient) and "accrual" in inspect.signature(gradient).parameters


def accruing(model: Model) -> Callable[[Arena, Any, Arena, Accrual], float]:
    """`gradient(parameters, batch, room, accrual)`: the mean loss over `batch`, and its gradient is taken in.

    By the model itself, if it can; else afterwards, whatever the loss. `room`: for a gradient on its way. Local.
    """
    if takes_accruals(model.gradient):
        return lambda parameters, batch, room, accrual: model.gradient(parameters, batch, room, accrual=accrual)

    def gradient(parameters: Arena, batch: Any, room: Arena, accrual: Accrual) -> float:
        into = accrual.accrued if accrual.fresh else room
        loss = model.gradient(parameters, batch, into)
        accrual.take_in(into, parameters, into, finite=True)
        return loss

    return gradient


class Epochs(Protocol):
    """One replica's part of the training data."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """The minibatches of one pass, in an order of its own. A batch is valid until the next one."""
        ...


class Examples(Protocol):
    """Examples in an order that is the same on every rank."""

    def __len__(self) -> int: ...

    def read(self, positions: np.ndarray) -> Iterator[Batch]:
        """The examples at `positions`, int64 [n], in minibatches. A minibatch is valid until the next one. Local."""
        ...

    def read_ahead(self, positions: np.ndarray) -> None:
        """These examples will be read soon. Local; returns at once."""
        ...


class Cut(Protocol):
    """A model cut over the partitions of a replica."""

    intervals: Sequence[Sequence[Interval]]
    """Of each partition: the places in the flat vector that its own is made of, in order."""

    def features(self, partition: int) -> Interval:
        """The numbers of a flattened example that `partition` needs."""
        ...

    def model(self, peers: Peers) -> Model:
        """This rank's partition: its gradients and scores are Collective over `peers`."""
        ...


class Problem(Protocol):
    """A model with its data, as one rank sees them."""

    seed: int

    def model(self) -> Model:
        """A new model with buffers of its own."""
        ...

    def replica_model(self) -> Model:
        """The model of a replica of Downpour, whose master parameters are on the shards. A problem may do without."""
        ...

    def cut(self, partitions: int) -> Cut:
        """The model over so many ranks of a replica. A problem may do without, if no replica is ever cut."""
        ...

    def batches(self, replica: int, replicas: int) -> Epochs:
        """The part of the training data that `replica` of `replicas` reads."""
        ...

    def held_out(self) -> Iterator[Batch]:
        """The examples that no replica trains on, for evaluation."""
        ...

    def examples(self) -> Examples:
        """All training examples, for procedures whose replicas have no part of their own."""
        ...

    def held_out_examples(self) -> Examples:
        """Those of `held_out`."""
        ...

    def test(self) -> Iterator[Batch] | None:
        """Examples for one evaluation at the end, None if there are none. Asked for where replicas are cut."""
        ...

    def test_examples(self) -> Examples | None:
        """Those of `test`. Likewise."""
        ...


def for_partition(problem: Problem, cut: Cut, partition: int) -> Problem:
    """`problem` as a partition reads it: of examples the numbers that it needs, if the problem has `reading`."""
    return problem.reading(cut.features(partition)) if hasattr(problem, "reading") else problem
