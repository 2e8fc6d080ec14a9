"""A file with a small configuration."""

import pytest
import tomli_w
from config.small import SMALL


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(tomli_w.dumps(SMALL))
    return path
