"""Trackers get the same calls; one that fails is dropped; the mode of W&B follows the keys that are there."""

import re
import shutil
import time
from types import SimpleNamespace

import pytest

from ntil.config.compose import compose
from ntil.config.identity import config_hash
from ntil.distributed.ranks import Ranks
from ntil.train import trackers as module
from ntil.train.trackers import Backend, Trackers, wandb_id, wandb_mode


class Recorder(Backend):
    def __init__(self, config, folder):
        self.calls = []

    def log(self, values, step):
        self.calls.append((step, values))

    def predictions(self, table):
        self.calls.append(("predictions", table))

    def finish(self, summary, failed):
        self.calls.append(("finish", summary, failed))


class Broken(Recorder):
    def log(self, values, step):
        raise ConnectionError("no network")


@pytest.fixture
def trackers(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "KINDS", {"wandb": Recorder, "tensorboard": Broken})
    return Trackers(compose(["tracker.kinds=[wandb,tensorboard]"]), tmp_path, Ranks())


def test_a_broken_one_is_dropped_and_the_others_go_on(trackers, caplog):
    state = SimpleNamespace(is_world_process_zero=True, global_step=3)
    kept = trackers.backends[0]
    trackers.on_log(None, state, None, {"loss": 1.0, "eval_exact": 0.5, "note": "text"})
    assert "no network" in caplog.text
    assert "goes on without it" in caplog.text
    assert trackers.backends == [kept]
    assert kept.calls == [(3, {"loss": 1.0, "validation/exact": 0.5})]
    trackers.note({"coverage": 0.5})
    trackers.finish({"exact": 1})
    assert kept.calls[-1] == ("finish", {"coverage": 0.5, "test/exact": 1.0}, False)


def test_a_failed_run_is_finished_as_failed(trackers):
    kept = trackers.backends[0]
    trackers.finish(None)
    assert kept.calls[-1] == ("finish", {}, True)


def test_one_that_does_not_answer_is_dropped_and_an_interrupt_is_no_failure(trackers, caplog, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 0.1)
    monkeypatch.setattr(Broken, "log", lambda self, values, step: time.sleep(30))
    recorder = trackers.backends[0]
    trackers.on_log(None, SimpleNamespace(is_world_process_zero=True, global_step=1), None, {"loss": 1.0})
    assert "Broken did not answer for 0.1 s" in caplog.text
    trackers.finish(None, interrupted=True)
    assert recorder.calls[1:] == [("finish", {}, False)]


def test_a_run_folder_has_an_id_of_its_own(tmp_path):
    config = compose(["name=lab/" + 70 * "x"])
    ids = [wandb_id(config, tmp_path / name) for name in ("one", "other", "one")]
    assert ids[0] == ids[2] != ids[1]
    assert all(re.fullmatch(r"[\w.-]{1,64}", one) for one in ids)
    shutil.rmtree(tmp_path / "one")
    assert wandb_id(config, tmp_path / "one") != ids[0]
    (tmp_path / "older" / "wandb").mkdir(parents=True)
    assert wandb_id(compose([]), tmp_path / "older") == f"default-ntil-seed0-{config_hash(compose([]))}"


def test_only_rank_0_tracks(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "KINDS", {"wandb": Recorder})
    config = compose(["tracker.kinds=[wandb]"])
    monkeypatch.setenv("RANK", "1")
    assert Trackers(config, tmp_path, Ranks(1, 2)).backends == Trackers(config, tmp_path, Ranks.here()).backends == []
    monkeypatch.setenv("RANK", "0")
    assert len(Trackers(config, tmp_path, Ranks.here()).backends) == 1


def test_auto_is_online_only_with_a_key(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_mode("auto") == "offline"
    assert wandb_mode("online") == "online"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    (tmp_path / "netrc").chmod(0o600)
    assert wandb_mode("auto") == "online"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"


@pytest.mark.parametrize("resumed", [0, 4])
def test_steps_that_are_done_again_are_drawn_once(tmp_path, resumed):
    """A process was killed after step 6; the next one goes on from its checkpoint, or from the beginning."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = compose([])
    if resumed:
        checkpoint = tmp_path / "checkpoints" / f"checkpoint-{resumed}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "COMPLETE").touch()
    for first, value in ((1, 1.0), (resumed + 1, 2.0)):
        backend = module.TensorBoard(config, tmp_path)
        for step in range(first, 7):
            backend.log({"loss": value}, step)
        backend.finish({}, failed=False)
        time.sleep(1.1)  # files of a process are ordered by the second of their start
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [
        (step, 1.0 if step <= resumed else 2.0) for step in range(1, 7)
    ]
