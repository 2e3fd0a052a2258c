"""`ntil show` prints what the loss sees of one example."""

from ntil.cli import main


def test_every_token_with_its_number_place_and_weight(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["show", "task=clock", "loss=ntil", "row=1", "task.rows={train:3}"]) == 0
    shown = capsys.readouterr().out
    answer = next(line for line in shown.splitlines() if line.startswith("answer")).split("'")[1]
    hour, minute = (str(int(part)) for part in answer.split(":"))
    assert f"numbers  {hour}, {minute} " in shown
    assert shown.count("1.2 ") == 2  # the tens of hour and minute weigh (1 + sigma)^1
    assert "57%" in shown


def test_mistakes_are_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    assert main(["show", "task.rows={train:3}", "row=3"]) == 2
    assert "train has the rows 0..2" in capsys.readouterr().err
    assert main(["show", "loss.lamm=1"]) == 2
    assert "did you mean 'loss.lam'?" in capsys.readouterr().err
