"""What ends a sweep before it starts ends its rehearsal: one sentence, exit code 1, nothing left behind."""

import pytest

from ntil.cli import main

NANO = ["model=llava_nano", "task=clock", "engine.device=cpu"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["optim.stepz=3"], "no key 'optim.stepz'; did you mean 'optim.steps'?"),
        (["-m", "loss=ce,ntl"], "loss=ntl: no such config; did you mean"),
        (["task=refcoco", "model=qwen2_vl_nano"], "refs(unc).p: there is no such file; set task.source.folder"),
        (["model.checkpoint=./nowhere"], "no such folder; give an existing one or a hub name"),
        (["weights=randm"], "weights=randm must be real or random; did you mean 'random'?"),
        (["steps=2"], "steps=2 must be 3 or more"),
        (["optim.batch_size=9", "engine.processes=2"], "optim.batch_size=9 doesn't divide over 2 rank(s)"),
        (["keep=."], "keep=.: exists; name a new folder"),
    ],
)
def test_one_sentence_and_exit_code_1(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["rehearse", *NANO, *words]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
