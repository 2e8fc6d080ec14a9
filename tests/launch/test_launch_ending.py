"""How a program ends: the codes that it ends with."""

import atexit
import platform

import numpy as np
import pytest

from distbelief.errors import UserError
from distbelief.launch import ending
from distbelief.nn.arena import aligned


@pytest.mark.parametrize(("error", "code"), [(None, 0), (UserError("the disk is full"), 2)])
def test_ranks_that_are_ended_at_exit_end_with_the_programs_code(monkeypatch, capsys, error, code):
    """Also where it is MPI's abort that ends the program: a run that failed is no success."""
    handlers, codes = [], []
    monkeypatch.setattr(atexit, "register", handlers.append)
    monkeypatch.setattr(ending, "abort", codes.append)
    monkeypatch.setattr(ending, "ABORT_SECONDS", 0.0)
    monkeypatch.setattr(ending, "_code", 0)
    ending.abort_at_exit()
    if error is not None:
        assert ending.end(error, alone=True) == code
        assert capsys.readouterr().err == "distbelief: error: the disk is full\n"
    handlers[0]()
    assert codes == [code]


def test_what_there_is_no_memory_for_is_told_in_a_line(capsys):
    try:
        np.ones(1 << 60, np.uint8)
    except MemoryError as error:
        assert ending.end(error) == 2
    said = capsys.readouterr().err
    try:
        aligned(1 << 61, np.float32)
    except MemoryError as error:
        assert ending.end(error) == 2
    assert "not enough memory: too much at once (aligned in arena.py, line " in capsys.readouterr().err
    assert said.startswith(f"distbelief: error: {platform.node()} has not enough memory: Unable to allocate 1.00 EiB")
    assert "(ones in numeric.py, line " in said and said.count("\n") == 1
