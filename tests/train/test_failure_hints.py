"""Errors that a setting can repair name the setting and its new value."""

import errno

import pytest
import torch

from ntil.config.compose import compose
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.train.failure_hints import failure_hint
from ntil.train.worker import follows_from


def config(batch=8, accumulation=1, checkpointing=False, zero="null"):
    words = [f"optim.batch_size={batch}", "evaluation.batch_size=240", f"engine.zero_stage={zero}"]
    return compose([*words, f"engine.accumulation={accumulation}", f"engine.gradient_checkpointing={checkpointing}"])


OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (config(), "engine.accumulation=2 (now 1): the same step in smaller pieces"),
        (config(15, 3), "engine.accumulation=15 (now 3)"),
        (config(1), "engine.gradient_checkpointing=true"),
        (config(1, checkpointing=True, zero=2), "engine=zero3_offload"),
        (config(1, checkpointing=True, zero=3), "engine.processes"),
    ],
)
def test_out_of_memory(given, said):
    assert said in str(failure_hint(OOM, given))


@pytest.mark.parametrize(("processes", "accumulation", "said"), [(4, 1, 2), (2, 2, 4), (4, 2, None), (2, 1, 2)])
def test_what_is_advised_divides_over_the_ranks_too(tmp_path, processes, accumulation, said):
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"host{n} slots=1\n" for n in range(processes)))
    for ranks in (f"engine.processes={processes}", f"engine.hostfile={hosts}"):
        words = ["engine=zero2", "optim.batch_size=8", ranks]
        hint = str(failure_hint(OOM, compose([*words, f"engine.accumulation={accumulation}"])))
        assert ("engine.accumulation" in hint) == (said is not None)
        if said:
            assert f"engine.accumulation={said} (now {accumulation})" in hint
            assert 8 % (said * processes) == 0


def test_a_hostfile_that_is_not_on_this_host_hides_no_hint(tmp_path):
    given = compose(["engine=zero2", "optim.batch_size=8", f"engine.hostfile={tmp_path}/none"])
    assert "engine.accumulation=2" in str(failure_hint(OOM, given))


def test_a_real_refused_allocation_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert "out of memory: set engine.accumulation=2" in str(failure_hint(caught.value, config()))
    assert "evaluation.batch_size=120 (now 240)" in str(failure_hint(caught.value, config(), evaluating=True))


def test_a_full_disk_behind_another_error():
    full = RuntimeError("could not save")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert "the newest complete checkpoint is kept" in str(failure_hint(full, config()))
    assert "disk is full" in str(
        failure_hint(RuntimeError("I/O error: No space left on device (os error 28)"), config())
    )


def test_other_errors_get_none():
    assert failure_hint(ValueError("a wrong shape"), config()) is None


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("DataLoader worker (pid(s) 7) exited unexpectedly", "set engine.workers=0"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error.", "--shm-size"),
        ("DataLoader timed out after 600 seconds", "set engine.workers=0"),
        ("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)", "--shm-size"),
        ("Timed out waiting 1800000ms for recv operation to complete", "logs/rank<k>.log"),
        ("Caught ValueError in DataLoader worker process 0.", "None"),
    ],
)
def test_lost_data_workers_and_ranks(text, hint):
    assert hint in str(failure_hint(RuntimeError(text), config()))


def test_without_data_workers_none_is_to_blame():
    without = compose(["engine.workers=0"])
    assert failure_hint(RuntimeError("DataLoader timed out after 600 seconds"), without) is None


def raised_while(error, handled):
    try:
        try:
            raise handled
        except BaseException:
            raise error  # noqa: B904
    except type(error) as raised:
        return raised


FULL = OSError(errno.ENOSPC, "No space left on device")
GONE = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242")


@pytest.mark.parametrize(
    ("error", "ranks", "at_once", "follows"),
    [
        (FULL, 1, False, False),
        (FULL, 2, False, False),
        (FULL, 1, True, True),  # nothing can be lost
        (OOM, 2, False, False),
        (GONE, 2, False, True),
        (GONE, 1, False, False),
        (raised_while(ValueError("a library's own"), KeyboardInterrupt()), 1, False, True),
    ],
)
def test_what_follows_from_an_interrupt(error, ranks, at_once, follows, tmp_path):
    interrupt = Interrupt(tmp_path / "stop")
    if at_once:
        interrupt.raise_at_once()
    assert not follows_from(interrupt, error, Ranks(0, ranks))
    (tmp_path / "stop").touch()
    assert follows_from(interrupt, error, Ranks(0, ranks)) is follows
