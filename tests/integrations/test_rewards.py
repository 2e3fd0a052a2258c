"""Tasks as rewards of TRL's GRPOTrainer."""

import pytest
import torch

from ntil.config.errors import ConfigError
from ntil.integrations.rewards import TaskReward, prompt_rows

CLOCKS = ["task=clock", "task.source.rows={train:8,validation:4,test:4}"]
BOXES = ["task=grounding_nano", "task.source.rows={train:8,validation:4,test:4}"]
SUMS = ["task=arithmetic", "task.source.rows={train:8,validation:4,test:4}"]


def test_rewards_are_the_scores_of_tasks():
    minutes = TaskReward.of("minutes_off", *CLOCKS)
    row = {"hour": [3], "minute": [0]}
    assert [minutes([text], **row) for text in ("03:00", "03:36", "09:00", "noon")] == [[1], [0.9], [0], [0]]
    assert TaskReward.of("exact", *CLOCKS)(["03:00"], **row) == [1]
    assert TaskReward.of("exact", *CLOCKS)(["It is 3:00."], **row) == [0]
    assert TaskReward.of("exact", *CLOCKS, lenient=True)(["It is 3:00."], **row) == [1]
    iou = TaskReward.of("iou", *BOXES)
    assert iou.__name__ == "iou"
    rows = iou.task.rows("train").remove_columns("image")[:2]
    right = [iou.task.answer({name: values[i] for name, values in rows.items()}) for i in range(2)]
    assert iou(right, prompts=["", ""], trainer_state=object(), **rows) == pytest.approx([1, 1], abs=0.1)
    assert iou(["no box", right[1]], **rows)[0] == 0
    chat = [[{"role": "assistant", "content": [{"type": "text", "text": right[0]}]}]]
    assert iou(chat, **{name: values[:1] for name, values in rows.items()})[0] > 0.9
    relative = TaskReward.of("relative_error", *SUMS)
    assert relative(["90", "-100", "x"], answer=["100"] * 3) == pytest.approx([0.9, 0, 0])


def test_an_error_is_a_reward_by_its_worst():
    row = {"hour": [3, 3, 3], "minute": [0, 0, 0]}
    texts = ["03:00", "03:36", "no idea"]
    assert TaskReward.of("deviation", *CLOCKS, worst=360.0)(texts, **row) == [1, 0.9, 0]
    assert TaskReward.of("minutes_off", *CLOCKS, worst=72.0)(texts, **row) == [1, 0.5, 0]
    called_tools = [[{"role": "assistant", "content": None}]]
    assert TaskReward.of("exact", *CLOCKS)(called_tools, hour=[3], minute=[0]) == [0]


@pytest.mark.parametrize(
    ("name", "task", "worst"),
    [
        ("mae", "gsm8k", 100.0),
        ("log_error", "arithmetic", 10.0),
        ("count_error", "detection_nano", 10.0),
        ("duplicates", "detection_nano", 5.0),
        ("count_error", "pointing_nano", 10.0),
    ],
)
def test_what_can_not_be_read_gets_nothing_whatever_the_score(name, task, worst, monkeypatch):
    """The error of such an answer is bounded, so that one of them doesn't decide a mean."""
    source = "task.source.rows={train:4,validation:2,test:2}"
    words = [f"task={task}", *([source] if task != "gsm8k" else [])]
    reward = TaskReward.of(name, *words, worst=worst)
    row = {"id": "1", "answer": "2"} if task in ("gsm8k", "arithmetic") else _undecoded_row(reward.task)
    assert reward.reward("nothing of it can be read", row) == 0
    assert reward.reward(reward.task.answer(row), row) == 1


def _undecoded_row(task):
    return task.rows("train").remove_columns("image")[0]


def test_refusals():
    for name, words in (("deviation", CLOCKS), ("mae", SUMS), ("log_error", SUMS)):
        with pytest.raises(ConfigError, match=f"reward {name}: less of it is better; give worst="):
            TaskReward.of(name, *words)
    with pytest.raises(ConfigError, match="Clock has no score 'iou', only deviation, "):
        TaskReward.of("iou", *CLOCKS)(["03:00"], hour=[3], minute=[0])
    with pytest.raises(ConfigError, match="the rows have no column 'minute'; make them with prompt_rows"):
        TaskReward.of("exact", *CLOCKS)(["03:00"], hour=[3])


@pytest.mark.slow
def test_grpo(tmp_path):
    """GRPOTrainer learns from a reward, with the columns of our rows."""
    trl = pytest.importorskip("trl", reason="the test extra installs trl")
    from tests.support.peers import peer

    p = peer("ce", 1)
    reward = TaskReward(p.components.task, "exact", lenient=True)
    seen = []

    class Noted(TaskReward):
        def __call__(self, *args, **kwargs):
            seen.append(kwargs["answer"])
            return super().__call__(*args, **kwargs)

    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=4,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        save_strategy="no",
    )
    torch.manual_seed(0)
    trainer = trl.GRPOTrainer(
        model=p.model(),
        reward_funcs=Noted(reward.task, "relative_error"),
        args=arguments,
        train_dataset=prompt_rows(reward.task, "train"),
        processing_class=p.components.family.tokenizer,
    )
    trainer.train()
    logged = [line for line in trainer.state.log_history if "rewards/relative_error/mean" in line]
    assert len(logged) == 2
    assert all(0 <= line["rewards/relative_error/mean"] <= 1 for line in logged)
    assert len(seen) == 2
    assert len(seen[0]) == 4
