"""In-place build for developers: `python setup.py build_ext --inplace`.

Everything is derived by rule from the two trees: pyx/a/b.pyx becomes the extension a.b beside src/a.
Packages are built and installed by meson (meson.build); a test checks that both build the same modules.
"""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
PYX = ROOT / "pyx"
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp"]


def extensions() -> list[Extension]:
    """One extension for every .pyx, named by its path below pyx/."""
    return [
        Extension(
            ".".join(path.relative_to(PYX).with_suffix("").parts),
            [str(path.relative_to(ROOT))],
            include_dirs=["pyx"],
            depends=[str(header.relative_to(ROOT)) for header in PYX.rglob("*.h")],
            extra_compile_args=FLAGS,
            extra_link_args=["-fopenmp"],
        )
        for path in sorted(PYX.rglob("*.pyx"))
    ]


setup(
    name="distbelief",
    package_dir={"": "src"},
    packages=find_packages("src"),
    ext_modules=cythonize(extensions(), include_path=["pyx"], build_dir="build/cython", language_level=3),
)
