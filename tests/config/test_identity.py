"""Identity of a run: what means the same is one run, and runs that are finished stay found."""

import pytest

from ntil.config.compose import compose
from ntil.config.identity import config_hash, identity
from ntil.runs.folder import evaluation_of, folder_of

# As they were before settings of one meaning had one identity: finished runs have these hashes.
EARLIER = [
    ("model=llava_nano task=clock", "28bf9c67"),
    ("model=qwen2_vl_2b task=clock tuning=lora", "8668ffa3"),
    ("model=qwen25_7b task=arithmetic", "010ba1a2"),
    ("loss=ntil_paper", "9e865421"),
    ("loss=value_emd", "0d46ced8"),
    ("tuning=projector", "338bba6c"),
    ("tuning=freeze_vision", "ce6a6566"),
    ("tuning=lora_all", "213c1304"),
    ("tuning=dora", "9e07d7cf"),
    ("optim=finetune", "b6f1583d"),
    ("experiment=demo", "98abf5b3"),
    ("loss=ce optim.schedule=wsd", "5ba517d0"),
    ("loss=ce optim.patience=2", "07c25e62"),
    ("loss=ntil loss.lam=1", "67ff6988"),
    ("loss=ntil loss.lam=1.0", "5d693e69"),
    ("loss=ce optim.name=sgd optim.options.momentum=1", "d1d00b05"),
]


@pytest.mark.parametrize(("words", "earlier"), EARLIER)
def test_finished_runs_have_the_hashes_that_they_had(words, earlier):
    assert config_hash(compose(words.split())) == earlier


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("tuning=lora", "tuning=lora tuning.alpha=32", "tuning=lora tuning.alpha=16"),
        ("tuning=lora tuning.rank=8", "tuning=lora tuning.rank=8 tuning.alpha=16", "tuning=lora tuning.alpha=16"),
        ("optim.schedule=wsd", "optim.schedule=wsd optim.decay=0.2", "optim.schedule=wsd optim.decay=0.3"),
        ("optim.patience=2", "optim.patience=2 optim.min_delta=0", "optim.patience=2 optim.min_delta=0.1"),
        ("loss=ce", "loss=ce evaluation.validation_splits=[validation]", "evaluation.validation_splits=[test]"),
        ("tuning.freeze=[vision,projector]", "tuning.freeze=[projector,vision]", "tuning.freeze=[vision]"),
        ("tuning=lora_all", "tuning=lora_all tuning.adapt=[vision,language]", "tuning=lora"),
        (
            "tuning=lora tuning.train=[vision,projector]",
            "tuning=lora tuning.train=[projector,vision]",
            "tuning=lora tuning.train=[projector]",
        ),
        (
            "tuning=lora tuning.targets=[q_proj,v_proj] tuning.layers=[0,1]",
            "tuning=lora tuning.targets=[v_proj,q_proj] tuning.layers=[1,0]",
            "tuning=lora tuning.targets=[v_proj] tuning.layers=[0,1]",
        ),
    ],
)
def test_what_means_the_same_has_one_hash(one, same, other):
    first, second, third = (config_hash(compose(words.split())) for words in (one, same, other))
    assert first == second != third


@pytest.mark.parametrize(
    "words", ["loss=ntil loss.lam=", "optim.name=sgd optim.options.momentum=", "optim.schedule_options.num_cycles="]
)
def test_a_number_in_either_form_leads_to_the_run_that_is_there(tmp_path, words):
    """Either form has hashes of finished runs, so hashes tell them apart; identities are alike as text, too."""
    integer, decimal = (compose([f"runs={tmp_path}", *f"{words}{one}".split()]) for one in ("1", "1.0"))
    assert repr(identity(integer)) == repr(identity(decimal))
    there = folder_of(decimal)
    there.freeze(decimal)
    assert folder_of(integer).path == there.path
    evaluation = evaluation_of(there, decimal)
    evaluation.freeze(decimal)
    assert evaluation_of(there, integer).path == evaluation.path
