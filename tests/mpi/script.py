"""A user's script that fits a line: `script.py WHAT [RANK]`, where WHAT is particular: one of the functions below.

Without anything wrong, every rank prints one line of what it was left with.
"""

import sys
import time

import numpy as np

from distbelief import Adagrad, Downpour, FixedRate, Model, Server, Stop, train
from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.launch.world import promised_rank

ARGUMENTS = {"rule": FixedRate(rate=0.2), "stop": Stop(epochs=40), "held_out": 20, "timeout": 30.0}
LATER = 5
"""What goes wrong during training goes wrong in this call of the gradient."""


class Line(Model):
    tensors = {"slope": (1,), "offset": (1,)}
    calls = 0

    def gradient(self, parameters, batch, gradient):
        x_n, y_n = batch
        self.calls += 1
        error_n = parameters["slope"] * x_n + parameters["offset"] - y_n
        gradient["slope"] = np.mean(error_n * x_n, keepdims=True)
        gradient["offset"] = np.mean(error_n, keepdims=True)
        return 0.5 * np.mean(error_n**2)


def points(examples: int = 500) -> tuple[np.ndarray, np.ndarray]:
    x_n = np.linspace(-1, 1, examples, dtype=np.float32)
    return x_n, 3 * x_n + 2


def here() -> bool:
    """This is the rank that the command line names."""
    return promised_rank() == int(sys.argv[2])


class Later(Line):
    """One whose `act` comes in place of a gradient, on one rank."""

    def gradient(self, parameters, batch, gradient):
        if self.calls >= LATER and here():
            return self.act(gradient)
        return super().gradient(parameters, batch, gradient)


def nothing() -> None:
    outcome = train(Line(), points(), downpour=Downpour(n_push=2), server=Server(shards=2), **ARGUMENTS)
    tell(outcome)


def twice() -> None:
    """The second training goes on with data of its own, and nothing of the first one's messages."""
    for sign in (1, -1):
        x_n, y_n = points()
        tell(train(Line, (x_n, sign * y_n), **ARGUMENTS))


def heard() -> None:
    class Listener:
        evaluations = 0

        def progress(self, progress): ...

        def evaluated(self, evaluation):
            self.evaluations += 1

    listener = Listener()
    train(Line(), points(), listener=listener, **ARGUMENTS)
    say(f"heard {listener.evaluations}")


def another_model() -> None:
    class Another(Line):
        tensors = {"slope": (1,), "offset": (1,), "more": (2,)}

        def gradient(self, parameters, batch, gradient):
            gradient["more"] = np.zeros(2)
            return super().gradient(parameters, batch, gradient)

    train((Another if here() else Line)(), points(), **ARGUMENTS)


def other_data() -> None:
    train(Line(), points(400 if here() else 500), **ARGUMENTS)


def bad_rule() -> None:
    train(Line(), points(), **ARGUMENTS | {"rule": Adagrad(rate=-1.0)})


def left_out() -> None:
    class Forgetful(Line):
        tensors = {"slope": (1,), "offset": (1,), "forgotten": (2,)}

    train(Forgetful(), points(), **ARGUMENTS)


def more_shards_than_parameters(procedure: str = "downpour") -> None:
    more = {"procedure": procedure, "server": Server(shards=3), "sandblaster": Sandblaster(portion=40)}
    train(Line(), points(), **ARGUMENTS | more)


def too_few() -> None:
    train(Line(), points(3), **ARGUMENTS | {"held_out": 2})


def not_finite_together() -> None:
    not_finite("synchronous")


def not_finite(procedure: str = "downpour") -> None:
    class Diverging(Later):
        def act(self, gradient):
            gradient.flat[:] = np.nan
            return 1.0

    train(Diverging(), points(), procedure=procedure, **ARGUMENTS)


def misfit(procedure: str = "downpour") -> None:
    class Widening(Later):
        def act(self, gradient):
            gradient["offset"] = np.ones(3)
            return 1.0

    train(Widening(), points(), procedure=procedure, sandblaster=Sandblaster(portion=40), **ARGUMENTS)


def misfit_by_name() -> None:
    class Renaming(Later):
        def act(self, gradient):
            gradient["nope"] = np.ones(3)
            return 1.0

    train(Renaming(), points(), **ARGUMENTS)


def misfit_of_the_loss() -> None:
    class Many(Later):
        def act(self, gradient):
            return np.ones(2)

    train(Many(), points(), **ARGUMENTS)


def fails() -> None:
    class Failing(Later):
        def act(self, gradient):
            raise ArithmeticError("planted")

    train(Failing(), points(), **ARGUMENTS | {"stop": Stop(epochs=1000)})


def fails_afterwards() -> None:
    train(Line(), points(), **ARGUMENTS)
    if here():
        raise ArithmeticError("planted")
    time.sleep(0.2)


def tell(outcome) -> None:
    line = "" if outcome.parameters is None else f" {outcome.parameters['slope'][0]:.2f}"
    say(f"failed {outcome.failed}{line}")


def say(words: str) -> None:
    # In one piece: ranks share stdout.
    sys.stdout.write(f"rank {promised_rank()} {words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[3:])
