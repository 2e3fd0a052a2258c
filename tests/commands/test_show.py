"""`ntil show` prints what the loss sees of one example."""

import math

import pytest

from ntil.cli import main
from ntil.commands.show import uniform_costs
from ntil.components import Components
from ntil.config.compose import choices, compose


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


@pytest.mark.parametrize("loss", ["ntil", "emo"])
def test_a_vocabulary_of_real_size_needs_no_square_matrix(loss, monkeypatch):
    components = Components.build(compose(["task=arithmetic", "model=qwen25_nano", f"loss={loss}"]))
    batch = components.collator([components.task.rows("train")[0]])
    size, seen = 60_000, []

    class Large:
        def __len__(self):
            return size

    plain = components.loss.forward

    def noted(logits, labels, spans, info):
        seen.append(info.output_embeddings)
        return plain(logits, labels, spans, info)

    monkeypatch.setattr(components.family, "tokenizer", Large())
    monkeypatch.setattr(components.loss, "forward", noted)
    assert f"ce {math.log(size):.3g}" in uniform_costs(components, batch)
    (embeddings,) = seen
    assert (embeddings is None) == (loss == "ntil")
    assert embeddings is None or embeddings.numel() < 200 * size


@pytest.mark.slow
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


PACKED = ["task=grounding_nano", "task.source.questions=3", "task.source.rows={train:9}", "packing=pictures"]


@pytest.mark.parametrize(
    ("model", "tokens", "positions"), [("llava_nano", "<image> x 16", "4-19"), ("qwen2_vl_nano", "x 25", "5 5-9 5-9")]
)
def test_a_packed_sequence(capsys, tmp_path, monkeypatch, model, tokens, positions):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["show", f"model={model}", *PACKED, "row=4"]) == 0
    shown = capsys.readouterr().out
    table = [line for line in shown[shown.index("packed") :].splitlines() if line.startswith("│")]
    picture = next(line for line in table if tokens in line)
    assert "shared by 3 rows" in picture
    assert f" {positions} " in picture
    # The last token of the second row sees what is shared and its own row, not the first row between them.
    shared = places([line for line in table if "shared by" in line])
    first, second = (places([line for line in table if f"train-0-{row} " in line]) for row in (4, 3))
    assert shared[-1] + 1 == first[0]
    assert first[-1] + 1 == second[0]
    last = next(line for line in table if f" {second[-1]} " in line.split("│")[2])
    assert last.split("│")[6].strip() == f"0-{shared[-1]}, {second[0]}-{second[-1]}"
    assert shown.splitlines()[-1].startswith("tokens ")


def places(lines):
    """First and last place of each line, in one list."""
    return [int(place) for line in lines for place in line.split("│")[2].strip().split("-")]


def test_a_row_that_shares_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    assert main(["show", "model=llava_nano", "task=clock", "task.source.rows={train:3}", "packing=tokens"]) == 0
    assert "nothing is shared with the 1000 rows around" in capsys.readouterr().out
