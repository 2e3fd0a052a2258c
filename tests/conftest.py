"""Where tests find the shared assets: real tokenizers, golden values, photographs. They skip, saying why, without."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Absolute, for tests that link to it from another folder.
SHARED = Path(os.environ.get("NTIL_SHARED", Path(__file__).parents[2] / "shared")).resolve()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"shared assets not found at {SHARED}; set NTIL_SHARED to their folder")
    return SHARED


@pytest.fixture(autouse=True, scope="module")
def forget_tokenizers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Empty the caches that hold tokenizers: a real one takes some hundred MB, and a process runs all modules."""
    yield
    modules = [request.module, *(sys.modules.get(f"ntil.models.{name}") for name in ("base", "causal_lm"))]
    caches = [
        value
        for module in modules
        if module
        for value in vars(module).values()
        if hasattr(value, "cache_info") and value.__module__ == module.__name__
    ]
    if any(cache.cache_info().currsize for cache in caches):
        for cache in caches:
            cache.cache_clear()
        gc.collect()
