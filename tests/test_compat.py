"""Waits of other libraries that would never end."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.file_baton import FileBaton

from ntil import compat


def test_a_wait_for_a_build_says_so_and_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FileBaton, "wait", FileBaton.wait)
    monkeypatch.setattr(compat, "BUILD_LIMIT", 0.2)
    compat.limit_waits_for_builds()
    baton = FileBaton(str(tmp_path / "lock"), 0.05)
    baton.wait()  # there is no lock
    assert capsys.readouterr().out == ""
    (tmp_path / "lock").touch()
    with pytest.raises(TimeoutError, match=rf"{tmp_path}/lock .* remove the file"):
        baton.wait()
    assert capsys.readouterr().out.count("waiting for another process") == 1


def test_a_batch_that_cannot_be_sent_ends_its_worker(capfd):
    loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(
        TensorDataset(torch.arange(4)),
        num_workers=1,
        timeout=60,
        collate_fn=lambda rows: lambda: rows,  # a function in a function can't be sent
        worker_init_fn=lambda index: compat.end_where_batches_cannot_be_sent(),
        multiprocessing_context="fork",
    )
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        next(iter(loader))
    assert "a data worker can't send a batch" in capfd.readouterr().err
