"""The configuration decides, not what another library finds in the environment."""

from ntil.runs import environment as environment_module
from ntil.runs import variables
from ntil.runs.environment import environment


def test_variables_that_would_change_a_run_are_left_out_and_recorded(monkeypatch):
    monkeypatch.setattr(variables, "_removed", {})
    foreign = {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_OFFLOAD_PARAMS": "true",
        "NVIDIA_TF32_OVERRIDE": "1",
    }
    for name, value in {**foreign, "CUDA_VISIBLE_DEVICES": "0"}.items():
        monkeypatch.setenv(name, value)
    variables.remove_foreign_variables()
    assert environment()["removed_variables"] == foreign
    assert not {*foreign} & {*variables.os.environ}
    assert variables.os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_of_a_package_that_is_there_twice_the_imported_version_is_recorded(monkeypatch):
    # As where a folder of PYTHONPATH stands before the environment's own packages.
    class Installed:
        def __init__(self, version):
            self.metadata, self.version = {"Name": "torch"}, version

    monkeypatch.setattr(environment_module, "distributions", lambda: iter([Installed("2.13.0"), Installed("2.11.0")]))
    assert environment()["packages"] == {"torch": "2.13.0"}
