import numpy as np
from sklearn.linear_model import LogisticRegression

from distbelief.data.generated import NOISE, Generated


def read(data, rows):
    source_nf, places = data.reader().read(np.asarray(rows))
    return source_nf[places]


def test_an_example_depends_on_its_number_and_the_seed_alone():
    data, other = Generated(100, (5, 5, 3), 7, seed=1), Generated(100, (5, 5, 3), 7, seed=2)
    x = read(data, np.arange(100))
    # Products of other sizes may round otherwise.
    np.testing.assert_allclose(read(Generated(100, (75,), 7, seed=1), [31, 4]), x[[31, 4]], rtol=1e-5, atol=1e-5)
    assert not np.allclose(read(other, [0]), x[:1])
    assert data.features == 75 and x.dtype == np.float32
    assert data.labels.dtype == np.int64 and set(data.labels) == set(range(7))


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


def test_training_and_test_examples_are_others_of_the_same_classes():
    training, test = (Generated(500, (100,), 5, seed=0, stream=stream) for stream in (0, 1))
    x, other = read(training, np.arange(500)), read(test, np.arange(500))
    assert not np.allclose(x[0], other[0]) and (training.labels != test.labels).any()
    means, others = (np.stack([a[d.labels == k].mean(0) for k in range(5)]) for a, d in ((x, training), (other, test)))
    distances = np.linalg.norm(means[:, None] - others[None], axis=2)
    assert distances.argmin(1).tolist() == [0, 1, 2, 3, 4]


def test_some_features_are_those_of_the_whole():
    data = Generated(20, (100,), 7, seed=1)
    rows = np.array([3, 11, 3])
    x = read(data, rows)
    for start, stop in ((0, 100), (0, 5), (15, 17), (16, 80), (33, 100)):
        part, places = data.reader((start, stop)).read(rows)
        np.testing.assert_allclose(part[places], x[:, start:stop], rtol=1e-5, atol=1e-5)
