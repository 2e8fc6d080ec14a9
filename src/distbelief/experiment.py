"""A configuration made real: its data opened and checked, its network built."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distbelief.config import Config, Examples
from distbelief.data import Batch, Batches, Generated, ImageFolder, Source, held_out, open_dataset, part
from distbelief.errors import UserError
from distbelief.nn import LOSSES, Network, build
from distbelief.nn.bfloat16 import wide
from distbelief.nn.build import kind_of, place
from distbelief.nn.interval import Interval
from distbelief.partition import Cut

# Examples that an evaluation scores at once, at most: between two of them rank 0 serves its shard...
EVALUATION_BATCH = 250
# ...and so many that the outputs of all layers take no more than this, unless minibatches do.
EVALUATION_BYTES = 1 << 28


class Experiment:
    """The problem of one configuration, as the algorithms see it (algorithms.model.Problem). All methods are Local."""

    def __init__(self, config: Config):
        """Opens the data. Raises UserError if files are missing or broken, or do not fit the network."""
        self.seed = config.seed
        self._config = config
        network = config.network
        self._layers = build(network.layers, network.inputs, network.loss)
        example = 8 * sum(math.prod(layer.shape) for layer in self._layers)  # bytes: outputs, gradients by them
        self._evaluation_batch = min(EVALUATION_BATCH, max(config.data.batch, EVALUATION_BYTES // example))
        self._largest_batch = max(config.data.batch, self._evaluation_batch)
        self._features: Interval | None = None
        self._train = self._open(config.data.train)
        self._test = self._open(config.data.test, stream=1) if config.data.test else None
        self._training, self._held_out = held_out(self._train.examples, config.data.held_out, config.seed)

    @property
    def training_examples(self) -> int:
        return self._training.size

    def model(self) -> Network:
        """A new network with buffers for minibatches and evaluation batches."""
        network = self._config.network
        return Network(self._layers, self._largest_batch, network.dtype, LOSSES[network.loss](), network.penalty)

    def replica_model(self) -> Network:
        """As `model`, for a replica whose master parameters are elsewhere: it holds its own as it computes with them.

        In bfloat16, that is, if the network computes in it and all layers can have it so.
        """
        network = self._config.network
        held = "bfloat16" if network.dtype == "bfloat16" and not any(layer.tied for layer in self._layers) else None
        arguments = self._largest_batch, network.dtype, LOSSES[network.loss](), network.penalty
        return Network(self._layers, *arguments, held)

    def cut(self, partitions: int) -> Cut:
        """The same network over the ranks of a replica. Raises UserError if it cannot be cut into so many."""
        network = self._config.network
        arguments = self._largest_batch, network.dtype, LOSSES[network.loss](), network.penalty
        return Cut(self._layers, partitions, *arguments)

    def reading(self, features: Interval) -> "Experiment":
        """The same, but batches have only these numbers of each flattened example, as a partition needs no others."""
        narrowed = copy.copy(self)
        narrowed._features = features
        return narrowed

    def batches(self, replica: int, replicas: int) -> Batches:
        """The minibatches of one replica's part; raises UserError if the part is empty."""
        indices = part(self._training, replica, replicas)
        return self._read(self._train, indices, self._config.data.batch, stream=replica)

    def held_out(self) -> Iterator[Batch]:
        return self._read(self._train, self._held_out, self._evaluation_batch).in_order()

    def examples(self) -> Batches:
        return self._read(self._train, self._training, self._config.data.batch)

    def held_out_examples(self) -> Batches:
        return self._read(self._train, self._held_out, self._evaluation_batch)

    def test(self) -> Iterator[Batch] | None:
        """The test examples in file order; None if the configuration names none."""
        examples = self.test_examples()
        return None if examples is None else examples.in_order()

    def test_examples(self) -> Batches | None:
        if self._test is None:
            return None
        return self._read(self._test, np.arange(self._test.examples), self._evaluation_batch)

    def _open(self, examples: Examples, stream: int = 0) -> Source:
        """`stream`: keeps generated examples of one use apart from those of another."""
        network = self._config.network
        shape = self._layers[0].below
        if examples.generated is not None:
            return self._generate(examples.generated, stream)
        if examples.labels is not None:
            source = open_dataset(examples.inputs, examples.labels, targets=network.loss == "squared")
        elif not Path(examples.inputs).is_dir():
            raise UserError(f"{examples.inputs}: inputs without labels, expected labels, or a folder of pictures")
        elif len(shape) != 3:
            raise UserError(
                f"{examples.inputs}: pictures for a network of inputs = {shape[0]}, expected inputs = "
                "[height, width, channels]"
            )
        else:
            source = ImageFolder(examples.inputs, shape)
        source.check(shape, self._layers[-1].shape, place(len(network.layers) - 1, kind_of(network.layers[-1])))
        return source

    def _generate(self, examples: int, stream: int) -> Generated:
        shape, outputs = self._layers[0].below, math.prod(self._layers[-1].shape)
        try:
            return Generated(examples, shape, outputs, self.seed, stream)
        except MemoryError:
            raise UserError(
                f"generated examples: {examples} of shape {list(shape)} in {outputs} classes: more than there is "
                "memory for"
            ) from None

    def _read(self, dataset: Source, indices: np.ndarray, batch: int, stream: int = 0) -> Batches:
        data, dtype = self._config.data, self._config.network.dtype
        dtype = wide(dtype)
        return Batches(
            dataset,
            indices,
            batch,
            seed=self.seed,
            stream=stream,
            scale=data.scale,
            shift=data.shift,
            dtype=dtype,
            features=self._features,
        )
