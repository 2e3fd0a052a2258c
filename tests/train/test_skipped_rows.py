"""A test row that the model refuses is left out, and the trained run is tested on the others."""

import json

from ntil.preflight import compose_checked
from ntil.runs.folder import folder_of
from tests.support.in_process import perform
from tests.support.runs import TINY_RUN


def test_a_refused_test_row_ends_no_trained_run(tmp_path):
    rows = [{"id": f"s{i}", "prompt": f"{i} + {i}?", "answer": str(2 * i)} for i in range(24)]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows[3]["answer"] = "6 <image>"
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["task=jsonl", "task.metric=exact", f"task.source.train={train}", f"task.source.test={test}"]
    words += ["task.source.on_error=skip", "model=llava_nano", "loss=ce", "optim.steps=2", "optim.batch_size=4"]
    engine = ["engine=local", "engine.device=cpu", "engine.workers=0", f"runs={tmp_path / 'runs'}"]
    config = compose_checked([*TINY_RUN, *words, *engine])
    run = folder_of(config)
    run.freeze(config)
    perform(run)
    assert run.read_metrics()["examples"] == 23
    assert "s3" in run.skipped.read_text() or "<image>" in run.skipped.read_text()
