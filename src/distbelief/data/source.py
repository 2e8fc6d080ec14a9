"""What every source of examples is: arrays in files, folders of pictures, examples that are made."""

import math

import numpy as np

from distbelief.data.reader import Reader
from distbelief.errors import UserError

Features = tuple[int, int]
"""Start and stop of some neighbouring numbers of a flattened example."""


class Source:
    """Labelled examples of one shape; `reader` gives batches their way to them. All methods are Local."""

    inputs_name: str
    """Where the inputs come from, for messages."""
    labels_name: str
    labels: np.ndarray
    """Classes, int64 `[examples]`; or real targets, `[examples, outputs]`."""

    @property
    def examples(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        raise NotImplementedError

    @property
    def features(self) -> int:
        """Numbers in one example: the product of its dimensions."""
        return math.prod(self.shape)

    def reader(self, features: Features | None = None) -> Reader:
        """A new reader of these examples, or of just these `features` of each."""
        raise NotImplementedError

    def check(self, inputs: tuple[int, ...], outputs: tuple[int, ...], last: str) -> None:
        """Make sure that a network of such `inputs` and `outputs`, those of its layer `last`, can learn from these.

        Raises UserError if an example or its targets have another width, or a label is none of the outputs.
        """
        features, classes = math.prod(inputs), math.prod(outputs)
        if self.features != features:
            raise UserError(
                f"{self.inputs_name}: an example has {self.features} numbers (shape {list(self.shape)}), "
                f"expected {features} (shape {list(inputs)}), network.inputs"
            )
        above = f"the outputs {list(outputs)} of {last}"
        if self.labels.ndim == 2:
            if self.labels.shape[1] != classes:
                raise UserError(
                    f"{self.labels_name}: an example has {self.labels.shape[1]} targets, expected {classes} for {above}"
                )
            return
        outside = (self.labels < 0) | (self.labels >= classes)
        if outside.any():
            first = int(outside.argmax())
            raise UserError(
                f"{self.labels_name}: label {self.labels[first]} at index {first}, "
                f"expected 0 to {classes - 1} for {above}"
            )
