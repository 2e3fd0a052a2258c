"""Runs that go wrong, end, and are taken up again: replay, retry, locks, changed data, export, trackers."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ntil.components import Components
from ntil.runs.folder import RunFolder
from tests.support.command_line import ntil, start
from tests.support.runs import TINY_RUN
from tests.support.wandb_file import contents

pytestmark = pytest.mark.slow

ROWS = "task.source.rows={train:64,validation:8,test:12}"
RUN = [*TINY_RUN, "optim.steps=4", "engine=local"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("survival")


def only(place: Path, pattern: str) -> Path:
    (found,) = place.glob(pattern)
    return found


def test_a_loss_that_is_not_finite_can_be_replayed_and_is_not_run_again_unasked(place):
    words = ["train", *RUN, ROWS, "loss=ntil", "optim.lr=1e30", "runs=wild"]
    wild = ntil(place, *words)
    assert wild.returncode == 1
    assert "the loss is not finite at step" in wild.stderr
    assert "ntil replay run=wild/" in wild.stderr
    run = only(place, "wild/**/config.yaml").parent
    saved = json.loads((run / "replay" / "batch.json").read_text())
    assert len(saved["ids"]) == 8
    assert saved["weights"] == "model"
    replay = ntil(place, "replay", f"run={run.relative_to(place)}")
    assert replay.returncode == 0, replay.stderr
    assert all(name in replay.stdout for name in saved["ids"])
    # The last module shown is the first that gave something that is not finite.
    frames = replay.stdout.partition("Detected inf/nan")[2].rstrip()
    assert re.search(r"\n +model\.\S+ \w+\n(?:.*(?:weight|bias|input\[\d\])\n)*.*(?:nan|inf) output$", frames), frames
    again = ntil(place, *words)
    assert again.returncode == 1
    assert "failed before, skipped (retry=true runs it again)" in again.stderr
    retried = ntil(place, *words, "retry=true")
    assert retried.returncode == 1
    assert "failed before" not in retried.stderr
    assert "not finite" in retried.stderr
    assert "1 failed" in ntil(place, "status", "wild").stdout


def test_two_sweeps_at_once_run_every_job_once(place):
    words = ["train", "-m", *RUN, ROWS, "loss=ce,emd", "seed=0,1", "runs=shared"]
    both = [start(place, *words), start(place, *words)]
    outputs = [child.communicate(timeout=400) for child in both]
    assert [child.returncode for child in both] == [0, 0], outputs
    text = "".join(out for out, _ in outputs)
    trained = text.count("of the answer tokens are digits")
    assert trained == 4
    assert text.count("done before, skipped") + text.count("is running it, skipped") == 4
    assert len(list(place.glob("shared/**/metrics.json"))) == 4


def test_changed_data_is_refused_unless_accepted(place):
    words = ["train", *RUN, ROWS, "loss=ce", "save_every=2", "runs=changed"]
    assert ntil(place, *words).returncode == 0
    run = RunFolder(only(place, "changed/**/config.yaml").parent)
    run.metrics.unlink()
    known = json.loads((run.path / "data.json").read_text())
    assert known.keys() == {"train", "test"}
    known["test"]["fingerprint"] = "another"
    (run.path / "data.json").write_text(json.dumps(known))
    refused = ntil(place, *words)
    assert refused.returncode == 1
    assert "the test split has changed since the checkpoint (12 rows another, now 12 rows" in refused.stderr
    accepted = ntil(place, *words, "accept_changes=true", "retry=true")
    assert accepted.returncode == 0, accepted.stderr
    assert run.done


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_that_generation_cannot_write_are_refused_before_training(place, split):
    short, long = ({"prompt": "?", "answer": text} for text in ("7", "0123456789" * 10))
    for name in ("train", "test"):
        rows = [short, short, long if name == split else short, short]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [
        "task=jsonl",
        "task.source.train=train.jsonl",
        "task.source.test=test.jsonl",
        "model=llama3_nano",
        "loss=ntil",
    ]
    refused = ntil(place, "train", *files, *RUN, f"runs=long_{split}")
    assert refused.returncode == 1
    assert f"{split}.jsonl, line 3" in refused.stderr
    assert "set task.max_new_tokens=" in refused.stderr


def test_export_is_a_plain_folder_with_a_card(place):
    run = RunFolder(only(place, "changed/**/config.yaml").parent)
    done = ntil(place, "export", f"run={run.path}", "to=exported")
    assert done.returncode == 0, done.stderr
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(place / "exported")
    AutoTokenizer.from_pretrained(place / "exported")
    own = Components.build(run.config()).family.load(run.model)
    for name, value in own.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    card = (place / "exported" / "README.md").read_text()
    assert "trained with ce" in card
    assert "| exact |" in card
    assert "loss:" in card
    assert "64 rows" in card
    assert ntil(place, "export", f"run={run.path}", "to=exported").returncode == 2


def test_trackers_get_the_same(place):
    words = ["train", "-m", *RUN, ROWS, "loss=ce,ntil", "tracker=all", "runs=tracked", "name=t"]
    done = ntil(place, *words)
    assert done.returncode == 0, done.stderr
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for file in place.glob("tracked/**/events.out.*"):
        events = EventAccumulator(str(file), size_guidance={"images": 0})
        events.Reload()
        scalars = set(events.Tags()["scalars"])
        wanted = {"loss", "loss/ce", "gradient_share/ce", "learning_rate", "tokens_per_s", "memory_gib", "coverage"}
        assert wanted <= scalars
        assert {"test/exact", "test/parse_failure_rate", "test/digit_nll"} <= scalars
        if "ntil" in file.parts:
            assert {"loss/relative", "loss/factor", "gradient_share/magnitude"} <= scalars
        assert len(events.Tags()["images"]) == 12
    offline = [contents(file) for file in sorted(place.glob("tracked/**/offline-run-*/*.wandb"))]
    assert [run["run"]["job_type"] for run in offline] == ["ce", "ntil"]
    assert {run["run"]["group"] for run in offline} == {"t/clock/llava_nano"}
    for run in offline:
        assert wanted - {"coverage"} <= run["history"]
        assert {"test/exact", "coverage", "test/predictions/nrows"} <= run["summary"].keys()
        assert {"loss", "optim", "seed"} <= run["config"].keys()
        assert run["run"]["id"].startswith(f"t-{run['run']['job_type']}-seed0-")


def test_a_broken_tracker_never_stops_a_run(tmp_path):
    done = ntil(tmp_path, "train", *RUN, ROWS, "loss=ce", "tracker=wandb", "runs=broken", WANDB_MODE="nonsense")
    assert done.returncode == 0, done.stderr
    assert "training goes on without it" in done.stderr


@pytest.mark.parametrize("engine", ["local", "zero2"])
def test_adapters_resume_to_the_uninterrupted_weights(place, engine):
    words = ["train", *RUN, ROWS, "loss=ntil", "tuning=lora", "optim.steps=6", "save_every=3"]
    words = [word for word in words if word != "engine=local"] + [f"engine={engine}", "keep_checkpoints_when_done=true"]
    assert ntil(place, *words, f"runs=whole-{engine}").returncode == 0
    whole = only(place, f"whole-{engine}/**/config.yaml").parent
    cut = place / f"cut-{engine}" / whole.relative_to(place / f"whole-{engine}")
    shutil.copytree(whole, cut)
    # As an interrupt in the middle leaves it.
    shutil.rmtree(cut / "model")
    for name in ("trained.json", "metrics.json", "predictions.jsonl", "digits.json"):
        (cut / name).unlink()
    again = ntil(place, *words, f"runs=cut-{engine}")
    assert again.returncode == 0, again.stderr
    assert "resumed from checkpoint-3" in again.stdout
    one, two = (load_file(run / "model" / "adapter_model.safetensors") for run in (whole, cut))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    if engine == "zero2":  # no frozen weight, not even the embedding under the name of the tied head
        state = torch.load(cut / "checkpoints/checkpoint-3/global_step3/mp_rank_00_model_states.pt", weights_only=False)
        assert {re.sub(r".*\.(lora_[AB]|multi_modal_projector)\..*", r"\1", name) for name in state["module"]} == {
            "lora_A",
            "lora_B",
            "multi_modal_projector",
        }
    exported = ntil(place, "export", f"run={cut}", f"to=merged-{engine}")
    assert exported.returncode == 0, exported.stderr
    assert not (place / f"merged-{engine}" / "adapter_config.json").exists()


# A loss that asks its own process to end, as a scheduler would, on a disk that has no room for the checkpoint.
PREEMPTED = """
import errno, os, signal, torch
from ntil.losses import CE

class Preempted(CE):
    def parts(self, *args, **kwargs):
        torch.save = full
        os.kill(os.getpid(), signal.SIGTERM)
        return super().parts(*args, **kwargs)

def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
"""


def test_an_interrupt_whose_save_fails_is_a_failure_with_its_reason(place):
    (place / "code").mkdir()
    (place / "code" / "preempted.py").write_text(PREEMPTED)
    path = f"{place / 'code'}:{Path(__file__).parents[2]}"
    words = ["train", *RUN, ROWS, "loss=ce", "loss.target=preempted:Preempted", "runs=preempted"]
    ended = ntil(place, *words, PYTHONPATH=path, NTIL_PACKAGES="preempted")
    assert ended.returncode == 1
    run = RunFolder(only(place, "preempted/**/config.yaml").parent)
    assert "the disk is full" in run.error.read_text()
    assert "1 failed" in ntil(place, "status", "preempted", PYTHONPATH=path, NTIL_PACKAGES="preempted").stdout
