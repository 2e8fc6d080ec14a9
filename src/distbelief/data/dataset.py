"""A labelled dataset: one array of inputs, one label for each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distbelief.data.arrays import read_array
from distbelief.data.reader import ArrayReader
from distbelief.data.source import Features, Source
from distbelief.errors import UserError

# What the kernel that assembles batches reads as it is.
_INPUT_TYPES = (np.uint8, np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class Dataset(Source):
    """Inputs and labels that belong together; made by `open_dataset` or `dataset_of`, which check them.

    inputs: `[examples, ...]`, uint8, float32 or float64, C-contiguous, perhaps memory-mapped; never written to.
    labels: classes, int64 `[examples]`, in memory; or real targets, `[examples, outputs]`, of a type and perhaps mapped
    as inputs are.
    inputs_name, labels_name: the files, for messages.
    """

    inputs: np.ndarray
    labels: np.ndarray
    inputs_name: str = "inputs"
    labels_name: str = "labels"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inputs.shape[1:]

    @property
    def source_nf(self) -> np.ndarray:
        """The inputs as `[examples, features]`: a view, not a copy."""
        return self.inputs.reshape(self.examples, self.features)

    def reader(self, features: Features | None = None) -> ArrayReader:
        return ArrayReader(self.source_nf if features is None else self.source_nf[:, slice(*features)])


def open_dataset(inputs_path: str | Path, labels_path: str | Path, targets: bool = False) -> Dataset:
    """Open two array files (see `read_array`) as one dataset; `dataset_of` says what may be in them.

    Local. Raises UserError if a file cannot be read, or as `dataset_of` does.
    """
    return dataset_of(read_array(inputs_path), read_array(labels_path), str(inputs_path), str(labels_path), targets)


def dataset_of(
    inputs: np.ndarray,
    labels: np.ndarray,
    inputs_name: str = "inputs",
    labels_name: str = "labels",
    targets: bool = False,
) -> Dataset:
    """Make a dataset of two arrays: inputs `[examples, ...]` and labels `[examples]`.

    With `targets` labels may also be real targets, `[examples, ...]`: they are, unless they are integers `[examples]`,
    which are still classes. Reals `[examples]` are one target for each.

    Inputs of uint8, float32 and float64 are used where they are (a mapped file stays a mapped file). Any other
    integer or real type, big-endian ones included, is converted to float32 in memory, and an array in Fortran
    order is copied in memory. The values themselves are not looked at: that would read the whole file.
    Labels may be of any integer type, or reals that are whole numbers; they become int64 in memory.

    Local. Raises UserError if the counts differ, there is no example, inputs have fewer than two dimensions or
    labels not one, either is not of real numbers, or a label is not a whole number that fits int64.
    """
    if inputs.ndim < 2:
        raise UserError(f"{inputs_name}: inputs have shape {list(inputs.shape)}, expected [examples, ...]")
    if labels.ndim != 1 and not (targets and labels.ndim > 1):
        raise UserError(f"{labels_name}: labels have shape {list(labels.shape)}, expected [examples]")
    if len(inputs) != len(labels):
        raise UserError(
            f"{inputs_name} has {len(inputs)} examples and {labels_name} has {len(labels)} labels, "
            "expected as many of one as of the other"
        )
    if inputs.size == 0:
        raise UserError(
            f"{inputs_name}: inputs have shape {list(inputs.shape)}, expected at least one example and number"
        )
    if targets and (labels.ndim > 1 or labels.dtype.kind == "f"):
        labels = _usable_inputs(labels, labels_name).reshape(len(labels), -1)
    else:
        labels = _whole_labels(labels, labels_name)
    return Dataset(_usable_inputs(inputs, inputs_name), labels, inputs_name, labels_name)


def _usable_inputs(inputs: np.ndarray, name: str) -> np.ndarray:
    _expect_real(inputs, name)
    # `in` compares byte order too, so a big-endian float64 is not float64 here.
    return np.ascontiguousarray(inputs, dtype=inputs.dtype if inputs.dtype in _INPUT_TYPES else np.float32)


def _whole_labels(labels: np.ndarray, name: str) -> np.ndarray:
    _expect_real(labels, name)
    limit = 2.0**63
    if labels.dtype.kind == "f":
        # NaN fails the first comparison, infinity the second.
        usable = (labels == np.floor(labels)) & (labels >= -limit) & (labels < limit)
    elif labels.dtype.kind == "u":
        usable = labels <= np.iinfo(np.int64).max
    else:
        usable = np.ones(labels.shape, bool)
    if not usable.all():
        first = int(usable.argmin())
        raise UserError(f"{name}: label {labels[first]} at index {first}, expected a whole number that fits int64")
    whole = np.array(labels, dtype=np.int64)
    whole.flags.writeable = False
    return whole


def _expect_real(array: np.ndarray, name: str) -> None:
    if array.dtype.kind not in "buif":
        raise UserError(f"{name}: elements of type {array.dtype}, expected integers or real numbers")
