import pytest


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("NTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
