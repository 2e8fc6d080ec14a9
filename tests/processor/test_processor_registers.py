"""What is said of a BLAS's registers, from what the libraries and the CPU tell."""

import pytest

from distbelief.processor import registers


class Told:
    """A ThreadpoolController of made-up libraries."""

    def __init__(self, libraries):
        self._libraries = libraries

    def select(self, internal_api):
        return Told([each for each in self._libraries if each["internal_api"] == internal_api])

    def info(self):
        return self._libraries


def openblas(architecture, filepath="/site-packages/scipy.libs/libscipy_openblas.so"):
    return {"internal_api": "openblas", "architecture": architecture, "filepath": filepath}


@pytest.mark.parametrize(
    ("libraries", "knows"),
    [
        ([openblas("SkylakeX")], True),
        ([openblas("Haswell")], False),
        ([openblas("Zen")], False),
        ([openblas("a later one")], True),
        ([openblas("Haswell", "/numpy.libs/libopenblas.so"), openblas("Cooperlake")], True),
        ([openblas("Haswell", "/usr/lib/libopenblas.so")], False),
        ([{"internal_api": "blis", "architecture": "zen", "filepath": "/usr/lib/libblis.so"}], True),
        ([], True),
    ],
)
def test_what_scipys_blas_knows(monkeypatch, libraries, knows):
    monkeypatch.setattr(registers, "ThreadpoolController", lambda: Told(libraries))
    assert registers.knows_avx512("scipy") is knows


@pytest.mark.parametrize(("vendor", "knows"), [("GenuineIntel", True), ("AuthenticAMD", False), ("", True)])
def test_what_mkl_knows(monkeypatch, vendor, knows):
    monkeypatch.setattr(registers.cpu, "vendor", lambda: vendor)
    assert registers.knows_avx512("mkl") is knows
