"""Yi-VL's own layout against a forward written here in plain torch from the release's names alone."""

import json
import math

import pytest
import torch

from benchmarks.vision_checkpoints import YI_TOWER
from ntil.components import Components
from ntil.preflight import compose_checked
from tests.support.tiny_checkpoints import ask, words, written

F = torch.nn.functional
HEADS, EPS, THETA, PATCH = 2, 1e-5, 5e6, 14


def norm(x, w, name):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(0, 1)  # [T, D] -> [heads, T, D / heads]


def attend(q, k, v, mask=0.0):
    weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + mask).softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1)


def clip(pixels, w):
    """[3, S, S] -> [patches, D]: the output of the last layer but one, without the class token."""
    w = {k.removeprefix("vision_model."): v for k, v in w.items()}
    kernel = w["embeddings.patch_embedding.weight"].flatten(1)
    patches = pixels.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    x = torch.cat([w["embeddings.class_embedding"][None], patches @ kernel.T])
    x = norm(x + w["embeddings.position_embedding.weight"], w, "pre_layrnorm")
    for i in range(2):  # of three
        at = f"encoder.layers.{i}"
        y = norm(x, w, f"{at}.layer_norm1")
        q, k, v = (heads(linear(y, w, f"{at}.self_attn.{n}_proj"), HEADS) for n in "qkv")
        x = x + linear(attend(q, k, v), w, f"{at}.self_attn.out_proj")
        y = F.gelu(linear(norm(x, w, f"{at}.layer_norm2"), w, f"{at}.mlp.fc1"))
        x = x + linear(y, w, f"{at}.mlp.fc2")
    return x[1:]


def projected(x, w):
    x = norm(linear(x, w, "model.mm_projector.0"), w, "model.mm_projector.1")
    return norm(linear(F.gelu(x), w, "model.mm_projector.3"), w, "model.mm_projector.4")


def rms(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rotate(x):
    """[heads, T, D], the halves as the two coordinates that turn."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1])[:, None] * THETA ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def yi(x, w):
    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)
    for i in range(2):
        at = f"model.layers.{i}"
        y = rms(x, w[f"{at}.input_layernorm.weight"])
        q = heads(linear(y, w, f"{at}.self_attn.q_proj"), HEADS)
        k, v = (heads(linear(y, w, f"{at}.self_attn.{n}_proj"), 1).expand(HEADS, -1, -1) for n in "kv")
        x = x + linear(attend(rotate(q), rotate(k), v, mask), w, f"{at}.self_attn.o_proj")
        y = rms(x, w[f"{at}.post_attention_layernorm.weight"])
        gated = F.silu(linear(y, w, f"{at}.mlp.gate_proj")) * linear(y, w, f"{at}.mlp.up_proj")
        x = x + linear(gated, w, f"{at}.mlp.down_proj")
    return linear(rms(x, w["model.norm.weight"]), w, "lm_head")


@pytest.mark.slow
def test_the_converted_checkpoint_gives_the_logits_of_a_plain_forward(shared, tmp_path_factory):
    checkpoint = written("yi_vl_6b", shared, tmp_path_factory)
    family = Components.build(compose_checked(words(checkpoint, "task=clock", "tracker=none"))).family
    model = family.load().eval()
    weights = torch.load(checkpoint.folder / "pytorch_model.bin", weights_only=True)
    tower = torch.load(checkpoint.folder / YI_TOWER / "pytorch_model.bin", weights_only=True)
    # Weights of a size that tells: at 0.02 a wrong layer would hardly show.
    with torch.no_grad():
        for name, parameter in model.model.vision_tower.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
                tower[f"vision_model.{name}"] *= 5
    for row in ask(["12:45", "7"], (80, 56)):
        encoded = family.encode(row["prompt"], row["answer"], row["image"])
        ids = torch.tensor(encoded.prompt_ids + encoded.answer_ids)
        with torch.no_grad():
            ours = model(input_ids=ids[None], **encoded.features).logits[0]
        image = ids == family.config.image_token_id
        embedded = weights["model.embed_tokens.weight"][ids].clone()
        embedded[image] = projected(clip(encoded.features["pixel_values"][0], tower), weights)
        theirs = yi(embedded, weights)
        assert theirs.std() > 0.2
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
        # The picture counts: another one gives other logits.
        with torch.no_grad():
            other = model(input_ids=ids[None], pixel_values=-encoded.features["pixel_values"]).logits[0]
        assert (other[-1] - ours[-1]).abs().max() > 1e-2


def test_a_tower_outside_of_the_folder_is_read_and_never_written(tmp_path):
    """LLaVA's fine-tunes name their tower by the path that it had on one machine."""
    family = Components.build(compose_checked(["model=yi_vl_nano", "task=clock"])).family
    model = family.load()
    family.save(model, tmp_path / "release")
    outside = tmp_path / "towers" / "clip"
    outside.parent.mkdir()
    (tmp_path / "release" / "vit" / "tower").rename(outside)
    config = json.loads((tmp_path / "release" / "config.json").read_text())
    (tmp_path / "release" / "config.json").write_text(json.dumps({**config, "mm_vision_tower": str(outside)}))
    before = {file.name: file.read_bytes() for file in outside.iterdir()}

    started = ["model=yi_vl_nano", "task=clock", f"model.checkpoint={tmp_path / 'release'}"]
    family = Components.build(compose_checked(started)).family
    trained = family.load()
    with torch.no_grad():
        for weight in trained.parameters():
            weight.add_(1)
    family.save(trained, tmp_path / "run")
    assert {file.name: file.read_bytes() for file in outside.iterdir()} == before
    assert json.loads((tmp_path / "run" / "config.json").read_text())["mm_vision_tower"] == "./vit/tower"
    state = trained.state_dict()
    again = Components.build(compose_checked([*started[:2], f"model.checkpoint={tmp_path / 'run'}"])).family
    for loaded in (family.load(tmp_path / "run"), again.load()):
        assert all(torch.equal(weight, state[name]) for name, weight in loaded.state_dict().items())
