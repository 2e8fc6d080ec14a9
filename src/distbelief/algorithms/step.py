"""One step of a replica, as its model goes through it: tensors that are needed, gradients that are produced."""

from collections.abc import Callable, Sequence

from distbelief.comm.endpoint import Endpoint
from distbelief.nn.arena import Layout
from distbelief.server import Piece
from distbelief.server.messages import NOTHING


class Pieces:
    """Which pieces (server.pieces) each tensor of a layout lies in."""

    def __init__(self, layout: Layout, pieces: Sequence[Piece]):
        self.of: dict[str, list[int]] = {}
        """Their numbers, by the tensor's name."""
        self.tensors = [0] * len(pieces)
        """In how many tensors each piece lies."""
        for name, _, start, stop in layout.tensors:
            self.of[name] = [i for i, p in enumerate(pieces) if p.offset < stop and p.offset + p.size > start]
            for number in self.of[name]:
                self.tensors[number] += 1
        self.share = {tensor.name: (tensor.stop - tensor.start) / layout.size for tensor in layout.tensors}
        """Of the layout's elements, by the tensor's name."""


class Step:
    """What `Model.gradient` reports to. All methods are Local.

    Each piece is brought in once, when the first of its tensors is needed, and finished once, when the gradients of all
    its tensors are final; it is brought in before it is finished, whatever the model says. In virtual time, a tensor
    takes its share of the model's operations: a third after it is needed, two thirds before it is produced.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        pieces: Pieces,
        flops: float,
        bring: Callable[[int], None],
        finish: Callable[[int, bool], None],
    ):
        """`flops`: of the forward pass; `bring`, `finish`: what to do with a piece, by its number. `finish` hears, too,
        whether the model says that all of the piece's gradient is finite."""
        self._endpoint = endpoint
        self._pieces = pieces
        self._flops = flops
        self._bring = bring
        self._finish = finish
        self._not_brought = set(range(len(pieces.tensors)))
        self._missing = list(pieces.tensors)  # tensors of each piece whose gradient is not final
        self._not_produced = set(pieces.of)
        self._doubtful: set[int] = set()  # pieces of which a gradient may not be finite
        self._due = 0.0  # operations that have been done but not charged
        self._charged = 0.0

    def needed(self, *names: str) -> None:
        """The model is about to compute with these tensors."""
        self._let_others()
        for name in names:
            for number in self._pieces.of[name]:
                self._bring_once(number)
            self._due += self._flops * self._pieces.share[name]

    def produced(self, *names: str, finite: bool = False) -> None:
        """The gradients of these tensors are final, and the model is done with the tensors. `finite`: it knows that
        they are."""
        self._due += 2 * self._flops * sum(self._pieces.share[name] for name in names)
        self._let_others()
        for name in self._not_produced.intersection(names):
            self._not_produced.discard(name)
            for number in self._pieces.of[name]:
                self._missing[number] -= 1
                if not finite:
                    self._doubtful.add(number)
                if self._missing[number] == 0:
                    self._bring_once(number)
                    self._finish(number, number not in self._doubtful)

    def end(self, good: bool) -> None:
        """The gradient has been computed; `good`: finish whatever the model has not spoken of."""
        self._due = 3 * self._flops - self._charged
        self._let_others()
        if good:
            self._due, rest = 0.0, list(self._not_produced)
            self.produced(*rest)

    def _bring_once(self, number: int) -> None:
        if number in self._not_brought:
            self._not_brought.discard(number)
            self._bring(number)

    def _let_others(self) -> None:
        """Let time pass for what has been computed, messages move on, and parts beside this one be served."""
        if self._due:
            self._endpoint.charge(flops=self._due)
            self._charged += self._due
            self._due = 0.0
        self._endpoint.probe(tag=NOTHING)
