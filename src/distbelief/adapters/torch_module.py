"""A torch.nn.Module as a model: its parameters live in the arena, and its gradients are written there.

Needs the extra `torch`; nothing here imports it before a TorchModel is made.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from distbelief.adapters.model import Model
from distbelief.algorithms.model import Hook
from distbelief.errors import UserError
from distbelief.nn.arena import Arena

if TYPE_CHECKING:
    import torch

_DTYPES = ("float32", "float64")


class TorchModel(Model):
    """A module with a loss, for batches of arrays of which the last is the target: `(*inputs, target)`.

    The loss of a batch is `loss(module(*inputs), target)`. Arrays become tensors without a copy where they can, those
    of real numbers in the module's dtype. No tensor of a module is copied on the way: for the time of a call its
    parameters and their `.grad` are views of the two arenas. Gradients are told one by one, as the backward pass makes
    them (`produced`, see algorithms.model.Model).
    """

    def __init__(
        self,
        module: torch.nn.Module | Callable[[], torch.nn.Module],
        loss: Callable[..., torch.Tensor],
        *,
        right: Callable[..., Any] | None = None,
        threads: int | None = None,
        whole: bool = False,
    ):
        """
        module: a function that makes one, called with the random state that a run's seed names; or a module, of which
            a copy is used and whose parameters, the same on every rank, training begins with.
        loss: the mean over a batch, from outputs and target; a torch.nn.functional.cross_entropy, for example.
        right: how many outputs are right, for the accuracy: right(outputs, target).
        threads: of PyTorch in this process; None: what OMP_NUM_THREADS says, or else 1, as ranks are the parallelism.
        whole: tell of gradients only when all are made: for a module whose backward pass still needs the values of a
            parameter that has its gradient already, as p.detach() may; and for several replicas in the simulator, which
            would take turns amid PyTorch's one backward pass of a thread.

        Raises UserError if there is no PyTorch, or the module has parameters that are not all float32 or all float64
        in memory of the CPU, or statistics that it collects while it trains (BatchNorm): ranks could not share them.
        """
        self._torch = _import_torch()
        if threads is not None or "OMP_NUM_THREADS" not in os.environ:
            self._torch.set_num_threads(threads or 1)
        if isinstance(module, self._torch.nn.Module):
            template = copy.deepcopy(module)
            self._make = lambda: copy.deepcopy(template)
        else:
            self._make = module
        self._loss = loss
        self._right = right
        self._installed: Arena | None = None
        self._seed = 0
        self._module, self._parameters = self._made_anew()
        self._check()
        self.tensors = {name: tuple(p.shape) for name, p in self._parameters.items()}
        first = next(iter(self._parameters.values()))
        self._dtype = first.dtype
        self.dtype = np.dtype(str(first.dtype).removeprefix("torch."))
        self._whole = whole
        self._gradient: Arena | None = None  # that is being made, in a backward pass
        self._produced: Hook | None = None
        self._made: set[str] = set()  # its tensors that have come
        self._told: set[str] = set()  # and that have been told, too
        self._in_parts: set[str] | None = None  # whose gradients have ever come more than once; None: nobody knows yet
        self._second: tuple | None = None  # module, parameters and installed arena to use meanwhile
        for name, parameter in self._parameters.items():
            parameter.register_post_accumulate_grad_hook(functools.partial(self._take, name))
            parameter.data = parameter.data.new_empty(0)  # its memory: the arenas have it

    def with_parameters(self, parameters: Arena) -> torch.nn.Module:
        """A module of its own with a copy of `parameters`: to save, or to use. Local."""
        with self._aside():
            self._install(parameters)
            return copy.deepcopy(self._module).eval()

    def begin_from(self, seed: int) -> None:
        """Let frozen parameters and buffers be what the function makes under `seed`, as `initialise` does with others.

        `train` does so with its own; whoever makes another model for `with_parameters` has to. Local.
        """
        if seed == self._seed:
            return
        self._seed, self._second = seed, None
        made, _ = self._made_anew()
        frozen = [(name, p) for name, p in made.named_parameters() if not p.requires_grad]
        held = dict(self._module.named_parameters()) | dict(self._module.named_buffers())
        with self._torch.no_grad():
            for name, values in [*frozen, *made.named_buffers()]:
                held[name].copy_(values)

    def initialise(self, parameters: Arena, seed: int) -> None:
        """What the module's own initialisation makes of the seed."""
        with self._seeded(seed):
            made = dict(self._make().named_parameters())
        for name in parameters:
            parameters[name] = made[name].detach().numpy()

    def gradient(
        self,
        parameters: Arena,
        batch: tuple[Any, ...],
        gradient: Arena,
        needed: Hook | None = None,
        produced: Hook | None = None,
    ) -> float:
        if needed is not None:
            needed(*self._parameters)  # nobody knows in which order a module uses them
        self._install(parameters)
        gradient.flat[:] = 0  # autograd adds to what is there
        for name, parameter in self._parameters.items():
            parameter.grad = self._torch.from_numpy(gradient[name])
        self._module.train()
        outputs, target = self._forward(batch)
        loss = self._loss(outputs, target)
        if loss.numel() != 1:
            raise UserError(f"loss: a tensor of shape {tuple(loss.shape)}, expected one number, the mean of the batch")
        value = loss.item()
        self._begin(gradient, produced if math.isfinite(value) and not self._whole else None)
        try:
            loss.backward()
            for name, parameter in self._parameters.items():
                if name not in self._told:  # or else it may be on its way
                    self._settle(name, parameter)
                parameter.grad = None
        finally:
            self._gradient = None
        return value

    def score(self, parameters: Arena, batch: tuple[Any, ...]) -> tuple[float, float | None]:
        """In evaluation mode: without dropout."""
        with self._aside(), self._torch.no_grad():
            self._install(parameters)
            self._module.eval()
            outputs, target = self._forward(batch)
            loss = self._loss(outputs, target).item() * len(target)
            return loss, None if self._right is None else float(self._right(outputs, target))

    def _begin(self, gradient: Arena, produced: Hook | None) -> None:
        """A backward pass begins. The first tells of no gradient, but shows which come in parts."""
        self._gradient = gradient
        self._produced = None if self._in_parts is None else produced
        self._in_parts = self._in_parts or set()
        self._made, self._told = set(), set()

    def _take(self, name: str, parameter: torch.nn.Parameter) -> None:
        """A parameter's gradient has been added to: for good, unless the pass consists of several, as with reentrant
        checkpoints."""
        if name in self._told:
            raise UserError(
                f"module: the gradient of {name} was added to after it was complete in earlier steps, "
                "expected TorchModel(..., whole=True) for such a module"
            )
        if name in self._made:
            self._in_parts.add(name)
        self._made.add(name)
        if self._produced is not None and name not in self._in_parts:
            self._settle(name, parameter)
            self._told.add(name)
            self._produced(name)

    def _settle(self, name: str, parameter: torch.nn.Parameter) -> None:
        """Let a gradient be in its arena."""
        if parameter.grad.data_ptr() != self._gradient[name].ctypes.data:  # replaced, not added to
            self._gradient[name] = parameter.grad.numpy()

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Whoever is told of a gradient may evaluate meanwhile: with a second module, as the backward pass still needs
        the parameters of the first."""
        if self._gradient is None:
            yield
            return
        first = self._module, self._parameters, self._installed
        self._module, self._parameters, self._installed = self._second or (*self._made_anew(), None)
        try:
            yield
        finally:
            self._second = self._module, self._parameters, self._installed
            self._module, self._parameters, self._installed = first

    def _made_anew(self) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
        """A module, and those of its parameters that are trained."""
        with self._seeded(self._seed):  # frozen parameters and buffers do not travel, and are the same on every rank
            module = self._make()
        if not isinstance(module, self._torch.nn.Module):
            raise UserError(f"module: a {type(module).__name__}, expected a torch.nn.Module")
        return module, {name: p for name, p in module.named_parameters() if p.requires_grad}

    def _forward(self, batch: tuple[Any, ...]) -> tuple[Any, torch.Tensor]:
        *inputs, target = map(self._tensor, batch)
        return self._module(*inputs), target

    def _tensor(self, array: Any) -> torch.Tensor:
        tensor = self._torch.as_tensor(array)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _install(self, parameters: Arena) -> None:
        """Let the module's parameters be views of the arena."""
        if parameters is self._installed:
            return
        for name, parameter in self._parameters.items():
            parameter.data = self._torch.from_numpy(parameters[name])
        self._installed = parameters

    def _check(self) -> None:
        if not self._parameters:
            raise UserError("module: no parameters that require a gradient")
        for name, parameter in self._parameters.items():
            found = f"{str(parameter.dtype).removeprefix('torch.')} on {parameter.device}"
            if parameter.device.type != "cpu" or found.split()[0] not in _DTYPES:
                raise UserError(f"module: parameter {name} is {found}, expected float32 or float64 on cpu")
        if len({parameter.dtype for parameter in self._parameters.values()}) > 1:
            raise UserError("module: parameters of both float32 and float64, expected all of one")
        for name, part in self._module.named_modules():
            if getattr(part, "track_running_stats", False):
                raise UserError(
                    f"module: {name or 'it'} ({type(part).__name__}) collects running statistics, which ranks do not "
                    "share; expected a layer without, such as GroupNorm, or track_running_stats=False"
                )

    @contextlib.contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """PyTorch's random numbers from `seed` on, and afterwards those that there would have been."""
        with self._torch.random.fork_rng(devices=[]):
            self._torch.manual_seed(seed)
            yield


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"PyTorch cannot be imported ({error}), expected distbelief[torch] to be installed") from error
    return torch
