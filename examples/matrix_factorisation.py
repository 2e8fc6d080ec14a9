"""Matrix factorisation in NumPy: ratings of items by users, of which few are known, as products of short vectors.

    python examples/matrix_factorisation.py                 serially
    mpirun -n 3 python examples/matrix_factorisation.py     by Downpour: one rank holds the parameters, two train

An example is one known rating: (user, item, rating). A minibatch touches few rows of the factors; the gradient is
nonetheless written whole, with zeros elsewhere.
"""

import numpy as np

from distbelief import Adagrad, Downpour, Model, Stop, train

USERS, ITEMS, FACTORS = 200, 150, 4
KNOWN = 12_000  # of the 30,000 ratings


class MatrixFactorisation(Model):
    """rating = user's factors . item's factors; the loss is half the squared error."""

    tensors = {"users": (USERS, FACTORS), "items": (ITEMS, FACTORS)}

    def initialise(self, parameters, seed):
        # Not zeros: there the gradient is zero, too.
        parameters.flat[:] = np.random.default_rng(seed).normal(0, 0.3, parameters.flat.shape)

    def gradient(self, parameters, batch, gradient):
        user_n, item_n, rating_n = batch
        u_nf, v_nf = parameters["users"][user_n], parameters["items"][item_n]
        error_n = (u_nf * v_nf).sum(axis=1) - rating_n
        gradient.flat[:] = 0
        # A user may come twice in a minibatch: add.at adds both, where += would keep one.
        np.add.at(gradient["users"], user_n, error_n[:, None] * v_nf / len(error_n))
        np.add.at(gradient["items"], item_n, error_n[:, None] * u_nf / len(error_n))
        return 0.5 * np.mean(error_n**2)


def ratings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items and ratings [n] of a matrix of rank FACTORS with a little noise."""
    random = np.random.default_rng(1)
    users_uf, items_if = random.normal(size=(USERS, FACTORS)), random.normal(size=(ITEMS, FACTORS))
    cells = random.choice(USERS * ITEMS, KNOWN, replace=False)
    user_n, item_n = cells // ITEMS, cells % ITEMS
    rating_n = (users_uf[user_n] * items_if[item_n]).sum(axis=1) + random.normal(0, 0.1, KNOWN)
    return user_n, item_n, rating_n.astype(np.float32)


def main() -> None:
    data = ratings()
    outcome = train(
        MatrixFactorisation(),
        data,
        rule=Adagrad(rate=0.1),
        downpour=Downpour(warmstart=100),
        stop=Stop(epochs=60),
        held_out=1000,
    )
    if outcome.parameters is not None:  # on rank 0
        variance = data[2].var()
        print(f"mean squared error {2 * outcome.evaluation.loss:.3f}, of ratings with a variance of {variance:.3f}")


if __name__ == "__main__":
    main()
