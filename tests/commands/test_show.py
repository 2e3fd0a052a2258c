"""`ntil show` prints what the loss sees of one example."""

import math

from ntil.cli import main
from ntil.config.compose import choices


def test_every_token_with_its_number_place_and_weight(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["show", "task=clock", "loss=ntil", "row=1", "task.source.rows={train:3}"]) == 0
    shown = capsys.readouterr().out
    answer = next(line for line in shown.splitlines() if line.startswith("answer")).split("'")[1]
    hour, minute = (str(int(part)) for part in answer.split(":"))
    assert f"numbers  {hour}, {minute} " in shown
    assert shown.count("1.2 ") == 2  # the tens of hour and minute weigh (1 + sigma)^1
    assert "57%" in shown


def test_every_loss_shows_what_it_sees(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    losses = choices("loss")
    assert len(losses) > 10
    for loss in losses:
        assert main(["show", "task=clock", f"loss={loss}", "task.source.rows={train:3}"]) == 0
        shown = capsys.readouterr().out
        assert "numbers  11, 38" in shown
        on_numbers = not loss.startswith("ce") and loss not in ("emo", "untrained")
        assert ("worth" in shown) == on_numbers, loss
        assert ("weight" in shown) == loss.startswith(("ntil", "del")), loss
        guess = next(line for line in shown.splitlines() if line.startswith("guessing"))
        share = 3 / 7 if loss.startswith(("ntil_paper", "raft")) else 1  # of the tokens that cross-entropy is on
        assert f"ce {share * math.log(512):.3g}" in guess
        # The mean distance of a uniform guess from 1, 1, 3 and 8.
        if loss in ("emd", "ntl_was"):
            assert f"digit {(3.7 + 3.7 + 2.7 + 3.7) / 4:.3g}" in guess


def test_mistakes_are_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    assert main(["show", "task.source.rows={train:3}", "row=3"]) == 2
    assert "train has the rows 0..2" in capsys.readouterr().err
    assert main(["show", "loss.lamm=1"]) == 2
    assert "did you mean 'loss.lam'?" in capsys.readouterr().err
