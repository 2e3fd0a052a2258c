"""What `ntil export merge=false` prints loads the adapters, also those on a model from scratch."""

import torch
import transformers
from peft import PeftModel

from ntil.commands.export import main
from ntil.components import Components
from ntil.models.saving import load_saved
from tests.support.in_process import frozen, perform


def test_adapters_on_a_model_from_scratch_load_as_printed(tmp_path, capsys):
    run = frozen(tmp_path / "runs", "tuning=lora", "optim.steps=2", "optim.lr=0.1", "optim.warmup=0", "loss=ce")
    perform(run)
    target = tmp_path / "exported"
    capsys.readouterr()
    assert main([f"run={run.path}", f"to={target}", "merge=false"]) == 0
    call = capsys.readouterr().out.strip().partition(": load it with ")[2]
    loaded = eval(call, {"PeftModel": PeftModel, "Qwen2ForCausalLM": transformers.Qwen2ForCausalLM}).eval()
    trained = load_saved(Components.build(run.config()).family, run.model).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, trained(input_ids=ids).logits)
