"""Each family asked for a box in its own words, and the text before the first turn that LLaVA-1.5 was trained with."""

import pytest

from data.common.errors import UserError
from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.preflight import compose_checked

ROWS = "task.source.rows={train:2,validation:2,test:2}"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


def asked(*words):
    """What a model reads of the first row but the picture's tokens, and the row's expression."""
    config = compose([ROWS, *words])
    components = Components.build(config)
    row = components.task.rows("train")[0]
    prompt = components.task.prompt(row)
    encoded = components.collator.encode(row, components.task.answer(row))
    written = components.family.tokenizer.decode(encoded.prompt_ids, clean_up_tokenization_spaces=False)
    return components.family.template(prompt, True), written, row["expression"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("model", "full"),
    [
        (
            "llava_nano",
            "<s>USER: <image>\nPlease provide the bounding box coordinate of the region this sentence describes: "
            "{expression} ASSISTANT:",
        ),
        ("paligemma_nano", "<image><s>detect {expression}\n"),
        (
            "qwen2_vl_nano",
            "<|im_start|>user\n<|vision_start|><image><|vision_end|><|object_ref_start|>{expression}<|object_ref_end|>"
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "qwen2_5_vl_nano",
            "<|im_start|>user\n<|vision_start|><image><|vision_end|>Locate {expression} in this image and output the "
            "bbox coordinates in JSON format.<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "internvl_nano",
            "<|im_start|>user\n<img><image></img>\nPlease provide the bounding box coordinate of the region this "
            "sentence describes: <ref>{expression}</ref><|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "qwen3_vl_nano",
            "<|im_start|>user\n<|vision_start|><image><|vision_end|>Locate every object that matches the description "
            '"{expression}" in the image. Report bbox coordinates in JSON format.<|im_end|>\n<|im_start|>assistant\n',
        ),
    ],
)
def test_a_family_is_asked_in_its_own_words(model, full):
    template, written, expression = asked(f"model={model}", "task=grounding_nano", "task.question_style=family")
    assert template == full.replace("{expression}", expression)
    before, _, after = template.partition("<image>")
    assert written.startswith(before)
    assert written.endswith(after)
    common, _, _ = asked(f"model={model}", "task=grounding_nano")
    assert f"Where is {expression}?" in common
    assert ("answer en" in common) == (model == "paligemma_nano")


def test_several_things_are_listed_as_a_family_lists_them():
    for words, asks in (
        (["task.question_style=family"], "<image><s>detect {}\n"),
        ([], "<image><s>answer en Find all of these in the picture and give the box and the name of each: {}.\n"),
    ):
        config = compose([ROWS, "model=paligemma_nano", "task=detection_nano", *words])
        components = Components.build(config)
        row = components.task.rows("train")[0]
        assert len(row["asked"]) == 2
        names = (" ; " if words else ", ").join(row["asked"])
        assert components.family.template(components.task.prompt(row), True) == asks.format(names)
        assert components.collator.encode(row, components.task.answer(row)).answer_ids
    config = compose([ROWS, "model=qwen3_vl_nano", "task=detection_nano", "task.question_style=family"])
    task = Components.build(config).task
    row = task.rows("train")[0]
    assert task.prompt(row) == (
        f"Locate every instance that belongs to the following categories: '{', '.join(row['asked'])}'. "
        "Report bbox coordinates in JSON format."
    )
    components = Components.build(
        compose([ROWS, "model=paligemma_nano", "task=grec_nano", "task.question_style=family"])
    )
    row = components.task.rows("train")[0]
    assert components.task.prompt(row) == f"detect {row['question']}"
    with pytest.raises(UserError, match="no words of their own for detection"):
        compose_checked(["model=llava_nano", "task=detection_nano", "task.question_style=family"])


def test_a_family_without_words_of_its_own_is_refused():
    for model in ("yi_vl_nano", "smolvlm_nano", "llava_ov_nano"):
        with pytest.raises(UserError, match="publish no words of their own for grounding; leave it out"):
            compose_checked([f"model={model}", "task=grounding_nano", "task.question_style=family"])
    with pytest.raises(ConfigError, match=r"task.question_style=.*must be 'common' or 'family'"):
        compose_checked(["task=grounding_nano", "task.question_style=theirs"])
    with pytest.raises(ConfigError, match=r"task.own_question follows from the model and can't be set"):
        compose_checked(["task=grounding_nano", "+task.own_question=x"])


def test_the_common_question_is_the_run_of_before():
    base = config_hash(compose(["task=grounding_nano"]))
    assert config_hash(compose(["task=grounding_nano", "task.question_style=null"])) == base
    assert config_hash(compose(["task=grounding_nano", "task.question_style=family"])) != base


def test_the_text_before_the_first_turn():
    for words, text in ((["model.system=vicuna_v1"], f"{VICUNA} "), (["model.system=Hello."], "Hello. "), ([], "")):
        template, written, _ = asked("model=llava_nano", "task=grounding_nano", *words)
        assert template.startswith(f"<s>{text}USER: <image>\n")
        assert written.startswith(f"<s>{text}USER: ")
    assert config_hash(compose(["model.system=vicuna_v1"])) != config_hash(compose([]))
