"""A process that starts anew in its own place keeps its id, lock and environment, and nothing else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, signal, socket, sys
from pathlib import Path
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.distributed.renewal import Beginning, DESCRIPTORS

place, signalled = Path(sys.argv[1]), sys.argv[2] == "signalled"
seen = place / "seen.jsonl"
beginning = Beginning.now()
again = seen.exists()
interrupt = Interrupt()
with seen.open("a") as out:
    opened = [os.readlink(d) for d in DESCRIPTORS.iterdir() if d.is_symlink() and os.path.lexists(d)]
    out.write(json.dumps({"pid": os.getpid(), "open": opened, "set": os.environ.get("SET_BY_TRAINING")}) + "\\n")
try:
    interrupt.install()
except KeyboardInterrupt:
    sys.exit(130)
if again:
    sys.exit(130 if interrupt.requested else 0)
os.environ["SET_BY_TRAINING"] = "1"
leaked = os.open(place / "leaked", os.O_CREAT | os.O_RDWR)
os.set_inheritable(leaked, True)
if signalled:
    os.kill(os.getpid(), signal.SIGTERM)
beginning.start_anew(interrupt, Ranks())
"""


def run(place: Path, how: str, lock: int | None = None) -> subprocess.CompletedProcess[str]:
    script = place / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, str(script), str(place), how]
    kept = [lock] if lock is not None else []
    return subprocess.run(words, env=environment, pass_fds=kept, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system doesn't list open files")
def test_it_keeps_its_id_and_its_lock_and_loses_the_rest(tmp_path):
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    done = run(tmp_path, "undisturbed", lock)
    os.close(lock)
    assert done.returncode == 0, done.stderr
    before, after = map(json.loads, (tmp_path / "seen.jsonl").read_text().splitlines())
    assert before["pid"] == after["pid"]
    assert after["set"] is None
    assert str(tmp_path / "lock") in after["open"]
    assert str(tmp_path / "leaked") not in after["open"]


def test_a_signal_that_came_before_ends_it_there(tmp_path):
    done = run(tmp_path, "signalled")
    assert done.returncode != 0
    assert "Interrupted" in done.stderr
    assert len((tmp_path / "seen.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_between_is_not_lost(tmp_path, number):
    """It waits until the new beginning listens, or ends the process where another thread gets it."""
    script = SCRIPT.replace(
        "beginning.start_anew(",
        "check = interrupt.check\n"
        f"interrupt.check = lambda ranks: (check(ranks), os.kill(os.getpid(), {int(number)}))\n"
        "beginning.start_anew(",
    )
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), "undisturbed"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (130, -number), done.stderr
