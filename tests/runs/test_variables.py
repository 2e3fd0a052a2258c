"""The configuration decides, not what another library finds in the environment."""

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
