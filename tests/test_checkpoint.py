"""Parameter files, read and written by the safetensors package itself where the truth must not be ours."""

import json
import os

import numpy as np
import pytest
import safetensors.numpy

from distbelief import checkpoint
from distbelief.errors import UserError
from distbelief.nn import Arena, Layout

LAYOUT = Layout({"dense0.w": (4, 3), "dense0.b": (4,), "scalar": ()})


def some_parameters(dtype=np.float32):
    parameters = Arena(LAYOUT, dtype)
    parameters.flat[:] = np.random.default_rng(0).standard_normal(LAYOUT.size)
    return parameters


def refusal(path, layout=LAYOUT):
    """What `load` says; it must be one line that begins with the file."""
    with pytest.raises(UserError) as caught:
        checkpoint.load(path, layout)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_saved_is_loaded(tmp_path, dtype):
    parameters = some_parameters(dtype)
    checkpoint.save(tmp_path / "p", parameters)
    loaded = checkpoint.load(tmp_path / "p", LAYOUT, dtype)
    np.testing.assert_array_equal(loaded.flat, parameters.flat)
    assert loaded.flat.dtype == dtype and loaded.layout is LAYOUT
    assert loaded.flat.flags.writeable


def test_the_path_may_be_a_string(tmp_path):
    checkpoint.save(str(tmp_path / "p"), some_parameters())
    checkpoint.load(str(tmp_path / "p"), LAYOUT)


def test_anybody_can_read_the_file_by_logical_names(tmp_path):
    parameters = some_parameters()
    checkpoint.save(tmp_path / "p", parameters)
    tensors = safetensors.numpy.load_file(tmp_path / "p")
    assert {name: tensor.shape for name, tensor in tensors.items()} == LAYOUT.shapes
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, parameters[name])


def test_the_order_of_tensors_in_the_file_does_not_matter(tmp_path):
    parameters = some_parameters()
    other_order = Arena(Layout({name: LAYOUT.shapes[name] for name in reversed(LAYOUT.shapes)}))
    for name in parameters:
        other_order[name][...] = parameters[name]
    checkpoint.save(tmp_path / "p", other_order)
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "p", LAYOUT).flat, parameters.flat)


@pytest.mark.parametrize(("saved", "wanted"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_other_float_types_are_converted(tmp_path, saved, wanted):
    parameters = some_parameters(saved)
    checkpoint.save(tmp_path / "p", parameters)
    loaded = checkpoint.load(tmp_path / "p", LAYOUT, wanted)
    np.testing.assert_array_equal(loaded.flat, parameters.flat.astype(wanted))
    assert loaded.flat.dtype == wanted


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_are_what_the_umask_makes_of_them(tmp_path, umask):
    before = os.umask(umask)
    try:
        checkpoint.save(tmp_path / "p", some_parameters())
    finally:
        os.umask(before)
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o666 & ~umask


def write_half(tensors, path):
    path.write_bytes(b"half a file")
    raise OSError("no space left on device")


def refuse_to_replace(partial, path):
    raise OSError("stale file handle")


@pytest.mark.parametrize(
    ("module", "name", "failing"), [(safetensors.numpy, "save_file", write_half), (os, "replace", refuse_to_replace)]
)
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, module, name, failing):
    checkpoint.save(tmp_path / "p", some_parameters())
    old = (tmp_path / "p").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(UserError, match="p: cannot be written: "):
        patch.setattr(module, name, failing)
        checkpoint.save(tmp_path / "p", Arena(LAYOUT))
    assert (tmp_path / "p").read_bytes() == old
    assert os.listdir(tmp_path) == ["p"]


def test_a_save_replaces_an_older_file_and_the_remains_of_a_killed_one(tmp_path):
    (tmp_path / ".p.partial").write_bytes(b"remains")
    checkpoint.save(tmp_path / "p", Arena(LAYOUT))
    parameters = some_parameters()
    checkpoint.save(tmp_path / "p", parameters)
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "p", LAYOUT).flat, parameters.flat)
    assert os.listdir(tmp_path) == ["p"]


def test_a_file_that_is_missing(tmp_path):
    assert "no such file" in refusal(tmp_path / "p")


def test_a_folder_is_no_file(tmp_path):
    refusal(tmp_path)


def test_files_cut_short_at_any_length(tmp_path):
    checkpoint.save(tmp_path / "p", some_parameters())
    whole = (tmp_path / "p").read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        (tmp_path / "p").write_bytes(whole[:length])
        assert "not a readable safetensors file" in refusal(tmp_path / "p")


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "p").write_text("these are not the parameters you are looking for")
    assert "not a readable safetensors file" in refusal(tmp_path / "p")


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ({"dense0.w": (3, 4)}, "tensor dense0.w has shape (4, 3), the network expects (3, 4)"),
        ({"dense0.w": (12,)}, "tensor dense0.w has shape (4, 3), the network expects (12,)"),
        ({"dense1.b": (2,)}, "tensor dense1.b has shape none, the network expects (2,)"),
        ({"dense0.b": None}, "tensor dense0.b has shape (4,), the network expects none"),
    ],
)
def test_tensors_of_another_network(tmp_path, shapes, text):
    checkpoint.save(tmp_path / "p", some_parameters())
    other = {name: shape for name, shape in (LAYOUT.shapes | shapes).items() if shape is not None}
    assert text in refusal(tmp_path / "p", Layout(other))


def test_tensors_of_types_that_numpy_does_not_have(tmp_path):
    header = json.dumps({"scalar": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "p").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    refusal(tmp_path / "p", Layout({"scalar": ()}))


def test_a_file_written_in_pieces_is_read_as_any_other(tmp_path):
    layout = Layout({"a.w": (5, 7), "a.b": (5,), "nothing": (0, 3), "c.w": (2, 3, 4)})
    values = np.random.default_rng(0).standard_normal(layout.size)
    for dtype in (np.float32, np.float64):
        path = tmp_path / f"{np.dtype(dtype).name}.safetensors"
        writer = checkpoint.Writer(path, layout, dtype)
        for turn in (1, 2):  # the second takes the place of the first
            writer.begin()
            for start in (40, 0, 20):  # in any order
                writer.add(start, (turn * values[start : start + 20]).astype(dtype))
            writer.add(60, (turn * values[60:]).astype(dtype))
            writer.end()
        np.testing.assert_array_equal(checkpoint.load(path, layout, dtype).flat, (2 * values).astype(dtype))
        assert [file.name for file in tmp_path.glob(".*")] == []


def test_until_its_end_the_file_before_stays(tmp_path):
    layout = Layout({"w": (4,)})
    path = tmp_path / "parameters.safetensors"
    checkpoint.save(path, Arena(layout, flat=np.ones(4, np.float32)))
    writer = checkpoint.Writer(path, layout, np.float32)
    writer.begin()
    writer.add(0, np.zeros(2, np.float32))
    assert checkpoint.load(path, layout)["w"].tolist() == [1, 1, 1, 1]


def test_a_file_that_cannot_be_written_in_pieces_is_named(tmp_path):
    path = tmp_path / "missing" / "parameters.safetensors"
    with pytest.raises(UserError, match="missing/parameters.safetensors: cannot be written"):
        checkpoint.Writer(path, Layout({"w": (4,)}), np.float32).begin()
