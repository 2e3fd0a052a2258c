"""The table of recipes in docs/models.md is what the configs bring."""

import re
from pathlib import Path

import pytest

from ntil.config.compose import choices, compose
from tests.support.families import model_config

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| `(full_size\w*)` \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", PAGE, re.MULTILINE)


def test_every_full_size_model_has_a_row():
    configs = {name: model_config(name) for name in choices("model")}
    published = {name for name, c in configs.items() if c["checkpoint"] and not c["checkpoint"].startswith("package:")}
    assert {row[0] for row in ROWS} == published
    for name, recipe, *_ in ROWS:
        assert configs[name]["defaults"] == [{"override /recipe@_global_.recipe": recipe}]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_says_what_is_in_force(row):
    model, _, full, lora, beside, alone = row
    chosen = {mode: compose([f"model={model}", f"tuning={mode}"]).optim for mode in ("full", "lora", "projector")}
    assert (chosen["full"].lr, chosen["lora"].lr) == (float(full), float(lora))
    if beside == "-":
        assert chosen["lora"].lr_of is None
        return
    assert chosen["lora"].lr_of == {"projector": float(beside)}
    assert chosen["projector"].lr == float(alone)
