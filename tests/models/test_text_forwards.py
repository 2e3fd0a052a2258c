"""Baichuan2 and MiniCPM3 against forwards written here in plain torch from the authors' descriptions."""

import json
import math

import pytest
import sentencepiece
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from benchmarks import text_checkpoints
from ntil.models.baichuan2 import Baichuan2, save_original
from ntil.models.minicpm3 import MiniCPM3
from ntil.models.pretrained import CheckpointError, tokenizer_as_shipped

IDS = torch.tensor([[5, 17, 301, 44, 2, 90, 8, 1000, 77, 123, 6]])


def norm(x, weight, eps):
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def rotate(x, factors=None):
    """Rotary positions on [heads, T, D]: dimension d turns with d + D/2, at 10000 ** (-2d / D)."""
    half = x.shape[-1] // 2
    speed = 10000.0 ** (-torch.arange(half).double() / half) / (1 if factors is None else torch.tensor(factors))
    angle = torch.arange(x.shape[1]).double()[:, None] * speed
    one, two = x[..., :half], x[..., half:]
    cos, sin = angle.cos().float(), angle.sin().float()
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


def attend(q, k, v):
    """Causal attention of [heads, T, D] -> [T, heads * Dv]."""
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    hidden_future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(hidden_future, -torch.inf).softmax(-1) @ v
    return mixed.transpose(0, 1).flatten(1)


def heads(x, count):
    return x.view(len(x), count, -1).transpose(0, 1)


def mlp(x, w, start):
    gate, up, down = (w[f"{start}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def baichuan2(w, ids):
    """[T] -> [T, V]: Llama with W_pack and the head's rows normalised."""
    h = w["model.embed_tokens.weight"][ids]
    for i in range(2):
        start = f"model.layers.{i}"
        x = norm(h, w[f"{start}.input_layernorm.weight"], 1e-6)
        q, k, v = (heads(part, 4) for part in (x @ w[f"{start}.self_attn.W_pack.weight"].T).chunk(3, dim=-1))
        h = h + attend(rotate(q), rotate(k), v) @ w[f"{start}.self_attn.o_proj.weight"].T
        h = h + mlp(norm(h, w[f"{start}.post_attention_layernorm.weight"], 1e-6), w, start)
    head = w["lm_head.weight"]
    return norm(h, w["model.norm.weight"], 1e-6) @ (head / head.pow(2).sum(1, keepdim=True).sqrt()).T


def minicpm3(w, ids, c):
    """[T] -> [T, V]: latent attention; embeddings, branches and logits scaled."""
    depth = c["scale_depth"] / math.sqrt(c["num_hidden_layers"])
    nope, rope, rank, count = (
        c[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "kv_lora_rank", "num_attention_heads")
    )
    factors, eps = c["rope_scaling"]["short_factor"], c["rms_norm_eps"]
    h = w["model.embed_tokens.weight"][ids] * c["scale_emb"]
    for i in range(c["num_hidden_layers"]):
        start = f"model.layers.{i}"
        a = {k.removeprefix(f"{start}.self_attn.").removesuffix(".weight"): v for k, v in w.items() if "self_attn" in k}
        x = norm(h, w[f"{start}.input_layernorm.weight"], eps)
        q = heads(norm(x @ a["q_a_proj"].T, a["q_a_layernorm"], 1e-6) @ a["q_b_proj"].T, count)
        latent, k_rope = (x @ a["kv_a_proj_with_mqa"].T).split([rank, rope], dim=-1)
        kv = heads(norm(latent, a["kv_a_layernorm"], 1e-6) @ a["kv_b_proj"].T, count)
        k = torch.cat([kv[..., :nope], rotate(k_rope[None], factors).expand(count, -1, -1)], -1)
        q = torch.cat([q[..., :nope], rotate(q[..., nope:], factors)], -1)
        h = h + depth * (attend(q, k, kv[..., nope:]) @ a["o_proj"].T)
        h = h + depth * mlp(norm(h, w[f"{start}.post_attention_layernorm.weight"], eps), w, start)
    h = norm(h, w["model.norm.weight"], eps) / (c["hidden_size"] / c["dim_model_base"])
    return h @ w["model.embed_tokens.weight"].T


def tokenizer_beside(folder, shared, name):
    text_checkpoints.copy_tokenizer(name, shared, folder)
    return folder


@pytest.fixture
def original(tmp_path, shared):
    torch.manual_seed(1)
    weights = text_checkpoints.write_baichuan2(tmp_path)
    return weights, tokenizer_beside(tmp_path, shared, "baichuan2")


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.mark.parametrize("file", ["bin", "safetensors"])
def test_baichuan2_from_its_own_layout(tmp_path, shared, file):
    torch.manual_seed(1)
    weights = text_checkpoints.write_baichuan2(tmp_path, file=file)
    family = Baichuan2(str(tokenizer_beside(tmp_path, shared, "baichuan2")), allow_pickle=file == "bin")
    expected = baichuan2(weights, IDS[0])
    torch.testing.assert_close(logits(family.load())[0], expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1
    # The check can fail: the head as it lies in the file is something else.
    plain = dict(weights) | {"lm_head.weight": 2 * weights["lm_head.weight"]}
    torch.testing.assert_close(baichuan2(plain, IDS[0]), expected, atol=1e-5, rtol=0)


def test_baichuan2_trains_and_comes_back_in_both_layouts(tmp_path, original):
    weights, folder = original
    family = Baichuan2(str(folder), allow_pickle=True)
    model = family.load()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(IDS, labels=IDS).loss.backward()
    optimizer.step()
    trained = logits(model)
    assert (trained[0] - baichuan2(weights, IDS[0])).abs().max() > 1e-2
    rows = model.get_output_embeddings().weight.norm(dim=1)
    assert (rows - rows.mean()).abs().max() > 1e-3  # the head is free to move while it trains

    head = model.get_output_embeddings().weight.detach().clone()
    family.save(model, tmp_path / "llama")
    assert torch.equal(model.get_output_embeddings().weight, head)  # a training that goes on isn't another one
    saved = json.loads((tmp_path / "llama/config.json").read_text())
    assert (saved["model_type"], saved["architectures"]) == ("llama", ["LlamaForCausalLM"])
    torch.testing.assert_close(logits(family.load(tmp_path / "llama")), trained, atol=1e-5, rtol=0)
    anybody = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float32)
    assert type(anybody).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(logits(anybody), trained, atol=1e-5, rtol=0)
    again = Baichuan2(str(tmp_path / "llama"))
    assert again.encode("1 + 2 =", "3", None) == family.encode("1 + 2 =", "3", None)

    save_original(model, tmp_path / "original")
    kept = text_checkpoints.read(tmp_path / "original")
    assert kept.keys() == weights.keys()
    torch.testing.assert_close(baichuan2(kept, IDS[0]), trained[0], atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "original/config.json").read_text())["model_type"] == "baichuan"


def test_baichuan2_refuses_what_is_not_its_layout(original):
    _, folder = original
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["max_position_embeddings"]
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"ALiBi.*only Baichuan2-7B"):
        Baichuan2(str(folder))
    file.write_text(json.dumps(config | {"model_type": "qwen2"}))
    with pytest.raises(CheckpointError, match="'qwen2', not Baichuan2"):
        Baichuan2(str(folder))


def test_minicpm3_from_its_own_layout(tmp_path, shared):
    torch.manual_seed(2)
    config = json.loads((shared / "assets/tokenizers/minicpm3/config.json").read_text())
    weights = text_checkpoints.write_minicpm3(tmp_path, config)
    family = MiniCPM3(str(tokenizer_beside(tmp_path, shared, "minicpm3")), template=None, allow_pickle=True)
    expected = minicpm3(weights, IDS[0], config)
    torch.testing.assert_close(logits(family.load())[0], expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1


@pytest.mark.parametrize("name", ["llama2", "minicpm3"])
def test_a_sentencepiece_model_alone_gives_a_working_tokenizer(tmp_path, shared, name):
    """Baichuan2's repository has tokenizer.model and remote code only. Of these two files one adds a first blank."""
    source = shared / "assets/tokenizers"
    (tmp_path / "tokenizer.model").write_bytes((source / name / "tokenizer.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_bytes((source / "baichuan2/tokenizer_config.json").read_bytes())
    (tmp_path / "config.json").write_text("{}")
    tokenizer = tokenizer_as_shipped(str(tmp_path))
    own = sentencepiece.SentencePieceProcessor(model_file=str(source / name / "tokenizer.model"))
    golden = shared / "assets/tokenizer_golden/llama_cpp_vocab_tests/ggml-vocab-llama-spm.gguf.inp"
    texts = [*golden.read_text().split("\n__ggml_vocab_test__\n"), "Question: -1024.5 + 7 =\nAnswer:"]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == own.encode(text), text
        assert tokenizer.decode(ids) == text
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("</s>", "<unk>")
    assert tokenizer("12</s>", add_special_tokens=False).input_ids[-1] == own.eos_id()
