"""Where tests find the shared assets: real tokenizers, golden values, photographs. They skip, saying why, without."""

import os
from pathlib import Path

import pytest

# Absolute, for tests that link to it from another folder.
SHARED = Path(os.environ.get("NTIL_SHARED", Path(__file__).parents[2] / "shared")).resolve()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"shared assets not found at {SHARED}; set NTIL_SHARED to their folder")
    return SHARED
