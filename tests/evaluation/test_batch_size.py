"""Rows that generate at once, where memory decides: of tasks with pictures too, and with long true answers."""

import pytest

from ntil.components import Components
from ntil.config.compose import compose
from ntil.distributed.ranks import Ranks
from ntil.evaluation import batch_size
from tests.support.runs import TINY_RUN

WORDS = [
    *TINY_RUN,
    "loss=ce",
    "engine=local",
    "task.source.rows={train:8,validation:4,test:4}",
    "evaluation.batch_size=null",
]


@pytest.mark.parametrize("words", [["task=clock"], ["model=qwen25_nano", "task=arithmetic"], ["task=grounding_nano"]])
def test_it_is_what_the_dearest_of_cache_and_logits_leave(words, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    config = compose([*WORDS, *words])
    components = Components.build(config)
    model, collator, rows = components.family.load(), components.collator, components.task.rows("test")
    encoded = [collator.encode(row, components.task.answer(row)) for row in rows]
    answer = max(len(e.answer_ids) for e in encoded)
    tokens = int(1.25 * max(len(e.prompt_ids) for e in encoded)) + components.task.max_new_tokens
    cache = batch_size.key_value_bytes_per_token(model) * tokens
    logits = batch_size.LOGIT_BYTES * int(1.25 * answer) * model.config.get_text_config().vocab_size
    for free, dearest in ((20 * max(cache, logits), max(cache, logits)), (1, 1 << 40)):
        monkeypatch.setattr(batch_size, "free_memory", lambda device, free=free: free)
        chosen = batch_size.evaluation_batch_size(config, model, collator, rows, Ranks())
        assert chosen == max(1, int(free / 2 / dearest))


def test_every_beam_has_a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    components = Components.build(compose([*WORDS, "task=clock"]))
    model, rows = components.family.load(), components.task.rows("test")
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 40_000_000)
    one, four = (
        batch_size.evaluation_batch_size(
            compose([*WORDS, "task=clock", *words]), model, components.collator, rows, Ranks()
        )
        for words in ([], ["evaluation.generation.beams=4"])
    )
    assert 1 < four <= one / 4
