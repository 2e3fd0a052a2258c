"""Every full-scale config: what is wrong with its checkpoint is one sentence with the remedy, never a random weight."""

import json
import shutil

import httpx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers.utils import hub

from ntil.config.build import build
from ntil.config.compose import CONF
from ntil.config.errors import ConfigError
from ntil.models.pretrained import CheckpointError
from ntil.preflight import compose_checked
from tests.support.tiny_checkpoints import words

ELSEWHERE = ("checkpoint: null", "checkpoint: package:")
FULL = sorted(p.stem for p in (CONF / "model").glob("*.yaml") if not any(e in p.read_text() for e in ELSEWHERE))


def family(*overrides: str):
    # Without what a training here would look for, so that the family itself meets the checkpoint.
    return build("model", compose_checked([*overrides, "task=clock"], on_this_machine=False).model)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    for module in (constants, hub.constants if hasattr(hub, "constants") else constants):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_all_of_the_paper_are_here():
    assert len(FULL) >= 11


@pytest.mark.parametrize("name", FULL)
def test_the_hub_out_of_reach(name, empty_cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError) as caught:
        family(f"model={name}")
    assert str(caught.value).startswith("model.checkpoint=")
    assert "not in the local cache, and the hub can't be reached; download it first" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize(
    ("cause", "told"),
    [(GatedRepoError, "is gated; accept its licence"), (RepositoryNotFoundError, "no such model on the hub")],
)
def test_what_the_hub_refuses(name, cause, told, empty_cache, monkeypatch):
    def refuse(*args, **kwargs):
        raise cause("no", response=httpx.Response(401, request=httpx.Request("GET", "https://hub.invalid/x")))

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(CheckpointError, match=told):
        family(f"model={name}")


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A tiny checkpoint in the release's layout, to break."""
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint.folder, folder)
    return checkpoint._replace(folder=folder)


def test_no_such_folder_and_a_folder_without_a_model(copy):
    (copy.folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no config\.json; give the folder that has one"):
        family(*words(copy))
    shutil.rmtree(copy.folder)
    with pytest.raises(CheckpointError, match="no such folder; give an existing one or a hub name"):
        family(*words(copy))


def test_another_family(copy):
    (copy.folder / "config.json").write_text(json.dumps({"model_type": "mistral", "vocab_size": 64}))
    with pytest.raises(CheckpointError, match=r"is a 'mistral', not|isn't Yi-VL's"):
        family(*words(copy))


def test_fewer_embeddings_than_ids(copy):
    file = copy.folder / "config.json"
    config = json.loads(file.read_text())
    (config["text_config"] if "vocab_size" in config.get("text_config", {}) else config)["vocab_size"] = 300
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="ids, the embedding 300 rows; take the tokenizer files that belong"):
        family(*words(copy))


def weights(folder):
    found = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
def test_no_weights(copy):
    built = family(*words(copy))
    weights(copy.folder).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        built.load()


@pytest.mark.slow
def test_a_missing_weight_is_never_drawn_at_random(copy):
    built, file = family(*words(copy)), weights(copy.folder)
    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    gone = next(k for k in sorted(state) if "layers.1" in k and "vision" not in k and "visual" not in k)
    del state[gone]
    (save_file(state, file, {"format": "pt"}) if file.suffix == ".safetensors" else torch.save(state, file))
    with pytest.raises(CheckpointError, match=r"1 weight of \w+ is missing .*layers\.1.*layout of the release"):
        built.load()


@pytest.mark.slow
def test_weights_of_another_size(copy):
    built, file = family(*words(copy)), weights(copy.folder)
    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    norm = next(k for k in sorted(state) if "layernorm" in k and "vision" not in k)
    state[norm] = torch.zeros(5)
    (save_file(state, file, {"format": "pt"}) if file.suffix == ".safetensors" else torch.save(state, file))
    with pytest.raises(CheckpointError, match=r"other sizes than its config\.json says; take both from the same"):
        built.load()


@pytest.mark.slow
def test_damaged_weights(copy):
    built, file = family(*words(copy)), weights(copy.folder)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="its weights are damaged; download them again"):
        built.load()
