"""Update rules against NumPy, and their descriptions as a configuration has them."""

from typing import get_args

import msgspec
import numpy as np
import pytest

from distbelief.optim import Adagrad, FixedRate, Rule

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
rules = pytest.mark.parametrize("rule", [FixedRate(0.1), Adagrad(0.1)])


def gradients(count, size, dtype):
    random = np.random.default_rng(3)
    return [random.standard_normal(size).astype(dtype) for _ in range(count)]


def apply_all(rule, updates, dtype):
    parameters = np.ones(updates[0].size, dtype)
    state = rule.state(parameters.size, parameters.dtype)
    for gradient in updates:
        state.apply(parameters, gradient)
    return parameters


@dtypes
def test_fixed_rate(dtype):
    updates = gradients(10, 33, dtype)
    np.testing.assert_allclose(apply_all(FixedRate(0.1), updates, dtype), 1 - 0.1 * sum(updates), rtol=0, atol=1e-6)


@dtypes
def test_adagrad(dtype):
    updates = gradients(10, 33, dtype)
    true, squares = np.ones(33), np.zeros(33)
    for gradient in updates:
        squares += gradient.astype(np.float64) ** 2
        true -= 0.1 * gradient / np.sqrt(squares)
    np.testing.assert_allclose(apply_all(Adagrad(0.1), updates, dtype), true, rtol=0, atol=1e-6)


def test_adagrads_steps_shrink_where_gradients_are_constant():
    """rate / sqrt(1), / sqrt(2), / sqrt(3), ..."""
    parameters, state = np.zeros(1), Adagrad(0.5).state(1, np.dtype(np.float64))
    for step in range(1, 6):
        before = parameters.copy()
        state.apply(parameters, np.array([-20.0]))
        assert parameters - before == pytest.approx(0.5 / np.sqrt(step))


@dtypes
@rules
def test_a_gradient_of_zero_changes_nothing(rule, dtype):
    assert (apply_all(rule, [np.zeros(5, dtype)] * 3, dtype) == 1).all()


@dtypes
@rules
def test_it_does_not_matter_how_parameters_are_cut_into_shards(rule, dtype):
    updates = gradients(7, 29, dtype)
    whole = apply_all(rule, updates, dtype)
    pieces = [
        apply_all(rule, [u[piece] for u in updates], dtype) for piece in (slice(0, 1), slice(1, 18), slice(18, 29))
    ]
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-6)


@dtypes
def test_adagrad_keeps_one_sum_for_every_parameter_in_their_type(dtype):
    state = Adagrad(0.1).state(4, np.dtype(dtype))
    assert state.squares.dtype == dtype and state.squares.tolist() == [0] * 4
    state.apply(np.zeros(4, dtype), np.array([1, 2, 0, -3], dtype))
    assert state.squares.tolist() == [1, 4, 0, 9]


def test_states_of_one_rule_share_nothing():
    rule = Adagrad(0.1)
    first, second = rule.state(2, np.dtype(np.float64)), rule.state(2, np.dtype(np.float64))
    first.apply(np.zeros(2), np.ones(2))
    assert not second.squares.any()


@pytest.mark.parametrize(("rule", "vectors"), [(FixedRate(1.0), 3), (Adagrad(1.0), 5)])
def test_traffic_is_what_an_update_reads_and_writes(rule, vectors):
    """Fixed rate: reads parameters and gradient, writes parameters; Adagrad reads and writes the sums too."""
    assert rule.state(1, np.dtype(np.float32)).traffic == vectors


@pytest.mark.parametrize(
    ("table", "rule"),
    [({"kind": "fixed", "rate": 0.5}, FixedRate(0.5)), ({"kind": "adagrad", "rate": 2}, Adagrad(2.0))],
)
def test_a_table_describes_a_rule_and_back(table, rule):
    assert msgspec.convert(table, Rule) == rule
    assert msgspec.to_builtins(rule) == table


@pytest.mark.parametrize(
    "table",
    [
        {"rate": 0.5},
        {"kind": "adam", "rate": 0.5},
        {"kind": "fixed"},
        {"kind": "fixed", "rate": 0},
        {"kind": "adagrad", "rate": -1.0},
        {"kind": "adagrad", "rate": "0.1"},
        {"kind": "adagrad", "rate": 0.1, "momentum": 0.9},
    ],
)
def test_tables_that_describe_no_rule_are_refused(table):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, Rule)


@rules
def test_descriptions_are_frozen(rule):
    with pytest.raises(AttributeError):
        rule.rate = 1.0


@pytest.mark.parametrize("kind", get_args(Rule))
@dtypes
def test_every_rule_takes_gradients_in_bfloat16_and_keeps_a_shadow(kind, dtype):
    """So no rule is one that bfloat16 on the wire has to be refused for."""
    rule, bits = kind(rate=0.1), np.array([0x3F80, 0xC040, 0x0000, 0x3E20], np.uint16)
    wide = (bits.astype(np.uint32) << 16).view(np.float32).astype(dtype)
    parameters, shadow = np.ones(4, dtype), np.zeros(4, np.uint16)
    rule.state(4, np.dtype(dtype)).apply(parameters, bits, 1.0, shadow)
    np.testing.assert_array_equal(parameters, apply_all(rule, [wide], dtype))
    np.testing.assert_allclose((shadow.astype(np.uint32) << 16).view(np.float32), parameters, rtol=2**-8)
