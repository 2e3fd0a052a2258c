"""Damaged files of every source: rows, a counted skip or one sentence; never a traceback, never another truth."""

import os

import pytest

from tests.support.fuzzed import grounding, objects, truths
from tests.support.fuzzed.harness import Fuzzer

SOURCES = {source.name: source for source in (*grounding.SOURCES, *objects.SOURCES, *truths.SOURCES)}
# Mutations of all sources together. The first 20,000 have all been run once; their seeds never change, so most say the
# same again: `NTIL_FUZZ=20000` after a change of the fuzzer or of many readers.
FAST, SLOW = 300, int(os.environ.get("NTIL_FUZZ", 4_000))

# (source, seed) that once ended in something else.
REGRESSIONS = [
    *(("coco", seed) for seed in (2, 8, 13, 14, 17, 19, 24, 50, 57, 67, 70, 86)),
    *(("yolo", seed) for seed in (51, 91, 1578, 2080)),
    *(("refer", seed) for seed in (37, 47)),
    ("table-numeric.parquet", 322),
    ("table-exact.csv", 2420),
    *(("math-mathv360k.json", seed) for seed in (111, 403)),
    ("text-mmocr", 251),
    ("clock-own.jsonl", 13),
]


@pytest.fixture
def fuzzer(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    return lambda name: Fuzzer(SOURCES[name], tmp_path / "files")


@pytest.mark.parametrize("name", SOURCES)
def test_some_mutations(fuzzer, name):
    mutations = fuzzer(name)
    regressions = [seed for source, seed in REGRESSIONS if source == name]
    for seed in [*regressions, *range(FAST // len(SOURCES) + 1)]:
        mutations.run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_many_mutations(fuzzer, name):
    mutations = fuzzer(name)
    for seed in range(SLOW // len(SOURCES) + 1):
        mutations.run(seed)
