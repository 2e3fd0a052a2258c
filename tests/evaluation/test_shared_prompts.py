"""Questions that share a picture or a long text get the answers that they get one by one, token for token."""

import json
import os
import time
from collections import Counter
from functools import partial, wraps
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForCausalLM, BloomConfig, LlamaForCausalLM, MistralConfig

from benchmarks.packing_checks import PICTURED
from data.common.rows import undecoded
from data.jsonl import Jsonl
from ntil.collator import Collator
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.distributed.ranks import Ranks
from ntil.evaluation import generate as evaluation
from ntil.evaluation import sharing
from ntil.evaluation.prompt_groups import Batches, common_beginning
from ntil.evaluation.shared_prompts import Layout, Prompt, answers
from ntil.models.tuning import tune
from ntil.models.vision_cache import VisionCache
from ntil.preflight import compose_checked
from ntil.runs.folder import folder_of
from tasks.jsonl import table_task
from tests.support.forked import finish
from tests.support.runs import TINY_RUN
from tests.support.tiny_checkpoints import Ask

MODELS = list(PICTURED)
SHAPES = [(60, 48), (48, 48), (100, 40), (40, 100)]
TOKENS = 10


class Parts:
    """A nano model with weights so large that its answers differ from row to row."""

    def __init__(self, name: str, words: tuple[str, ...] = ()) -> None:
        self.config = compose_checked([f"model={name}", "task=clock", "loss=ce", "tracker=none", *words])
        components = Components.build(self.config)
        self.family, self.vocab = components.family, components.vocab
        torch.manual_seed(0)
        self.model = tune(self.family.load(), self.family, self.config.tuning).eval()
        with torch.no_grad():
            for key, weight in self.model.named_parameters():
                if weight.dim() > 1 and "embed" not in key and "lm_head" not in key:
                    weight.mul_(2)

    def collator(self, task=None) -> Collator:
        return Collator(self.family, task or Ask(), self.vocab, "decimal")

    def alone(self, collator: Collator, row, tokens: int = TOKENS) -> list[int]:
        """Ids that the model generates for one row, without any other row, up to the end token."""
        inputs = collator.prompts([row])
        output = self.model.generate(
            **inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=self.family.end_id, pad_token_id=0
        )
        return cut(output[0, inputs["input_ids"].shape[1] :].tolist(), self.family.end_id)

    def shared(self, collator: Collator, groups, tokens: int = TOKENS) -> list[list[int]]:
        prompts = [Prompt.of(collator, rows) for rows in groups]
        return [cut(ids, self.family.end_id) for ids in answers(self.model, self.family, prompts, tokens)]


def cut(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


@pytest.fixture(scope="module", params=MODELS)
def parts(request):
    return Parts(request.param)


def asked(sizes: list[int]) -> list[list[dict]]:
    """Groups of questions, each on a picture of its own shape."""
    return [
        [
            {
                "id": f"{g}-{i}",
                "prompt": f"Which {'very ' * (i % 3)}small number {i} is meant?",
                "answer": "7",
                "image": Image.new("RGB", SHAPES[g % len(SHAPES)], (50 * g % 256, 200 - 40 * g % 200, 90)),
            }
            for i in range(count)
        ]
        for g, count in enumerate(sizes)
    ]


@pytest.fixture(scope="module")
def table(tmp_path_factory, shared):
    """Expressions of RefCOCOg in their order, one to four about a picture; the pictures are drawn."""
    folder = tmp_path_factory.mktemp("table")
    rows = json.loads((shared / "assets/data/gref/gref_val1000_refexps.json").read_text())
    of_picture = Counter(row["image_id"] for row in rows)
    chosen = [name for count in range(1, 5) for name in [n for n, c in of_picture.items() if c == count][:3]]
    for i, name in enumerate(chosen):
        Image.new("RGB", SHAPES[i % len(SHAPES)], (30 * i, 255 - 25 * i, 90)).save(folder / f"{name}.png")
    with (folder / "test.jsonl").open("w") as file:
        for row in rows:
            if row["image_id"] in chosen:
                line = {"image": f"{row['image_id']}.png", "prompt": f"Where is {row['refexp']}?", "answer": 12}
                file.write(json.dumps(line) + "\n")
    return folder / "test.jsonl"


def task_of(table):
    task = table_task(Jsonl("numeric", test=str(table)), "numeric")
    task.max_new_tokens = TOKENS
    return task


def test_a_test_split_is_answered_as_row_by_row(parts, table, monkeypatch):
    task = task_of(table)
    rows, collator = task.rows("test"), parts.collator(task)
    assert 1 < len({task.picture_key(row) for row in undecoded(rows)}) < len(rows)
    ids, decode = [], parts.family.decode

    def noting(generated):
        ids.append(list(generated))
        return decode(generated)

    monkeypatch.setattr(parts.family, "decode", noting)
    calls = counted(monkeypatch)
    records = list(evaluation.predict(parts.model, collator, rows, 16, share_prompts=True))
    assert calls["shared"] > 1
    assert [record["id"] for record in records] == list(rows["id"])
    one_by_one = [parts.alone(collator, row) for row in rows]
    assert [record["text"] for record in records] == [decode(tokens).strip() for tokens in one_by_one]
    together = sorted(cut(tokens, parts.family.end_id) for tokens in ids)
    assert together == sorted(one_by_one)
    assert len({tuple(tokens) for tokens in one_by_one}) > len(rows) // 2
    # Byte for byte the file of the usual way.
    assert records == list(evaluation.predict(parts.model, collator, rows, 16))


def counted(monkeypatch) -> Counter:
    """How many batches are generated in which way."""
    calls: Counter = Counter()

    def counting(name, function):
        def call(*args):
            calls[name] += 1
            return function(*args)

        return call

    monkeypatch.setattr(evaluation, "generate_shared", counting("shared", evaluation.generate_shared))
    monkeypatch.setattr(evaluation, "generate", counting("plain", evaluation.generate))
    return calls


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_groups_of_any_size_and_shape_in_one_batch(parts, attention):
    groups, collator = asked([3, 1, 9, 2]), parts.collator()
    parts.model.set_attn_implementation(attention)
    together = parts.shared(collator, groups)
    one_by_one = [parts.alone(collator, row) for rows in groups for row in rows]
    parts.model.set_attn_implementation("sdpa")
    assert together == one_by_one
    assert len(set(map(tuple, together))) > 10


def test_the_same_prompt_twice(parts):
    (rows,) = asked([2])
    same = [rows[1], {**rows[1], "id": "again"}]
    collator = parts.collator()
    prompt = Prompt.of(collator, same)
    assert [len(question) for question in prompt.questions] == [1, 1]
    assert parts.shared(collator, [same]) == [parts.alone(collator, rows[1])] * 2


def test_answers_end_with_the_end_token_and_at_the_limit(parts, monkeypatch):
    groups, collator = asked([3, 2]), parts.collator()
    usual = parts.shared(collator, groups)
    assert {len(ids) for ids in usual} == {TOKENS}
    assert parts.shared(collator, groups, tokens=1) == [ids[:1] for ids in usual]
    # Some answers end early, others go on beside them.
    end = Counter(token for ids in usual for token in set(ids[1:4])).most_common()[-1][0]
    monkeypatch.setattr(type(parts.family), "end_id", property(lambda family: end))
    ended = parts.shared(collator, groups)
    assert ended == [cut(ids, end) for ids in usual] == [parts.alone(collator, r) for rows in groups for r in rows]
    assert len(set(map(len, ended))) > 1


def test_a_prompt_before_the_picture_is_not_shared(parts, monkeypatch):
    monkeypatch.setattr(type(parts.family), "template", lambda family, prompt, has_image: f"{prompt} <image> Answer:")
    rows = dataset(asked([3, 2]))
    batches = list(rounds(parts, rows, 8))
    assert [batch.shared for batch, _ in batches] == [False]


def dataset(groups) -> Dataset:
    return Dataset.from_list([row for rows in groups for row in rows])


def rounds(parts, rows, batch_size, ranks=None):
    task = Ask()
    batches = Batches(parts.collator(task), rows, batch_size, ranks or Ranks(), True)
    return (one for window in batches.windows() for one in window)


def test_text_with_examples_in_common(monkeypatch):
    parts = Parts("qwen25_nano", ("task=arithmetic",))
    examples = "\n".join(f"{a} + {a + 3} = {2 * a + 3}" for a in range(12, 20))
    prompts = [f"{examples}\n{a} + {b} =" for a in (3, 41) for b in (5, 11, 234, 5)] + ["What?", "2 + 2 ="]
    rows = Dataset.from_list([{"id": str(i), "prompt": p, "answer": "7"} for i, p in enumerate(prompts)])
    collator, calls = parts.collator(), counted(monkeypatch)
    together = [record["text"] for record in evaluation.predict(parts.model, collator, rows, 16, share_prompts=None)]
    assert calls == {"shared": 1, "plain": 1}
    tokens = [parts.alone(collator, row, collator.task.max_new_tokens) for row in rows]
    assert together == [parts.family.decode(ids).strip() for ids in tokens]
    assert len(set(together)) > 4


def test_adapters_are_seen():
    parts = Parts("llava_nano", ("tuning=lora",))
    with torch.no_grad():
        for name, weight in parts.model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    groups, collator = asked([3, 2]), parts.collator()
    together = parts.shared(collator, groups)
    assert together == [parts.alone(collator, row) for rows in groups for row in rows]
    with parts.model.disable_adapter():
        assert together != parts.shared(collator, groups)


def test_the_tower_runs_once_a_picture(tmp_path):
    parts = Parts("llava_nano")
    cache = VisionCache(parts.family, parts.model, tmp_path, 10**8)
    rows, collator = dataset(asked([3, 1, 4])), parts.collator()
    records = list(evaluation.predict(parts.model, collator, rows, 16, share_prompts=True))
    assert (cache.hits, cache.misses) == (0, 3)
    cache.close()
    assert records == list(evaluation.predict(parts.model, collator, rows, 16))


def test_paligemma_goes_on_as_before(table, monkeypatch):
    parts = Parts("paligemma_nano")
    task = task_of(table)
    rows, collator, calls = task.rows("test"), parts.collator(task), counted(monkeypatch)
    records = list(evaluation.predict(parts.model, collator, rows, 16, share_prompts=None))
    assert set(calls) == {"plain"}
    assert records == list(evaluation.predict(parts.model, collator, rows, 16))
    with pytest.raises(ConfigError, match=r"share_prompts=true: PaliGemma reads a prompt in both directions"):
        next(evaluation.predict(parts.model, collator, rows, 16, share_prompts=True))


def test_models_that_cannot_share_are_refused():
    parts = Parts("llama3_nano", ("task=arithmetic",))
    words = len(parts.family.tokenizer)
    assert sharing.refusal(parts.model, parts.family) is None
    window = MistralConfig(
        vocab_size=words, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=32, sliding_window=8,
    )  # fmt: skip
    mistral = AutoModelForCausalLM.from_config(window)
    assert "layers that don't see every token" in str(sharing.refusal(mistral, parts.family))
    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=words, hidden_size=32, n_layer=1, n_head=2))
    assert "BloomForCausalLM takes no position_ids" in str(sharing.refusal(bloom, parts.family))
    flash = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(_attn_implementation="x")))
    assert "model.attn_implementation=x" in str(sharing.refusal(flash, parts.family))


def test_a_model_that_counts_positions_itself_is_noticed(monkeypatch):
    parts = Parts("llama3_nano", ("task=arithmetic",))
    original = LlamaForCausalLM.forward

    @wraps(original)
    def counting(self, *args, position_ids=None, logits_to_keep=0, **kwargs):
        return original(self, *args, logits_to_keep=logits_to_keep, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counting)
    assert "gives other logits" in str(sharing.refusal(parts.model, parts.family))


def test_refused_before_a_training():
    words = ["task=clock", "loss=ce", "tracker=none", "evaluation.share_prompts=true"]
    with pytest.raises(ConfigError, match="PaliGemma reads a prompt in both directions"):
        compose_checked(["model=paligemma_nano", *words])
    with pytest.raises(ConfigError, match="attn_implementation=flash_attention_2 can't keep questions apart"):
        compose_checked(["model=llava_nano", "model.attn_implementation=flash_attention_2", *words])
    assert compose_checked(["model=llava_nano", *words]).evaluation.share_prompts


def test_a_rehearsal_writes_whole_answers(llava, monkeypatch):
    groups, collator = asked([3]), llava.collator()
    first = llava.shared(collator, groups)[0][0]
    monkeypatch.setattr(type(llava.family), "end_id", property(lambda family: first))
    assert len(llava.shared(collator, groups)[0]) == 1
    monkeypatch.setattr(llava.model.generation_config, "min_new_tokens", 1 << 20)
    assert [len(ids) for ids in llava.shared(collator, groups)] == [TOKENS] * 3


@pytest.fixture(scope="module")
def llava():
    return Parts("llava_nano")


def test_all_ranks_have_rounds_of_the_same_kind(llava):
    rows = dataset(asked([5, 1, 2, 1, 3, 1, 2, 4]))
    for size in (1, 2, 3, 4, 8, 100):
        for count in (1, 2, 3):
            of_ranks = [list(rounds(llava, rows, size, Ranks(i, count))) for i in range(count)]
            kinds = [[batch.shared for batch, _ in mine] for mine in of_ranks]
            assert all(kind == kinds[0] for kind in kinds)
            computed = [i for mine in of_ranks for batch, spare in mine if not spare for i in batch.rows]
            assert sorted(computed) == list(range(len(rows)))
            assert all(len(batch.rows) <= size for mine in of_ranks for batch, _ in mine)


def test_a_group_is_cut_only_where_it_does_not_fit(llava):
    rows = dataset(asked([5, 1, 2, 3]))
    batches = [batch for batch, _ in rounds(llava, rows, 5)]
    assert [batch.groups for batch in batches] == [((0, 1, 2, 3, 4),), ((8, 9, 10), (6, 7)), ((5,),)]
    assert [batch.shared for batch in batches] == [True, True, False]


def test_rows_without_anything_in_common_keep_their_batches(llava):
    rows = dataset(asked([1] * 7))
    batches = [(batch.rows, spare) for batch, spare in rounds(llava, rows, 3, Ranks(1, 2))]
    usual = Batches(llava.collator(), rows, 3, Ranks(1, 2), False)
    assert batches == [(batch.rows, spare) for window in usual.windows() for batch, spare in window]


def test_two_ranks_answer_as_one(llava, monkeypatch):
    rows, collator = dataset(asked([4, 1, 2, 3, 1])), llava.collator()
    monkeypatch.setattr(evaluation, "tqdm", SilentBar)
    together = list(evaluation.predict(llava.model, collator, rows, 3, share_prompts=True))
    shards = [
        list(evaluation.predict_shard(llava.model, collator, rows, 3, Ranks(i, 2), share_prompts=True)) for i in (0, 1)
    ]
    assert all(shard == sorted(shard, key=lambda pair: pair[0]) for shard in shards)
    assert [record for _, record in sorted(chain(*shards), key=lambda pair: pair[0])] == together


class SilentBar:
    def __init__(self, **kwargs):
        self.n, self.total = 0, kwargs["total"]

    def update(self, count):
        self.n += count

    def close(self):
        assert self.n <= self.total


def test_records_come_in_order_window_by_window(llava, monkeypatch):
    monkeypatch.setattr("ntil.evaluation.prompt_groups.WINDOW", 4)
    rows = dataset(asked([3, 2, 3]))
    mixed = rows.select([0, 5, 3, 1, 6, 4, 2, 7])
    records = list(evaluation.predict(llava.model, llava.collator(), mixed, 4, share_prompts=True))
    assert [record["id"] for record in records] == list(mixed["id"])


def test_the_cache_is_no_larger_than_that_of_single_rows(shared):
    """`evaluation.batch_size` is chosen for rows that share nothing."""
    rows = json.loads((shared / "assets/data/gref/gref_val1000_refexps.json").read_text())
    counts = sorted(Counter(row["image_id"] for row in rows).values(), reverse=True)
    for beginning in (16, 64, 600):
        prompts = [Prompt([1] * beginning, [[2] * (12 + i % 9) for i in range(n)], {}, beginning) for n in counts[:60]]
        layout = Layout.of(prompts, 20, 0, torch.device("cpu"))
        lanes = layout.used.shape[1]
        shared_tokens = len(layout.ids) * (beginning + layout.ids.shape[1] + 20 * lanes)
        assert shared_tokens <= sum(counts[:60]) * (beginning + 20 + 20)
        assert layout.used.sum() == sum(counts[:60])


def test_what_prompts_begin_with():
    assert common_beginning([[1, 2, 3], [1, 2, 4], [1, 2]]) == [1, 2]
    assert common_beginning([[1, 2]]) == [1, 2]
    assert common_beginning([[1], [2]]) == []


def test_the_key_changes_no_hash():
    def hash_with(value):
        return config_hash(compose_checked(["model=llava_nano", "task=clock", "loss=ce", "tracker=none", *value]))

    assert (
        hash_with([]) == hash_with(["evaluation.share_prompts=true"]) == hash_with(["evaluation.share_prompts=false"])
    )


def note_shared_batches(folder) -> None:
    """In a rank's process: write a file for every batch that is answered from one prefill."""
    original = evaluation.generate_shared

    def noting(model, collator, groups, *rest):
        (folder / f"{os.environ['RANK']}-{time.time_ns()}").touch()
        return original(model, collator, groups, *rest)

    evaluation.generate_shared = noting


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "zero3"])
def test_two_ranks_validate_and_test_as_one_without_sharing(tmp_path, monkeypatch, table, engine):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    words = [*TINY_RUN, "model=llava_nano", "task=jsonl", "task.metric=numeric", "loss=ce", "engine.device=cpu"]
    words += [f"task.source.{split}={table}" for split in ("train", "validation", "test")]
    words += ["optim.steps=2", "evaluation.every_steps=1", "evaluation.batch_size=4", f"engine={engine}"]
    done = {}
    for name, more in {"alone": ["evaluation.share_prompts=false"], "ranks": ["engine.processes=2"]}.items():
        config = compose_checked([*words, *more, f"runs={tmp_path / name}"])
        run = done[name] = folder_of(config)
        run.freeze(config)
        notes = tmp_path / f"notes-{name}"
        notes.mkdir()
        assert not any(finish(run, before=partial(note_shared_batches, notes))), run.error.read_text()
        ranks = {file.name[0] for file in notes.iterdir()}
        assert ranks == (set() if name == "alone" else {"0", "1"})
    assert done["ranks"].predictions.read_text() == done["alone"].predictions.read_text()
    one, two = ([r for r in run.read_history() if "eval_ce" in r] for run in (done["alone"], done["ranks"]))
    assert [r["step"] for r in two] == [1, 2]
    for a, b in zip(one, two, strict=True):
        assert all(b[k] == pytest.approx(a[k], abs=1e-5) for k in a if k.startswith("eval_"))
