"""What can be wrong with a checkpoint, each told in one sentence with the remedy, before any training."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import httpx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import vision_checkpoints
from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.models import nano_tokenizer
from ntil.models.causal_lm import CausalLM
from ntil.models.pretrained import CheckpointError, reading
from ntil.preflight import compose_checked
from tests.support.families import VISION_NANO


@pytest.fixture
def folder(tmp_path):
    """Config and tokenizer of a nano model; nothing here needs weights."""
    nano_tokenizer.load().save_pretrained(tmp_path)
    AutoConfig.for_model("qwen2", vocab_size=512, hidden_size=32, num_attention_heads=2).save_pretrained(tmp_path)
    return tmp_path


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_folder_itself_is_fine(folder):
    assert CausalLM(str(folder)).encode("1 + 1 =", "2", None).answer_ids[-1] == 2


def test_no_such_folder(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such folder; give an existing one or a hub name"):
        CausalLM(str(tmp_path / "nowhere"))


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        CausalLM(str(tmp_path))


def test_a_folder_without_a_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        CausalLM(str(folder))


def test_a_folder_without_weights(folder):
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        CausalLM(str(folder)).load()


class Malicious:
    """What runs when its pickle is read."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_pickled_weights_are_read_when_asked_for_alone_and_never_run(folder, tmp_path_factory):
    trace = tmp_path_factory.mktemp("ran") / "code"
    model = AutoModelForCausalLM.from_config(CausalLM(str(folder)).config)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has no safetensors; .* set model\.allow_pickle=true"):
        CausalLM(str(folder)).load()
    loaded = CausalLM(str(folder), allow_pickle=True).load()
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in model.state_dict().items())
    torch.save({**model.state_dict(), "more": Malicious(trace)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="its weights are damaged"):
        CausalLM(str(folder), allow_pickle=True).load()
    assert not trace.exists()


def test_an_embedding_smaller_than_the_tokenizer(folder):
    change(folder / "config.json", vocab_size=500)
    with pytest.raises(CheckpointError, match="the tokenizer has 512 ids, the embedding 500 rows; take the tokenizer"):
        CausalLM(str(folder))


def test_an_architecture_of_another_kind(folder):
    AutoConfig.for_model("clip").save_pretrained(folder)
    with pytest.raises(CheckpointError, match="is a 'clip', no causal text model"):
        CausalLM(str(folder))


def test_no_chat_template(folder):
    with pytest.raises(CheckpointError, match=r"has no chat template; set model\.template"):
        CausalLM(str(folder), template=None)


def test_a_template_without_a_place_for_the_prompt(folder):
    with pytest.raises(ValueError, match=r"has no \{prompt\}"):
        CausalLM(str(folder), template="Question:\nAnswer:")


@pytest.mark.parametrize("model", VISION_NANO)
def test_what_a_model_from_scratch_is_made_of_must_be_given(model):
    config = compose_checked([f"model={model}"])
    options = {**config.model.options, "patch_size": None, "language": None}
    with pytest.raises(ConfigError, match=r"so model\.patch_size and model\.language must be given"):
        Components.build(replace(config, model=replace(config.model, options=options)))


def test_the_hub_out_of_reach(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="not in the local cache, and the hub can't be reached; download it"):
        CausalLM("nobody/no-such-model")


@pytest.mark.parametrize(
    ("cause", "told"),
    [(GatedRepoError, "is gated; accept its licence"), (RepositoryNotFoundError, "no such model on the hub")],
)
def test_what_the_hub_refuses(cause, told):
    response = httpx.Response(401, request=httpx.Request("GET", "https://hub.invalid/x"))

    def refuse():
        try:
            raise cause("no", response=response)
        except cause as error:
            raise OSError("You are trying to access a repo") from error

    with pytest.raises(CheckpointError, match=f"owner/name: .*{told}"), reading("owner/name"):
        refuse()


@pytest.mark.slow
def test_pictures_for_a_text_model_are_refused_before_training(tmp_path):
    words = ["train", "model=qwen25_nano", "task=clock", "engine=local", "tracker=none", "curriculum=none"]
    words += ["task.source.rows={train:4,validation:2,test:2}", "optim.steps=2", f"runs={tmp_path}"]
    environment = {**os.environ, "NTIL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "ntil.cli", *words], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the model reads text only, and the row has a picture; take a model with a vision part" in done.stderr
    assert not list(tmp_path.glob("**/history.jsonl"))
    assert not list(tmp_path.glob("**/checkpoints"))


@pytest.mark.parametrize("model", [*vision_checkpoints.NAMES, "baichuan2_7b"])
def test_every_family_tells_what_its_checkpoint_lacks(tmp_path, model):
    for folder, told in ((tmp_path / "nowhere", "no such folder"), (tmp_path, r"holds no config\.json")):
        with pytest.raises(CheckpointError, match=told):
            Components.build(compose([f"model={model}", f"model.checkpoint={folder}", "loss=ntil"]))


def test_an_adapter_alone_names_the_command_that_merges_it(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    for act in (
        lambda: compose_checked([f"model.checkpoint={tmp_path}", "task=clock"]),
        lambda: reading(tmp_path).__enter__(),
    ):
        with pytest.raises(CheckpointError, match=r"LoRA adapter, no whole model; merge it .*ntil export run="):
            act()
