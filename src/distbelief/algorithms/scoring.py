"""Loss and accuracy over a set of examples."""

from collections.abc import Callable, Generator, Iterable
from typing import Any

from distbelief.algorithms.model import Batch, Model
from distbelief.nn.arena import Arena


def scoring(
    model: Model, parameters: Arena, batches: Iterable[Batch], charge: Callable[..., Any] | None = None
) -> Generator[None, None, tuple[float, float | None]]:
    """Mean loss and accuracy over `batches`, one batch at a time: yields between them, returns at the end.

    The accuracy is None if the model does not say of every batch how many it gets right.
    """
    loss, examples = 0.0, 0
    right: float | None = 0
    for batch in batches:
        batch_loss, batch_right = model.score(parameters, batch)
        loss, examples = loss + batch_loss, examples + batch.size
        right = None if right is None or batch_right is None else right + batch_right
        if charge is not None:
            charge(flops=model.flops(batch.size))
        yield
    return loss / examples, None if right is None else right / examples


def score(model: Model, parameters: Arena, batches: Iterable[Batch]) -> tuple[float, float | None]:
    """Mean loss and accuracy over `batches`. Local."""
    steps = scoring(model, parameters, batches)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
