"""Every text config of conf/model on a tiny checkpoint in its layout with its REAL tokenizer."""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks import text_checkpoints
from ntil.components import Components
from ntil.evaluation.generate import generate
from ntil.models.causal_lm import CausalLM
from ntil.models.head import SupervisedHead
from ntil.models.saving import load_saved, save
from ntil.models.tuning import tune
from ntil.numbers.spans import NumberSpans
from ntil.preflight import compose_checked
from ntil.train.trainer import build_trainer
from tests.support.chosen import slow_but
from tests.support.families import model_config

PROMPT = "What is 1234 + 56.5? {braces} <b>café</b>"
ANSWERS = ["7", "-3", "1024", "1290.5", "-0.05", "12 and 345", "x=-3, y=4", "1000000"]
# What each prompt is by its family's own account, and the token that ends an answer.
CHAT_ML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
EXPECTED = {
    "qwen25_7b": ("Question: {}\nAnswer:", "<|im_end|>"),
    "qwen25_1_5b": ("Question: {}\nAnswer:", "<|im_end|>"),
    "qwen3_0_6b": (f"{CHAT_ML}<think>\n\n</think>\n\n", "<|im_end|>"),
    "smollm2_135m": (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        + CHAT_ML,
        "<|im_end|>",
    ),
    "llama3_2_1b": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "gemma3_270m": ("<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>"),
    "llama3_8b": ("<|begin_of_text|>Question: {}\nAnswer:", "<|end_of_text|>"),
    "yi_6b": ("Question: {}\nAnswer:", "<|endoftext|>"),
    "minicpm3_4b": (CHAT_ML, "<|im_end|>"),
    "baichuan2_7b": ("Question: {}\nAnswer:", "</s>"),
}
STEP = [
    "engine=local",
    "optim.steps=1",
    "optim.warmup=0",
    "optim.batch_size=16",
    "evaluation.every_steps=0",
    "curriculum=none",
]
TASK = ["task=arithmetic", "task.source.rows={train:64,validation:8,test:16}", "task.source.decimals=1"]


def configured(name, folder, *words):
    return compose_checked(
        [f"model={name}", f"model.checkpoint={folder}", "model.dtype=float32", "loss=ntil", *TASK, *words]
    )


# One of each tokenizer and class in the quick run: Qwen2.5-1.5B differs from the 7B in tied embeddings only.
SLOW = ("qwen25_1_5b", "smollm2_135m", "llama3_2_1b", "gemma3_270m")
CASES = slow_but(set(text_checkpoints.NAMES).difference(SLOW), text_checkpoints.NAMES)


@pytest.fixture(scope="module", params=CASES)
def parts(request, shared, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("NTIL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    folder = text_checkpoints.write(request.param, shared, tmp_path_factory.mktemp(request.param))
    components = Components.build(configured(request.param, folder))
    yield request.param, folder, components
    patch.undo()


@pytest.fixture(scope="module")
def model(parts):
    return parts[2].family.load().eval()


def raw_ids(folder, text):
    """By the `tokenizers` library alone, from the file as it was published."""
    return raw(folder).encode(text, add_special_tokens=False).ids


@cache
def raw(folder):
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_ids_are_those_of_the_familys_own_text(parts):
    name, folder, components = parts
    form, end = EXPECTED[name]
    before = form.replace("{}", PROMPT)
    blank = "" if components.family.chat else " "
    tokens = components.family.tokenizer.convert_ids_to_tokens
    for answer in ANSWERS:
        encoded = components.family.encode(PROMPT, answer, None)
        assert encoded.prompt_ids == raw_ids(folder, before)
        every = raw_ids(folder, before + blank + answer + end)
        if not name.startswith("llama3"):
            assert encoded.prompt_ids + encoded.answer_ids == every
        else:
            # LLaMA-3's own spelling with every merged number taken apart, and nothing else.
            apart = [c for t in tokens(every[len(encoded.prompt_ids) :]) for c in (t if t.isdigit() else [t])]
            assert every[: len(encoded.prompt_ids)] == encoded.prompt_ids
            assert tokens(encoded.answer_ids) == apart
            merges = re.search("[0-9]{2}", answer) is not None
            assert (encoded.prompt_ids + encoded.answer_ids != every) == merges
        assert tokens(encoded.answer_ids[-1]) == end
        assert components.family.decode(encoded.answer_ids).strip() == answer


def test_every_digit_of_an_answer_is_seen_with_its_value(parts):
    _, _, components = parts
    for answer in ANSWERS:
        ids = torch.tensor(components.family.encode(PROMPT, answer, None).answer_ids)
        spans = NumberSpans.find(ids, components.vocab)
        assert spans.is_digit.sum() == sum(c.isdigit() for c in answer)
        assert spans.value[spans.is_number].tolist() == [float(n) for n in re.findall(r"-?[0-9]+(?:\.[0-9]+)?", answer)]
    rows = components.task.rows("train")
    batch = components.collator([rows[i] for i in range(32)])
    written = sum(c.isdigit() for i in range(32) for c in components.task.answer(rows[i]))
    assert batch["spans"].is_digit.sum() == written


def test_labels_are_the_answers_and_their_ends(parts):
    _, _, components = parts
    rows = [components.task.rows("train")[i] for i in range(6)]
    batch = components.collator(rows)
    ids = batch["input_ids"].reshape(-1)
    assert torch.equal(ids[batch["positions"] + 1], batch["targets"])
    ends = (batch["targets"] == components.family.end_id).nonzero().flatten() + 1
    pieces = batch["targets"].tensor_split(ends)[:-1]
    assert [components.family.decode(p.tolist()).strip() for p in pieces] == [components.task.answer(r) for r in rows]


def test_supervised_logits_are_the_full_logits_there(parts, model):
    _, _, components = parts
    batch = components.collator([components.task.rows("train")[i] for i in range(6)])
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        full = model(**inputs).logits
        picked = SupervisedHead(model).logits(model, inputs, batch["positions"])
    torch.testing.assert_close(picked, full.flatten(0, 1)[batch["positions"]], atol=1e-5, rtol=0)


def test_batched_generation_is_single_generation(parts, model):
    _, _, components = parts
    rows = [components.task.rows("test")[i] for i in range(8)]
    widths = {len(components.collator.encode(r, None).prompt_ids) for r in rows}
    assert len(widths) > 1
    single = [generate(model, components.collator, [r])[0] for r in rows]
    assert generate(model, components.collator, rows) == single
    # A checkpoint's repetition penalty and sampling are off: greedy is the argmax, token by token.
    ids = components.collator.prompts(rows[:1])["input_ids"]
    written: list[int] = []
    with torch.no_grad():
        for _ in range(components.task.max_new_tokens):
            written.append(
                int(model(torch.cat([ids, torch.tensor([written], dtype=torch.long)], 1)).logits[0, -1].argmax())
            )
            if written[-1] == components.family.end_id:
                break
    assert components.family.decode(written) == single[0]


@pytest.mark.slow
def test_one_step_then_save_and_reload(parts, tmp_path):
    name, folder, components = parts
    torch.manual_seed(0)
    trainer = trained(components, configured(name, folder, *STEP), tmp_path)
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    batch = components.collator([components.task.rows("train")[i] for i in range(4)])
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        after, before = model(**inputs).logits, components.family.load()(**inputs).logits
    assert (after - before).abs().max() > 1e-4
    # What the Trainer writes on the way, it finds again by the model's own names.
    model.save_pretrained(tmp_path / "way")
    found = model.load_state_dict(text_checkpoints.read(tmp_path / "way"), strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) <= {"lm_head.weight"}
    assert not found.missing_keys or model.config.tie_word_embeddings
    components.family.save(model, tmp_path / "model")
    with torch.no_grad():
        again = components.family.load(tmp_path / "model").eval()(**inputs).logits
    torch.testing.assert_close(again, after, atol=1e-5, rtol=0)
    # The saved folder is a checkpoint like any other, with its tokenizer and no remote code.
    other = Components.build(configured(name, tmp_path / "model"))
    row = components.task.rows("train")[0]
    assert other.collator.encode(row, "12.5") == components.collator.encode(row, "12.5")
    assert "auto_map" not in (tmp_path / "model/tokenizer_config.json").read_text()


@pytest.mark.slow
def test_adapters_are_saved_and_come_back(parts, tmp_path):
    name, folder, components = parts
    config = configured(name, folder, *STEP, "tuning=lora", "tuning.rank=2")
    model = tune(components.family.load(), components.family, config.tuning)
    adapted = {n.rpartition(".lora_A")[0] for n, _ in model.named_parameters() if "lora_A" in n}
    linear = {n for n, m in model.named_modules() if n.endswith("_proj") and "layers" in n}
    latent = {n for n, m in model.named_modules() if n.endswith("with_mqa")}
    assert adapted == linear | latent
    assert len(adapted) == 2 * (8 if name == "minicpm3_4b" else 7)
    batch = components.collator([components.task.rows("train")[i] for i in range(4)])
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        before = model.eval()(**inputs).logits
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_()
        after = model(**inputs).logits
    assert (after - before).abs().max() > 1e-2
    save(model, components.family, tmp_path / "adapter")
    with torch.no_grad():
        again = load_saved(components.family, tmp_path / "adapter").eval()(**inputs).logits
    torch.testing.assert_close(again, after, atol=1e-5, rtol=0)


def trained(components, config, place):
    rows = components.task.rows("train")
    trainer = build_trainer(config, components, components.family.load(), rows, place / "checkpoints")
    trainer.train()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minicpm3", "llama3", "qwen2_5"])
def test_chat_templates_are_the_tokenizers_own(tmp_path, shared, name):
    """With template=null: ids of prompt and answer as `apply_chat_template` gives them."""
    config = {"minicpm3": "minicpm3_4b", "llama3": "llama3_8b", "qwen2_5": "qwen25_7b"}[name]
    folder = text_checkpoints.write(config, shared, tmp_path)
    family = Components.build(configured(config, folder, "model.template=null", "model.bos=false")).family
    own = PreTrainedTokenizerFast.from_pretrained(folder)
    asked = [{"role": "user", "content": PROMPT}]
    for answer in ["7", "-3.5"]:
        encoded = family.encode(PROMPT, answer, None)
        assert encoded.prompt_ids == own.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        told = own.apply_chat_template([*asked, {"role": "assistant", "content": answer}])["input_ids"]
        mine = encoded.prompt_ids + encoded.answer_ids
        if name == "llama3":  # its `3` after a point and before nothing merges with nothing, so these are the same too
            assert len(mine) < len(told)
        assert told[: len(mine)] == mine
        # What the template writes after the end of turn is a blank or the next turn, never part of the answer.
        assert family.tokenizer.eos_token == {"minicpm3": "<|im_end|>", "llama3": "<|eot_id|>"}.get(name, "<|im_end|>")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "template"),
    [("qwen3_0_6b", "qwen3"), ("llama3_2_1b", "llama3_2"), ("gemma3_270m", "gemma3")],
)
def test_published_templates_write_the_same(tmp_path, shared, config, template):
    """The releases' own chat templates, as TRL has copies of them."""
    place = files("trl") / "chat_templates" / f"{template}.jinja"
    assert place.is_file()
    folder = text_checkpoints.write(config, shared, tmp_path)
    family: Any = Components.build(configured(config, folder)).family
    ids = family.encode(PROMPT, "12", None).prompt_ids
    own = PreTrainedTokenizerFast.from_pretrained(folder)
    asked, options = [{"role": "user", "content": PROMPT}], family.template_options
    published = own.apply_chat_template(asked, chat_template=place.read_text(), add_generation_prompt=True, **options)
    assert published["input_ids"] == ids
    if config != "gemma3_270m":  # which has no option: without it, a prompt of today, or one that asks for thoughts
        assert own.apply_chat_template(asked, add_generation_prompt=True)["input_ids"] != ids


@pytest.mark.slow
def test_gemma3s_token_of_pictures_has_no_row_and_is_refused(tmp_path, shared):
    folder = text_checkpoints.write("gemma3_270m", shared, tmp_path)
    family = Components.build(configured("gemma3_270m", folder)).family
    assert family.end_id == 106
    assert max(family.tokenizer.get_vocab().values()) == family.config.vocab_size == 262144
    for prompt, answer in (("<image_soft_token>", "1"), ("What?", "<image_soft_token>")):
        with pytest.raises(ValueError, match=r"holds '<image_soft_token>', and this model reads no pictures"):
            family.encode(prompt, answer, None)


def test_options_of_a_template_need_one():
    with pytest.raises(ValueError, match=r"model\.template_options are for a checkpoint's chat template"):
        CausalLM(template="{prompt}", template_options={"enable_thinking": False})


FAMILIES = {
    "qwen3_0_6b": ["qwen3_1_7b", "qwen3_4b", "qwen3_8b"],
    "smollm2_135m": ["smollm2_360m", "smollm2_1_7b"],
    "llama3_2_1b": ["llama3_2_3b"],
    "gemma3_270m": ["gemma3_1b"],
}


@pytest.mark.parametrize(("first", "other"), [(first, n) for first, others in FAMILIES.items() for n in others])
def test_sizes_of_a_family_differ_in_name_and_checkpoint_alone(first, other):
    one, two = map(model_config, (first, other))
    assert {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)} == {"name", "checkpoint"}


def test_yi_has_no_blank_before_the_first_word(tmp_path, shared):
    """AutoTokenizer would rebuild it as Llama's and add one; the file and Yi's report (2403.04652) don't."""
    folder = text_checkpoints.write("yi_6b", shared, tmp_path)
    family = Components.build(configured("yi_6b", folder)).family
    assert family.tokenizer.convert_ids_to_tokens(family.encode("Hi", None, None).prompt_ids)[0] == "Question"
    assert AutoTokenizer.from_pretrained(folder).tokenize("Question")[0] == "▁Question"  # the trap is still there
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "LlamaTokenizer"
