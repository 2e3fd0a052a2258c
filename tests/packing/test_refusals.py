"""Where packing would not be exact, one sentence says so before anything is read."""

import pytest

from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash, identity
from ntil.config.schema import RunConfig
from ntil.preflight import check


def refused(words, match):
    with pytest.raises(ConfigError, match=match):
        check(compose(words), on_this_machine=False)


@pytest.mark.parametrize("mode", ["pictures", "tokens"])
def test_a_two_way_prefix(mode):
    refused(["model=paligemma_nano", f"packing={mode}"], f"packing={mode}: in PaliGemma the picture's states depend")


def test_a_text_model_has_no_tower():
    refused(
        ["model=qwen25_nano", "task=arithmetic", "packing=tower"], "CausalLM has no vision tower; set packing=pictures"
    )


def test_flash_attention():
    words = ["model=llava_nano", "packing=pictures", "model.attn_implementation=flash_attention_2"]
    refused(words, "takes no mask.*model.attn_implementation=sdpa, or set packing=tower")


def test_an_architecture_that_nobody_compared():
    words = ["model=qwen25_nano", "task=arithmetic", "packing=pictures", "model.language.model_type=bloom"]
    words += ["~model.language.rope_theta", "~model.language.num_key_value_heads", "~model.language.intermediate_size"]
    with pytest.raises(ConfigError, match="nobody has compared packed and separate examples of 'bloom'"):
        Components.build(compose(words))


def test_layers_with_a_window():
    words = ["model=qwen25_nano", "task=arithmetic", "packing=tokens"]
    words += ["+model.language.layer_types=[full_attention,sliding_attention,full_attention,full_attention]"]
    words += ["+model.language.sliding_window=16", "+model.language.use_sliding_window=true"]
    with pytest.raises(ConfigError, match="layers of sliding_attention"):
        Components.build(compose(words))


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"packing.tokens must be at least 1"):
        compose(["packing.tokens=0"])
    with pytest.raises(ConfigError, match=r"packing.mode must be one of none, tower, pictures, tokens"):
        compose(["packing.mode=images"])


def test_packing_is_a_part_of_the_identity_and_none_is_as_before():
    plain = compose([])
    assert "packing" not in identity(plain)
    before = {k: v for k, v in plain.to_dict().items() if k != "packing"}
    assert config_hash(RunConfig.from_dict(before)) == config_hash(plain)
    hashes = {config_hash(compose([f"packing={mode}"])) for mode in ("none", "tower", "pictures", "tokens")}
    assert len(hashes) == 4
    assert config_hash(compose(["packing=tokens", "packing.tokens=9000"])) == config_hash(compose(["packing=tokens"]))
