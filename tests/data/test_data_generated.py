import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from distbelief.data.generated import NOISE, Generated
from distbelief.errors import UserError


def read(data, rows):
    source_nf, places = data.reader().read(np.asarray(rows))
    return source_nf[places]


def test_an_example_depends_on_its_number_and_the_seed_alone():
    data, other = Generated(100, (5, 5, 3), 7, seed=1), Generated(100, (5, 5, 3), 7, seed=2)
    x = read(data, np.arange(100))
    # Products of other sizes may round otherwise.
    np.testing.assert_allclose(read(Generated(100, (75,), 7, seed=1), [31, 4]), x[[31, 4]], rtol=1e-5, atol=1e-5)
    assert not np.allclose(read(other, [0]), x[:1])
    assert data.features == 75 and x.dtype == np.float32 and data.labels.tolist() == [i % 7 for i in range(100)]


def test_numbers_are_centred_and_as_spread_as_documented():
    x = read(Generated(1000, (400,), 500, seed=0), np.arange(1000))
    assert abs(x.mean()) < 0.05
    np.testing.assert_allclose(x.std(), np.sqrt(1 + NOISE**2), rtol=0.05)


def test_there_is_something_to_learn_but_not_in_one_number():
    data = Generated(2000, (100,), 10, seed=0)
    x, y = read(data, np.arange(2000)), data.labels

    def accuracy(features):
        learnt = LogisticRegression(max_iter=100).fit(x[:1000, :features], y[:1000])
        return learnt.score(x[1000:, :features], y[1000:])

    assert accuracy(100) > 0.9 and accuracy(1) < 0.4


def test_every_class_has_an_example():
    with pytest.raises(UserError, match="20 generated examples for 21 classes"):
        Generated(20, (4,), 21, seed=0)
