"""Kept vision features: equal results, right keys, bounded disk, many writers."""

import errno
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.evaluation.generate import generate
from ntil.models.base import Family
from ntil.models.tuning import tune
from ntil.models.vision_cache import IN_USE, FeatureStore, VisionCache, attach, identity
from ntil.preflight import compose_checked
from ntil.train.trainer import build_trainer
from tests.support.families import VISION_NANO

WORDS = ["task=clock", "loss=ntil", "engine=local", "tracker=none", "evaluation.every_steps=0", "curriculum=none"]
WORDS += ["task.source.rows={train:12,validation:2,test:6}", "optim.steps=6", "optim.batch_size=4", "optim.warmup=1"]
MODES = [["tuning=freeze_vision"], ["tuning=lora"], ["tuning=lora", "tuning.train=[]"]]
QUICK = [("llava_nano", MODES[0]), ("qwen2_vl_nano", MODES[1])]
# Adapters don't reach into a tower, so a family of one picture, of packed patches and of tiles show what they change.
EVERY_MODE = {"llava_nano", "qwen2_vl_nano", "smolvlm_nano"}
CASES = [
    pytest.param(name, mode, id=f"{name} {' '.join(mode)}", marks=() if (name, mode) in QUICK else pytest.mark.slow)
    for name in VISION_NANO
    for mode in (MODES if name in EVERY_MODE else MODES[:1])
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def built(words: list[str], root: Path | None, model_name: str = "llava_nano"):
    config = compose_checked([f"model={model_name}", *WORDS, *words])
    components = Components.build(config)
    torch.manual_seed(0)
    model = tune(components.family.load(), components.family, config.tuning)
    kept = VisionCache(components.family, model, root, 10**9) if root else None
    return config, components, model, kept


def train(place: Path, words: list[str], root: Path | None, model_name: str):
    config, components, model, kept = built(words, root, model_name)
    trainer = build_trainer(config, components, model, components.task.rows("train"), place)
    trainer.train()
    batch = [components.task.rows("test")[i] for i in range(6)]
    texts = generate(model.eval(), components.collator, batch)
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    return weights, trainer.state.log_history[-1]["train_loss"], texts, kept


@pytest.mark.parametrize(("name", "words"), CASES)
def test_losses_weights_and_answers_are_those_without(tmp_path, name, words):
    plain, loss, texts, _ = train(tmp_path / "a", words, None, name)
    filled, loss_filling, texts_filling, filling = train(tmp_path / "b", words, tmp_path / "store", name)
    read, loss_reading, texts_reading, reading = train(tmp_path / "c", words, tmp_path / "store", name)
    # 12 rows in two epochs, and 6 more to answer; what is kept is a picture, or each tile of it.
    _, components, _, _ = built(words, None, name)
    features, _ = components.family.picture(components.task.rows("train")[0]["image"])
    tiles = len(components.family.split_images(features))
    assert filling.hits + filling.misses == reading.hits == 30 * tiles
    assert reading.misses == 0
    assert filling.misses == 18 if tiles == 1 else 18 <= filling.misses <= 18 * tiles
    assert loss_filling == pytest.approx(loss, rel=1e-5)
    assert loss_reading == pytest.approx(loss, rel=1e-5)
    assert texts == texts_filling == texts_reading
    assert plain.keys() == filled.keys() == read.keys()
    for key in plain:
        torch.testing.assert_close(filled[key], plain[key], atol=1e-5, rtol=1e-4, msg=key)
        torch.testing.assert_close(read[key], plain[key], atol=1e-5, rtol=1e-4, msg=key)


@pytest.mark.parametrize("others_miss", [False, True])
def test_ranks_stay_together_where_a_model_is_cut_after_the_cache_came(tmp_path, monkeypatch, others_miss):
    """DeepSpeed partitions a model from scratch when training begins; then all ranks run the tower or none does."""
    _, components, model, kept = built(["tuning=freeze_vision"], tmp_path)
    rows = components.task.rows("train")
    generate(model.eval(), components.collator, [rows[0]])
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flag, _how: flag.fill_(int(others_miss)))
    next(model.parameters()).ds_id = 0  # as `deepspeed.zero.Init` marks it
    tower = components.family.parts["vision"]
    seen = []
    model.get_submodule(tower).register_forward_hook(lambda *_: seen.append(1))
    generate(model.eval(), components.collator, [rows[0]])
    assert kept.hits == 1
    assert bool(seen) == others_miss


def _flat(features):
    return features.reshape(-1) if isinstance(features, torch.Tensor) else torch.cat([_flat(f) for f in features])


@pytest.mark.parametrize("name", VISION_NANO)
def test_kept_features_are_the_models_own(tmp_path, name):
    """All that a model's method returns and its forward reads, of pictures of several shapes, computed and read."""
    generator = torch.Generator().manual_seed(0)
    pictures = [
        Image.fromarray(torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator).numpy())
        for size in ((48, 48), (40, 90), (96, 36))
    ]
    _, components, model, _ = built(["tuning=freeze_vision"], None, name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    prepared = [components.family.picture(picture)[0] for picture in pictures]
    inputs = {key: torch.cat([p[key] for p in prepared]) for key in prepared[0]}
    with torch.no_grad():
        wanted = model.base_model.get_image_features(**inputs, return_dict=True)
        for _ in range(2):
            kept = VisionCache(components.family, model, tmp_path, 10**9)
            model.base_model.get_image_features(**inputs)
            misses = kept.misses
            found = model.base_model.get_image_features(**inputs)
            assert kept.misses == misses
            kept.close()
            for field in ("pooler_output", "deepstack_features"):
                if field in wanted:
                    torch.testing.assert_close(_flat(found[field]), _flat(wanted[field]), atol=1e-4, rtol=1e-4)
    assert misses == 0


def test_a_family_that_does_not_say_what_its_model_does_is_refused(tmp_path, monkeypatch):
    _, components, model, _ = built(["tuning=freeze_vision"], tmp_path, "qwen2_5_vl_nano")
    monkeypatch.setattr(type(components.family), "project", Family.project)
    pixels, _ = components.family.picture(Image.effect_noise((60, 48), 90))
    with pytest.raises(ConfigError, match=r"kept vision features don't give the pooler_output.*set vision_cache_gb=0"):
        model.base_model.get_image_features(**pixels)


def test_the_tower_runs_once_per_picture_and_close_gives_it_back(tmp_path):
    _, components, model, kept = built(["tuning=freeze_vision"], tmp_path)
    seen = []
    model.model.vision_tower.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(len(args[0] if args else kwargs["pixel_values"])), with_kwargs=True
    )
    pixels = torch.cat([_pixels(components, colour) for colour in ("red", "green", "red", "blue")])
    with torch.no_grad():
        first = model.model.get_image_features(pixels).pooler_output
        again = model.model.get_image_features(pixels).pooler_output
        mixed = model.model.get_image_features(torch.cat([pixels[:1], _pixels(components, "pink")])).pooler_output
        kept.close()
        plain = model.model.get_image_features(pixels, return_dict=True).pooler_output
    assert seen == [4, 1, 4]
    for one, two, three in zip(first, again, plain, strict=True):
        torch.testing.assert_close(one.reshape(three.shape), three, atol=1e-5, rtol=0)
        torch.testing.assert_close(two.reshape(three.shape), three, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[0], first[0], atol=1e-5, rtol=0)


def _pixels(components: Components, colour: str) -> torch.Tensor:
    return components.family.picture(Image.new("RGB", (48, 48), colour))[0]["pixel_values"]


def test_another_weight_config_or_dtype_is_another_set(tmp_path):
    _, components, model, kept = built(["tuning=freeze_vision"], tmp_path)
    own = identity(components.family, model)
    same = built(["tuning=freeze_vision"], tmp_path)[2]
    assert identity(components.family, same) == own
    # A trained projector or language model doesn't matter: they come after what is kept.
    with torch.no_grad():
        same.model.multi_modal_projector.linear_1.weight.add_(1)
        same.lm_head.weight.add_(1)
    assert identity(components.family, same) == own
    with torch.no_grad():
        same.model.vision_tower.embeddings.patch_embedding.weight[0, 0, 0, 0] += 1e-6
    assert identity(components.family, same) != own
    model.config.vision_feature_layer = -2
    assert identity(components.family, model) != own
    names = {kept.store("cpu").path.name}
    with torch.autocast("cpu", torch.bfloat16):
        names.add(kept.store("cpu").path.name)
    model.bfloat16()
    names.add(kept.store("cpu").path.name)
    names.add(kept.store("cpu", {"vision_feature_layer": -2, "return_dict": True}).path.name)
    assert len(names) == 4


def test_a_set_that_is_not_what_the_tower_computes_is_emptied(tmp_path):
    _, components, model, _ = built(["tuning=freeze_vision"], tmp_path)
    pixels = torch.cat([_pixels(components, colour) for colour in ("red", "green")])
    with torch.no_grad():
        wanted = model.model.get_image_features(pixels).pooler_output
    store = FeatureStore(tmp_path, next(tmp_path.iterdir()).name, 10**9)
    files = list(store.path.rglob("*.safetensors"))
    assert len(files) == 2
    for file in files:
        features = store.get(file.stem)
        assert features is not None
        store.put(file.stem, features + 1)
    files[1].write_bytes(b"cut")
    _, components, model, _ = built(["tuning=freeze_vision"], tmp_path)
    with torch.no_grad(), pytest.warns(UserWarning, match="not what the tower computes"):
        found = model.model.get_image_features(_pixels(components, "red")).pooler_output
    torch.testing.assert_close(found[0], wanted[0], atol=1e-5, rtol=0)
    assert len(list(store.path.rglob("*.safetensors"))) == 1


def _put_zeros(store: FeatureStore, count: int) -> None:
    for i in range(count):
        store.put(f"{i:040d}", torch.zeros(200))


def test_a_full_folder_is_not_grown(tmp_path):
    store = FeatureStore(tmp_path, "own", 4000)
    with pytest.warns(UserWarning, match="computed, not kept"):
        _put_zeros(store, 10)
    kept = [i for i in range(10) if store.get(f"{i:040d}") is not None]
    assert kept == [0, 1, 2, 3]
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 4000


def test_a_full_disk_ends_the_cache_and_not_the_run(tmp_path, monkeypatch):
    def full(tensors, file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("ntil.models.vision_cache.save_file", full)
    store = FeatureStore(tmp_path, "set", 1 << 20)
    with pytest.warns(UserWarning, match="No space left on device"):
        store.put("ab", torch.zeros(3))
    assert store.full
    assert store.get("ab") is None


def test_a_folder_that_cant_be_written_is_read_and_ends_no_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="Not a directory.*computed, not kept"):
        store = FeatureStore(tmp_path / "file", "set", 1 << 20)
    store.put("ab", torch.zeros(3))
    assert store.get("ab") is None
    FeatureStore(tmp_path, "set", 1 << 20).put("ab", torch.ones(3))

    def refuse(self, **options):
        raise PermissionError(errno.EROFS, "Read-only file system")

    for method in ("touch", "unlink"):
        monkeypatch.setattr(Path, method, refuse)
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    with pytest.warns(UserWarning, match="Read-only file system"):
        store = FeatureStore(tmp_path, "set", 1 << 20)
    features = store.get("ab")
    assert features is not None
    assert features.tolist() == [1, 1, 1]
    store.clear()
    assert store.get("ab") is None, "features that are wrong and can't be removed are read again"
    (tmp_path / "set/ab/ab.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="Read-only file system"):
        assert FeatureStore(tmp_path, "set", 1 << 20).get("ab") is None


def test_sets_that_nobody_uses_make_room_the_oldest_first(tmp_path):
    for age, name in ((3, "oldest"), (2, "old"), (0, "in use")):
        other = FeatureStore(tmp_path, name, 4000)
        other.put("a" * 40, torch.zeros(200))
        used = time.time() - age * IN_USE
        os.utime(other.path / "USED", (used, used))
    (tmp_path / ".DS_Store").write_text("of a file manager, which is no set")
    store = FeatureStore(tmp_path, "own", 4000)
    store.put("b" * 40, torch.zeros(200))
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"oldest", "old", "in use", "own"}
    store.put("c" * 40, torch.zeros(200))
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"old", "in use", "own"}
    store.put("d" * 40, torch.zeros(200))
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"in use", "own"}
    with pytest.warns(UserWarning, match="computed, not kept"):
        store.put("e" * 40, torch.zeros(400))
    assert FeatureStore(tmp_path, "in use", 4000).get("a" * 40) is not None


def _write_and_read(root: Path, seed: int) -> int:
    store = FeatureStore(root, "shared", 10**9)
    wrong = 0
    for key in torch.randperm(60, generator=torch.Generator().manual_seed(seed)).tolist() * 2:
        found = store.get(f"{key:040d}")
        wrong += found is not None and not torch.equal(found, torch.full((300,), float(key)))
        store.put(f"{key:040d}", torch.full((300,), float(key)))
    return wrong


def test_processes_may_share_the_folder(tmp_path):
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        assert sum(pool.map(_write_and_read, [tmp_path] * 3, range(3))) == 0
    store = FeatureStore(tmp_path, "shared", 10**9)
    for key in range(60):
        features = store.get(f"{key:040d}")
        assert features is not None
        assert torch.equal(features, torch.full((300,), float(key)))
    assert not list(tmp_path.rglob(".*"))


def test_it_can_be_switched_off_and_text_models_have_none(tmp_path):
    _, components, model, _ = built(["tuning=freeze_vision"], None)
    assert attach(components.family, model, 0) is None
    assert attach(components.family, model.model.language_model, 1) is None
    assert attach(components.family, model, 1) is not None
