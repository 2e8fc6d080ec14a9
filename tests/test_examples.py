"""What is shown to users works: the examples, and the configuration that the README explains."""

import re
from pathlib import Path

import pytest

from distbelief import config

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
README = ROOT / "README.md"
needs_readme = pytest.mark.skipif(not README.exists(), reason="no README here")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_loads(path):
    config.load(path)


def test_there_are_examples():
    assert "fashion_mnist.toml" in [path.name for path in EXAMPLES]


@pytest.fixture
def explained(tmp_path) -> Path:
    """The configuration in the README, as a file."""
    blocks = re.findall(r"^```toml\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    path = tmp_path / "readme.toml"
    path.write_text(blocks[0])
    return path


@needs_readme
def test_the_readme_explains_the_example(explained, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert config.load(explained) == config.load(ROOT / "examples" / "fashion_mnist.toml")


@needs_readme
def test_what_the_readme_sets_can_be_set(explained):
    settings = re.findall(r"--set[ =]([\w.]+=[\w.\"]+)", README.read_text())
    assert settings
    config.load(explained, settings)
