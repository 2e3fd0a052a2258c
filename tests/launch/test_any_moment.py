"""SIGTERM at any moment of a command: exit 130, nothing marked failed, and the same command goes on."""

import signal
import time

import pytest

from tests.support.command_line import ntil, start
from tests.support.runs import TINY_RUN

ROWS = "task.source.rows={train:64,validation:8,test:12}"
RUN = [*TINY_RUN, ROWS, "engine=local", "optim.steps=60"]
COMMANDS = {"train": ["train", *RUN, "loss=ce"], "sweep": ["train", "-m", *RUN, "loss=ce,emd", "seed=0,1"]}
PYTHON_STARTS = 0.5  # seconds within which Python itself may not have begun, so that nothing has


def end_after(place, words, seconds, may_be_done=False):
    """Start, send SIGTERM after so many seconds, and check how it ended."""
    with start(place, *words) as child:
        time.sleep(seconds)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=120)
    begun = [file for file in place.glob("runs/**/config.yaml") if file.parent.parent.name != "evaluations"]
    unborn = seconds <= PYTHON_STARTS and child.returncode == -signal.SIGTERM and not out + err
    finished = may_be_done and child.returncode == 0 and list(place.glob("runs/**/evaluations/*/metrics.json"))
    assert child.returncode == 130 or unborn or finished, (seconds, child.returncode, err)
    assert not list(place.glob("runs/**/error.txt")), (seconds, err)
    assert len(begun) <= 1, (seconds, begun)  # of a sweep no other run is started


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_two_moments(tmp_path, seconds):
    end_after(tmp_path, COMMANDS["sweep"], seconds)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_any_moment(tmp_path, command):
    for tenth in (0, 1, 2, 3, 5, 7, *range(10, 51, 4), 80, 120):
        end_after(tmp_path, COMMANDS[command], tenth / 10)
    words = COMMANDS[command]
    done = ntil(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/**/metrics.json"))) == (1 if command == "train" else 4)


@pytest.mark.slow
def test_an_evaluation(tmp_path):
    assert ntil(tmp_path, *COMMANDS["train"], "optim.steps=2").returncode == 0
    for seconds in (0, 0.5, 1, 2, 4, 6):
        end_after(tmp_path, ["eval", "run=runs", "evaluation.split=validation"], seconds, may_be_done=True)
