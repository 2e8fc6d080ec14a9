import numpy as np
import pytest

from distbelief.nn import Arena, Layout

SHAPES = {"a.w": (2, 3), "a.b": (2,), "filters": (1, 2, 2, 3), "scalar": ()}


def test_a_layout_is_the_concatenation_of_its_tensors():
    layout = Layout(SHAPES)
    assert [tuple(tensor) for tensor in layout.tensors] == [
        ("a.w", (2, 3), 0, 6),
        ("a.b", (2,), 6, 8),
        ("filters", (1, 2, 2, 3), 8, 20),
        ("scalar", (), 20, 21),
    ]
    assert layout.size == 21 and layout.shapes == SHAPES


def test_an_empty_layout_has_an_empty_arena():
    arena = Arena(Layout({}))
    assert arena.flat.shape == (0,) and list(arena) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_arena_begins_with_zeros(dtype):
    arena = Arena(Layout(SHAPES), dtype)
    assert arena.flat.dtype == dtype and arena.flat.shape == (21,) and not arena.flat.any()
    assert list(arena) == list(SHAPES)


def test_views_and_flat_vector_are_one_memory_in_c_order():
    arena = Arena(Layout(SHAPES))
    arena.flat[:] = np.arange(21)
    for name, shape in SHAPES.items():
        assert arena[name].shape == shape and np.shares_memory(arena[name], arena.flat), name
        assert arena[name].flags.c_contiguous
    assert arena["a.w"].tolist() == [[0, 1, 2], [3, 4, 5]] and arena["a.b"].tolist() == [6, 7]
    arena["a.w"][1, 2] = -1
    arena["scalar"][...] = -2
    assert arena.flat[5] == -1 and arena.flat[20] == -2


def test_an_arena_may_lie_over_memory_of_others():
    window = np.zeros(30)
    arena = Arena(Layout(SHAPES), flat=window[4:25])
    arena["a.b"][:] = 8
    assert np.flatnonzero(window).tolist() == [10, 11]


@pytest.mark.parametrize("shape", [(20,), (22,), (21, 1)])
def test_memory_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=r"has shape \(2.*the layout needs \(21,\)"):
        Arena(Layout(SHAPES), flat=np.zeros(shape))


def test_a_tensor_can_be_set():
    arena = Arena(Layout(SHAPES))
    arena["a.b"] = [1.0, 2.0]
    arena["a.b"] += 1
    arena["scalar"] = 7
    assert arena.flat[6:8].tolist() == [2, 3] and arena.flat[20] == 7 and arena["a.b"].base is not None


@pytest.mark.parametrize("value", [1.0, np.ones(1), np.ones((2, 1)), np.ones(3)], ids=np.shape)
def test_a_tensor_is_not_set_to_another_shape(value):
    with pytest.raises(ValueError, match=r"for tensor a\.b of shape \(2,\)"):
        Arena(Layout(SHAPES))["a.b"] = value


def test_a_tensor_is_not_set_to_complex_numbers():
    with pytest.raises(TypeError, match="Cannot cast"):
        Arena(Layout(SHAPES))["a.b"] = np.ones(2, complex)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_an_arena_begins_a_line_of_the_cache_and_is_zero(dtype):
    for size in (1, 15, 4000, 300_000):
        flat = Arena(Layout({"a": (size,)}), dtype).flat
        assert flat.ctypes.data % 64 == 0 and flat.shape == (size,) and flat.dtype == dtype and not flat.any()
