"""What others send - run folders, weights, predictions - is data: no command runs it or writes outside its folder.

Every command that opens a run folder is tried on tampered ones (docs/security.md).
"""

import html
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from experiments import compare, report
from ntil.commands import evaluate, export, replay, status
from ntil.config.compose import report_errors
from ntil.launch.sweep import Sweep
from ntil.preflight import compose_checked
from ntil.runs.folder import RunFolder, find_runs
from tests.support.chosen import slow_but

ARCHIVE = Path(__file__).parent / "golden" / "runs_of_format_1.zip"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Finished runs, brought to the present format, with a batch to replay, and the cache of their data."""
    place = tmp_path_factory.mktemp("runs")
    shutil.unpack_archive(ARCHIVE, place)
    for folder in find_runs(place / "runs" / "finished"):
        folder.freeze(folder.config())
        folder.replay.mkdir()
        ids = [str(record["id"]).replace("-test-", "-train-") for record in folder.read_predictions()][:1]
        batch = {"step": 1, "rank": 0, "ids": ids, "weights": "model", "components": {}}
        (folder.replay / "batch.json").write_text(json.dumps(batch))
        shutil.copytree(folder.model, folder.replay / "model")
    return place


@pytest.fixture
def place(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NTIL_CACHE", str(archive / "cache"))
    return tmp_path


@pytest.fixture
def run(archive, place):
    """One finished run, below the folder where the test works, and one to compare it with."""
    copied(archive, "clock/llava_nano/ce")
    return copied(archive, "clock/llava_nano/ntil")


@pytest.fixture
def adapter(archive, place):
    return copied(archive, "clock/llava_nano/emd")


def copied(archive: Path, name: str) -> RunFolder:
    finished = Path("runs", "finished")
    shutil.copytree(archive / finished / name, finished / name)
    return find_runs(finished / name)[0]


@pytest.fixture
def witness(tmp_path, monkeypatch):
    """A module on the path that leaves a file when it is imported or called, and the file."""
    mark = tmp_path / "code-ran"
    module = tmp_path / "stranger.py"
    module.write_text(
        "import pathlib\n"
        f"MARK = pathlib.Path({str(mark)!r})\nMARK.touch()\n"
        "def call(*arguments, **options):\n    MARK.touch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return mark


BASE = "runs/finished/clock/llava_nano/ce"
COMMANDS: dict[str, Callable[[RunFolder], int | None]] = {
    "eval": lambda f: evaluate.main([f"run={f.path}"]),
    "report": lambda f: report.main([f"runs={f.path}", "examples=1"]),
    "compare": lambda f: compare.main([str(f.path), BASE]),
    "export": lambda f: export.main([f"run={f.path}", "to=out"]),
    "replay": lambda f: replay.main([f"run={f.path}"]),
    "status": lambda f: status.main([str(f.path)]),
    "train": lambda f: Sweep().run(f.config()),
}


def code_and_sentence(command, folder, capsys):
    code = report_errors(lambda: COMMANDS[command](folder))
    captured = capsys.readouterr()
    return code, captured.err.strip()


def tamper(folder: RunFolder, change) -> None:
    config = yaml.safe_load(folder.config_file.read_text())
    change(config)
    folder.config_file.write_text(yaml.safe_dump(config, sort_keys=False))


TARGETS = ("os:system", "stranger:call", "ntil.cli:main", "tasks.base:Path")
# Which components a command builds: of the others it takes names and values alone.
BUILT = {
    "eval": ("model", "task", "loss", "source", "extractor"),
    "replay": ("model", "task", "loss", "source", "extractor"),
    "export": ("model", "task", "source"),
    "report": ("task", "source", "extractor"),
    "compare": ("task", "source", "extractor"),
    "status": (),
    "train": ("model", "task", "loss", "source", "extractor"),
}


@pytest.mark.parametrize(("command", "group"), [(c, g) for c in BUILT for g in BUILT["eval"]])
def test_a_target_is_a_class_of_its_group(run, witness, capsys, command, group):
    untouched = run.config_file.read_text()
    for target in TARGETS:
        run.config_file.write_text(untouched)
        tamper(run, lambda config, target=target: point(config, group, target))
        code, sentence = code_and_sentence(command, run, capsys)
        if group in BUILT[command]:
            assert code == 2, sentence
            assert target.partition(":")[0] in sentence or group == "extractor"
            assert len(sentence.splitlines()) == 1
        else:
            break  # one is enough: the command doesn't look
    assert not witness.exists()


def point(config: dict, group: str, target: str) -> None:
    if group == "source":
        config["task"]["source"]["target"] = target
    elif group == "extractor":
        config["task"]["extractor"] = {"target": target}
    else:
        config[group]["target"] = target


def test_a_package_of_ones_own_is_declared_in_the_process_not_in_the_folder(run, witness, capsys, monkeypatch):
    tamper(run, lambda c: c["loss"].update(target="stranger:call"))
    assert code_and_sentence("eval", run, capsys)[0] == 2
    assert not witness.exists()
    monkeypatch.setenv("NTIL_PACKAGES", "stranger")
    code, sentence = code_and_sentence("eval", run, capsys)
    assert witness.exists()
    assert code == 2
    assert "has no NumberLoss 'call'" in sentence


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plug-in beside the witness, not active: its YAML names a module that doesn't run by itself."""
    folder = tmp_path / "my_conf" / "loss"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("name: mine\ntarget: mine_of_test:Mine\n")
    mark = tmp_path / "plugin-ran"
    (tmp_path / "mine_of_test.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nfrom ntil.losses import CE\n\n\nclass Mine(CE):\n    pass\n"
    )
    return folder.parent, mark


def test_a_run_folder_makes_no_plugin_active(run, plugin, witness, capsys, monkeypatch):
    folder, mark = plugin
    # A stranger's folder may bring configs and a record of code, too.
    shutil.copytree(folder, run.path / "my_conf")
    run.code.write_text(json.dumps({"stranger": "0" * 64, "mine_of_test": "0" * 64}))
    tamper(run, lambda c: c["loss"].update(target="mine_of_test:Mine"))
    for command in COMMANDS:
        code_and_sentence(command, run, capsys)
    code, sentence = code_and_sentence("eval", run, capsys)
    assert code == 2
    assert "--config-dir" in sentence
    assert not mark.exists()
    monkeypatch.setenv("NTIL_CONFIG_PATH", str(folder))
    tamper(run, lambda c: c["loss"].update(target="stranger:call"))
    assert code_and_sentence("eval", run, capsys)[0] == 2  # it lies beside the configs, and none of them names it
    assert not witness.exists()
    assert not mark.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_leads_out_of_a_folder(run, tmp_path, capsys, command):
    untouched = run.config_file.read_text()
    for name in ("../../outside", "/tmp/outside", "..", ".hidden", "a/b", "a\\b"):
        for group in ("task", "model", "loss"):
            run.config_file.write_text(untouched)
            tamper(run, lambda c, group=group, name=name: c[group].update(name=name))
            code, sentence = code_and_sentence(command, run, capsys)
            assert code == 2
            assert f"{group}.name=" in sentence
    assert not list(tmp_path.parent.glob("outside*"))


@pytest.mark.parametrize("name", ["..", "a/../../b", "/absolute", ".hidden"])
def test_nor_the_name_of_the_runs(run, capsys, name):
    tamper(run, lambda c: c.update(name=name))
    code, sentence = code_and_sentence("train", run, capsys)
    assert code == 2
    assert "name=" in sentence


HUGE = 3 << 30


@pytest.mark.parametrize(
    ("command", "file"),
    [
        *((c, "config.yaml") for c in COMMANDS),
        *((c, "metrics.json") for c in ("report", "compare", "export")),
        ("report", "predictions.jsonl"),
        ("compare", "predictions.jsonl"),
        ("report", "history.jsonl"),
        ("report", "environment.json"),
        ("report", "digits.json"),
        ("replay", "replay/batch.json"),
    ],
)
def test_a_huge_file_is_refused_before_it_is_read(run, capsys, command, file):
    with (run.path / file).open("r+b") as out:
        out.truncate(HUGE)  # sparse: it takes no space
    code, sentence = code_and_sentence(command, run, capsys)
    assert code == 2
    assert f"has {HUGE:,} bytes" in sentence
    assert len(sentence.splitlines()) == 1


NO_CONFIGS = {
    "aliases that multiply": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)),
    "depth": "[" * 2_000,
    "a Python object": "!!python/object/apply:os.system ['touch code-ran']\n",
    "a list": "- a\n- list\n",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_config_that_is_none(run, tmp_path, capsys, command):
    for name, text in NO_CONFIGS.items():
        run.config_file.write_text(text)
        code, sentence = code_and_sentence(command, run, capsys)
        assert code == 2, name
        assert "the file is damaged" in sentence
    assert not (tmp_path / "code-ran").exists()


class _Touch:
    def __reduce__(self):
        return (Path.touch, (Path("code-ran"),))


@pytest.mark.parametrize("command", ["eval", "export", "replay"])
@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("kind", ["run", "adapter"])
def test_pickled_weights_in_a_run_folder_are_not_read(request, tmp_path, capsys, command, allowed, kind):
    """Not even where the folder's own config says that they may be."""
    folder = request.getfixturevalue(kind)
    for model in (folder.model, folder.replay / "model"):
        for weights in model.glob("*.safetensors"):
            weights.unlink()
        for name in ("pytorch_model.bin", "model.bin", "adapter_model.bin"):
            (model / name).write_bytes(pickle.dumps(_Touch()))
    tamper(folder, lambda c: c["model"].update(allow_pickle=allowed))
    code, sentence = code_and_sentence(command, folder, capsys)
    assert not (tmp_path / "code-ran").exists()
    assert code == 2
    assert "safetensors" in sentence


@pytest.mark.parametrize("name", ["weights.bin", "modeling.py", "link.json"])
def test_an_export_hands_on_weights_and_settings_alone(run, tmp_path, capsys, name):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    if name == "link.json":
        (run.model / name).symlink_to(secret)
    else:
        (run.model / name).write_text("")
    code, sentence = code_and_sentence("export", run, capsys)
    assert code == 2
    assert name in sentence
    assert not Path("out").exists()


def test_nor_from_a_checkpoint_unless_asked_for_by_name(run, tmp_path, capsys):
    """`model.checkpoint` of others: safetensors; with model.allow_pickle=true tensors alone."""
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(run.model, checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(_Touch()))
    overrides = ["model=llava_nano", "task=clock", f"model.checkpoint={checkpoint}", "model.image_size=24"]
    overrides += ["model.patch_size=12", "task.source.rows={train:8,validation:4,test:4}"]
    overrides += ["model.vision=null", "model.language=null"]
    from ntil.components import Components

    def load(*more):
        config = compose_checked([*overrides, *more])
        return report_errors(lambda: Components.build(config).family.load() and 0)

    assert weights
    assert load() == 2
    assert "set model.allow_pickle=true" in capsys.readouterr().err
    assert load("model.allow_pickle=true") == 2
    assert not (tmp_path / "code-ran").exists()


@pytest.mark.parametrize("command", ["eval", "export", "replay"])
def test_code_beside_weights_is_not_run(run, witness, tmp_path, capsys, command):
    """`auto_map`, remote code's door in transformers, leads nowhere; and peft imports no module that a folder names."""
    for folder in (run.model, run.replay / "model"):
        shutil.copy(tmp_path / "stranger.py", folder / "stranger.py")
        for name in ("config.json", "tokenizer_config.json"):
            config = json.loads((folder / name).read_text())
            config["auto_map"] = {"AutoConfig": "stranger.call", "AutoTokenizer": ["stranger.call", "stranger.call"]}
            (folder / name).write_text(json.dumps(config))
    code_and_sentence(command, run, capsys)
    assert not witness.exists()


@pytest.mark.parametrize("command", ["eval", "export", "replay"])
def test_an_adapter_that_names_a_module(adapter, witness, capsys, command):
    for model in (adapter.model, adapter.replay / "model"):
        file = model / "adapter_config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "megatron_config": {}, "megatron_core": "stranger"}))
    code, sentence = code_and_sentence(command, adapter, capsys)
    assert code == 2
    assert "megatron_config" in sentence
    assert not witness.exists()


def test_html_in_what_a_model_said_is_text(run):
    attack = "<script>alert('1')</script>"
    lines = [json.loads(line) for line in run.predictions.read_text().splitlines()]
    run.predictions.write_text("".join(json.dumps({**line, "text": attack, "answer": attack}) + "\n" for line in lines))
    tamper(run, lambda c: c["loss"].update(name="<img src=x onerror=alert(2)>"))
    assert report.main([f"runs={run.path}", "examples=2", "to=page"]) == 0
    (page,) = Path("page").glob("*.html")
    text = page.read_text()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(2)&gt;" in text


NO_ANSWERS = ["{", "[1]", '"text"', "\x00", "{}", '{"id": 1, "answer": 2}']


@pytest.mark.parametrize("line", slow_but(["{", "{}"], NO_ANSWERS))
def test_predictions_that_are_none_are_named(run, line):
    lines = run.predictions.read_text().splitlines()
    run.predictions.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    assert report.main([f"runs={run.path}", "examples=2", "to=page"]) == 0, "other runs have their tables"
    (page,) = Path("page").glob("*.html")
    assert "predictions.jsonl, line 2" in html.unescape(page.read_text())


def test_a_report_writes_into_its_folder_alone(run, tmp_path):
    before = {p for p in tmp_path.rglob("*") if "cache" not in p.parts}
    assert report.main([f"runs={run.path}", "examples=1", "to=page"]) == 0
    written = {p for p in tmp_path.rglob("*") if "cache" not in p.parts} - before
    assert written
    assert all(Path("page").resolve() in (p.resolve(), *p.resolve().parents) for p in written)
