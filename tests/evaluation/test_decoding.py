"""Generation settings and decodings on small models: what is drawn, what is kept, and what the records say."""

import json
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ntil.components import Components
from ntil.config.answering import GenerationConfig
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash, identity
from ntil.config.schema import RunConfig
from ntil.distributed.ranks import Ranks
from ntil.evaluation.continuations import Continuations
from ntil.evaluation.decoding import (
    Decoder,
    answers_with_trees,
    consensus,
    decode,
    distributions_of,
    encoded_answer,
)
from ntil.evaluation.decoding_metrics import decoding_metrics
from ntil.evaluation.generate import evaluate_to, generate, predict, predict_shard
from ntil.evaluation.number_trees import Next
from ntil.evaluation.sampling import RowSampler, drawn, uniform_numbers
from ntil.models.base import Encoded
from ntil.numbers.vocab import NumberVocab
from tasks.gsm8k import GSM8K
from tests.support.tiny_checkpoints import Ask, ask

WORDS = ["loss=ntil", "tracker=none", "task.source.rows={train:8,validation:2,test:6}"]
SIX = 6
END = Next(np.zeros(10), 0.0, 0.0, 1.0)


def of(*words: str):
    """Components, a model of random weights that differ from row to row, and test rows."""
    components = Components.build(compose([*WORDS, *words]))
    torch.manual_seed(0)
    model = components.family.load().eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in key and "lm_head" not in key:
                weight.mul_(2)
    return components, model, components.task.rows("test")


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield of("model=llava_nano", "task=clock")


def evaluation(*words: str):
    return compose([*WORDS, "model=llava_nano", "task=clock", *words]).evaluation


# settings


def test_what_is_usual_changes_no_hash():
    before = config_hash(compose([]))
    for words in (["evaluation.decoding=greedy"], ["evaluation.generation={beams:1,top_k:null,stop:[]}"]):
        assert config_hash(compose(words)) == before
    assert {"generation", "decoding", "backend", "server"}.isdisjoint(identity(compose([]))["evaluation"])


def test_settings_are_part_of_the_identity_in_one_form():
    hashes = [
        config_hash(compose([f"evaluation.{word}"]))
        for word in ("decoding=median", "generation.beams=4", "generation.samples=4", "generation.stop=['.']")
    ]
    assert len({*hashes, config_hash(compose([]))}) == 5
    named = ["evaluation.generation={samples:4,temperature:1,top_p:1,seed:0}", "evaluation.decoding=[greedy]"]
    assert config_hash(compose(named)) == hashes[2]
    both = [compose([f"evaluation.decoding=[{a},{b}]"]) for a, b in (("median", "expected"), ("expected", "median"))]
    assert config_hash(both[0]) == config_hash(both[1])
    assert RunConfig.from_dict(both[0].to_dict()).evaluation.decoding == ["expected", "median"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.decoding=meidan"], "did you mean 'median'"),
        (["evaluation.decoding=consensus"], r"set evaluation\.generation\.samples=8"),
        (["evaluation.generation.temperature=0.7"], r"is for samples; set evaluation\.generation\.samples"),
        (["evaluation.generation={samples:2,temperature:0}"], "must be above 0"),
        (["evaluation.generation={samples:2,top_p:1.5}"], r"must lie in \(0, 1\]"),
        (["evaluation.generation.beams=0"], "at least 1"),
        (["evaluation.generation.stop=['']"], "empty text"),
        (["evaluation.generation.beams=2", "evaluation.share_prompts=true"], "can't share prompts"),
        (["evaluation.backend=vllm"], "no back-end 'vllm'"),
        (["evaluation.backend=openai"], r"needs evaluation\.server\.url"),
    ],
)
def test_settings_that_can_not_be_are_refused_by_key(words, message):
    with pytest.raises(ConfigError, match=message):
        compose(words)


# sampling


def test_a_token_is_drawn_with_its_probability():
    logits = torch.tensor([0.5, -1.0, 2.0, -torch.inf])
    uniform = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    counts = drawn(logits.expand(20000, -1), uniform).bincount(minlength=4) / 20000
    torch.testing.assert_close(counts, torch.softmax(logits, -1), atol=1e-4, rtol=0)


def test_numbers_of_a_sample_are_its_own():
    numbers = {key: tuple(uniform_numbers(*key, 5).tolist()) for key in product((0, 1), ("a", "b"), (0, 1))}
    assert len(set(numbers.values())) == 8
    assert tuple(uniform_numbers(0, "a", 0, 3).tolist()) == numbers[0, "a", 0][:3]


def test_top_k_and_top_p_leave_what_they_should():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    for settings, allowed in (({"top_k": 1}, {0}), ({"top_p": 0.7}, {0, 1}), ({}, {0, 1, 2, 3})):
        generation = GenerationConfig(samples=1, **settings)
        drawn_ids = set()
        for k in range(200):
            sampler = RowSampler(generation, ["row"], k, 1, 2)
            drawn_ids.add(int(sampler(torch.zeros(1, 1, dtype=torch.long), scores).argmax()))
        assert drawn_ids == allowed


def test_samples_do_not_depend_on_batch_or_rank(clock):
    components, model, rows = clock
    asked = evaluation("evaluation.generation={samples:3,temperature:1.5,seed:5}")
    records = list(predict(model, components.collator, rows, SIX, evaluation=asked))
    texts = [[one["text"] for one in record["sampled"]] for record in records]
    assert len({text for of_row in texts for text in of_row}) > SIX  # they differ from row to row, and in a row
    assert records == list(predict(model, components.collator, rows, 2, evaluation=asked))
    parts = [list(predict_shard(model, components.collator, rows, 2, Ranks(i, 2), evaluation=asked)) for i in (0, 1)]
    assert [r for _, r in sorted((pair for part in parts for pair in part), key=lambda p: p[0])] == records
    other = list(
        predict(
            model,
            components.collator,
            rows,
            SIX,
            evaluation=evaluation("evaluation.generation={samples:3,temperature:1.5,seed:6}"),
        )
    )
    assert [r["text"] for r in other] == [r["text"] for r in records]  # greedy ones
    assert [r["sampled"] for r in other] != [r["sampled"] for r in records]


def test_one_allowed_token_is_greedy(clock):
    components, model, rows = clock
    batch = [rows[i] for i in range(3)]
    sampled = generate(model, components.collator, batch, None, GenerationConfig(samples=1, top_k=1), 0)
    assert sampled == generate(model, components.collator, batch)


# beams and stop texts


def test_beams_find_what_transformers_finds(clock):
    components, model, rows = clock
    batch = [rows[i] for i in range(2)]
    inputs = components.collator.prompts(batch)
    end, pad = components.family.end_id, components.family.tokenizer.pad_token_id
    output = model.generate(
        **inputs, num_beams=3, do_sample=False, max_new_tokens=8, eos_token_id=end, pad_token_id=pad
    )
    width = inputs["input_ids"].shape[1]
    asked = evaluation("evaluation.generation.beams=3")
    # Left to itself, sharing gives way to the beam search.
    records = list(predict(model, components.collator, rows.select([0, 1]), 2, share_prompts=None, evaluation=asked))
    assert [r["text"] for r in records] == [components.family.decode(ids).strip() for ids in output[:, width:].tolist()]


def test_a_stop_text_ends_an_answer_whether_prompts_are_shared_or_not(clock):
    components, model, _ = clock
    from ntil.collator import Collator

    collator = Collator(components.family, Ask(), components.vocab, "decimal")
    rows = ask(["7", "7", "7"])
    for row in rows:
        row["image"] = rows[0]["image"]
    texts = generate(model, collator, rows, 8)
    stop = texts[0].strip()[1]
    from datasets import Dataset
    from datasets import Image as Picture

    table = Dataset.from_list(rows).cast_column("image", Picture())
    for share in (True, False):
        asked = replace(evaluation(), generation=GenerationConfig(stop=[stop]))
        records = list(predict(model, collator, table, 3, share_prompts=share, evaluation=asked))
        full = [r["text"] for r in predict(model, collator, table, 3, share_prompts=share)]
        assert [r["text"] for r in records] == [text.partition(stop)[0].strip() for text in full]
        assert any(stop in text for text in full)


# decodings


def brute(components, model, row, prefix_ids, places):
    """Probability of every number of so many digits after the prefix, and that it ends there, without a tree."""
    collator, vocab = components.collator, components.vocab
    inputs = collator.prompts([row])
    chances = {}
    for digits in product(range(10), repeat=places):
        ids = [*prefix_ids, *(vocab.digit_ids[d] for d in digits)]
        full = {**inputs, "input_ids": torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)}
        full["attention_mask"] = torch.ones_like(full["input_ids"])
        with torch.no_grad():
            p = torch.softmax(model(**full).logits[0].double(), -1)
        start = inputs["input_ids"].shape[1] + len(prefix_ids) - 1
        chance = 1.0
        for i, d in enumerate(digits):
            chance *= float(p[start + i, vocab.digit_ids[d]])
        after = p[start + places]
        others = [*vocab.digit_ids, *vocab.point_ids, *vocab.merged_ids]
        chances[tuple(ids[len(prefix_ids) :])] = chance, float(1 - after[list(others)].sum())
    return chances


@pytest.mark.parametrize("shares", [True, False])
def test_a_number_has_the_models_own_distribution(clock, monkeypatch, shares):
    components, model, rows = clock
    if not shares:
        monkeypatch.setattr("ntil.evaluation.continuations.refusal", lambda *_: "not here")
    row = rows[0]
    encoded = encoded_answer(components.collator, row, "10:35")
    assert encoded is not None
    continuations = Continuations(model, components.collator, 16)
    (one,) = answers_with_trees(components.collator, continuations, [row], ["10:35"], [encoded], True)
    assert [components.family.tokenizer.decode(encoded.answer_ids[n.start : n.end]) for n in one.numbers] == [
        "10",
        "35",
    ]
    assert one.together is not None
    exact = brute(components, model, row, encoded.answer_ids[: one.numbers[1].start], 2)
    leaves = [leaf for leaf in one.trees[1].leaves if leaf.numbers[0] in exact]
    assert len(leaves) > 10
    for leaf in leaves:
        chance, ends = exact[leaf.numbers[0]]
        assert leaf.probability == pytest.approx(chance if leaf.assumed else chance * ends, rel=1e-4)
    second = distributions_of(one, components.collator)[1]
    assert second is not None
    assert second.chances.sum() == pytest.approx(1)


def test_location_tokens_are_read_from_one_forward_exactly(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    components, model, rows = of("model=paligemma_nano", "task=grounding_nano")
    assert components.vocab.one_place
    row = rows[0]
    text = components.task.answer(row)
    encoded = encoded_answer(components.collator, row, text)
    continuations = Continuations(model, components.collator, 4)
    monkeypatch.setattr(continuations, "after", lambda prompts, beginnings: [[] for _ in prompts])
    (one,) = answers_with_trees(components.collator, continuations, [row], [text], [encoded], True)
    batch = components.collator([row])
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values", "token_type_ids") if k in batch}
    with torch.no_grad():
        logits = model(**inputs).logits.reshape(-1, model.config.get_text_config().vocab_size)[batch["positions"]]
    digits = torch.tensor(components.vocab.digit_ids)
    for number, distribution in zip(one.numbers, distributions_of(one, components.collator), strict=True):
        assert distribution is not None
        expected = torch.softmax(logits[number.start, digits].double(), -1)
        np.testing.assert_allclose(distribution.chances, expected, atol=1e-6)
    assert [len(box) for box in one.boxes] == [4]
    # x1, y1, x2, y2 of a format that writes y first.
    assert [one.numbers[i].start for i in one.boxes[0]] == sorted(n.start for n in one.numbers)[1::-1] + sorted(
        n.start for n in one.numbers
    )[3:1:-1]
    asked = compose(["evaluation.decoding=[expected,median,bayes]"]).evaluation
    fields = Decoder(asked, 4).fields(model, components.collator, [row], [text], lambda k: [])
    assert fields[0]["decoded"] == {"as_generated": False, "covered": 1.0, "assumed": 0.0}
    assert all(one["text"].startswith("<loc") for one in fields[0]["decodings"].values())


def test_what_can_not_be_decoded_stays_as_it_is_generated(clock):
    components, model, rows = clock
    asked = evaluation("evaluation.decoding=[expected,bayes]")
    fields = Decoder(asked, 4).fields(
        model, components.collator, [rows[0], rows[1]], ["no time", "03:20"], lambda k: []
    )
    assert fields[0]["decoded"]["as_generated"]
    assert {one["text"] for one in fields[0]["decodings"].values()} == {"no time"}
    assert not fields[1]["decoded"]["as_generated"]
    assert 0 < fields[1]["decoded"]["covered"] <= 1


def test_a_number_with_thousands_commas_stays_as_it_is_generated():
    """An answer of GSM8K, whose model is torn between 1,000 and 999, in tokens of one character."""
    characters = "0123456789.-,# \n"
    vocab = NumberVocab(range(10), point_ids=10, minus_ids=11, comma_ids=12)
    texts = {"#### 1,000": 0.51, "#### 999": 0.49}
    answers = {tuple(map(characters.index, text)): chance for text, chance in texts.items()}

    def after(prefix):
        p = np.zeros(len(characters) + 1)
        for ids, chance in answers.items():
            if ids[: len(prefix)] == tuple(prefix):
                p[(*ids, len(characters))[len(prefix)]] += chance
        return Next(p[:10] / p.sum(), 0.0, 0.0, 1 - p[:10].sum() / p.sum(), p[12] / p.sum()) if p.sum() else END

    no_source: Any = None
    task = GSM8K(no_source, reasoning=True)
    family = SimpleNamespace(decode=lambda ids: "".join(characters[i] for i in ids))
    collator: Any = SimpleNamespace(
        vocab=vocab, family=family, task=task, unmeasured=lambda *_: [], boxes=lambda *_: []
    )
    continuations: Any = SimpleNamespace(
        along=lambda encoded: [[after(e.answer_ids[:i]) for i in range(len(e.answer_ids))] for e in encoded],
        after=lambda prompts, beginnings: [[after(prefix) for prefix in of_row] for of_row in beginnings],
    )
    for ids, text in zip(answers, texts, strict=True):
        encoded = Encoded([], list(ids), {})
        (one,) = answers_with_trees(collator, continuations, [{}], [text], [encoded], True)
        distributions = [d for d in distributions_of(one, collator) if d is not None]
        assert len(one.numbers) == ("," not in text)
        for name in ("expected", "median", "bayes"):
            assert decode(name, one, distributions, collator, {}) == text
    assert not Components.build(compose([*WORDS, "model=llava_nano", "task=clock"])).task.groups_thousands({})


def test_bayes_leaves_numbers_of_which_little_could_be_followed(clock, monkeypatch):
    components, model, rows = clock
    asked = evaluation("evaluation.decoding=[expected,median,bayes]")
    monkeypatch.setattr("ntil.evaluation.number_trees.LIMIT", 1)  # no tree comes further than its first token
    fields = Decoder(asked, 4).fields(model, components.collator, [rows[0]], ["03:20"], lambda k: [])
    assert fields[0]["decoded"]["covered"] < 0.5
    assert {one["text"] for one in fields[0]["decodings"].values()} == {"03:20"}


def test_the_consensus_is_the_sample_nearest_to_all(clock):
    components, _, rows = clock
    task, row = components.task, rows[0]
    assert consensus(task, ["11:58", "12:03", "never", "12:01"], row) == "12:01"
    assert consensus(task, ["never", "ever"], row) == "never"


def test_every_decoding_has_its_metrics(clock, tmp_path):
    components, model, rows = clock
    asked = evaluation("evaluation.decoding=[median,consensus]", "evaluation.generation.samples=4")
    records = list(predict(model, components.collator, rows, SIX, evaluation=asked))
    for record in records:
        assert set(record["decodings"]) == {"median", "consensus"}
        assert len(record["sampled"]) == 4
        assert record["decodings"]["consensus"]["text"] in {one["text"] for one in record["sampled"]}
    plain = list(predict(model, components.collator, rows, SIX))
    assert [{k: r[k] for k in p} for r, p in zip(records, plain, strict=True)] == plain
    metrics = evaluate_to(tmp_path / "predictions.jsonl", records, components.task.summarize)
    assert {k: v for k, v in metrics.items() if not k.startswith("decoding/")} == components.task.summarize(plain)
    by_hand = [one["scores"]["deviation"] for record in records for one in record["sampled"]]
    assert metrics["decoding/sampled/deviation"] == pytest.approx(sum(by_hand) / len(by_hand))
    by_hand = [record["decodings"]["median"]["scores"]["deviation"] for record in records]
    assert metrics["decoding/median/deviation"] == pytest.approx(sum(by_hand) / len(by_hand))
    assert 0 <= metrics["decoding/as_generated"] <= 1
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(r) + "\n" for r in plain))
    assert decoding_metrics(tmp_path / "plain.jsonl", components.task.summarize) == {}
