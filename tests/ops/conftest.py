import pytest
from helpers.atss_cases import COMPILED

from negvision.ops import fallback


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", ["compiled", "fallback"], indirect=True)


@pytest.fixture
def path(request, monkeypatch):
    """Run the test with the compiled kernels and with plain PyTorch."""
    if request.param == "compiled":
        if not COMPILED:
            pytest.skip("the extension is not built")
    else:
        for module in ("_assignment", "boxes", "negatives", "pixels"):
            monkeypatch.setattr(f"negvision.ops.{module}.is_compiled_for", lambda device: False)
    return fallback if request.param == "fallback" else None
