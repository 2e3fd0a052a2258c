"""The wheel in environments of its own: with torch alone, and with what `ntil[train]` brings, far from a checkout.

Neither environment sees this checkout or an editable installation of it: a path in a .pth file shows packages, not what
their own .pth files would do.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from ntil.config.compose import compose
from ntil.config.identity import config_hash
from ntil.rooms import ROOMS
from tests.support.runs import TINY_RUN

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_paths()["purelib"])
RUN = [*TINY_RUN, "optim.steps=2", "engine=local", "task.source.rows={train:16,validation:4,test:4}"]
LOSSES = """\
import sys, torch, ntil
vocab = ntil.NumberVocab(digit_ids=range(10), point_ids=[10], minus_ids=[11])
logits, labels = torch.randn(2, 5, 32, requires_grad=True), torch.randint(0, 10, (2, 5))
for kind in (ntil.CE, ntil.EMD, ntil.NTIL, ntil.NTL, ntil.SMMD, ntil.DIST2, ntil.SoftLabel, ntil.DEL, ntil.ValueEMD):
    total = kind(vocab)(logits, labels).total
    total.backward()
    assert torch.isfinite(total), kind
roots = {name.partition(".")[0] for name in sys.modules}
print(sorted(roots & {"ntil", "data", "tasks", "conf", "experiments", "transformers", "hydra", "yaml", "numpy"}))
"""
pytestmark = pytest.mark.slow


def do(*command, cwd, **environment):
    """Run a command with nothing of this environment's variables that names modules."""
    foreign = ("PYTHONPATH", "PYTHONSAFEPATH", "NTIL_CONFIG_PATH", "NTIL_PACKAGES", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    variables = {**kept, "WANDB_MODE": "offline", **environment}
    return subprocess.run([*map(str, command)], cwd=cwd, env=variables, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("installed")


@pytest.fixture(scope="module")
def wheel(place):
    """The wheel, built from a copy, since building leaves folders behind."""
    source = place / "source"
    for name in ("ntil", *ROOMS):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = do(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", place / "wheels", source, cwd=place)
    assert done.returncode == 0, done.stderr
    (file,) = (place / "wheels").iterdir()
    return file


def installed(place: Path, wheel: Path, packages: Path) -> Path:
    """Python of a fresh environment with the wheel, which sees the packages of a folder too."""
    done = do(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent)
    assert done.returncode == 0, done.stderr
    python = place / "bin" / "python"
    own = Path(do(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=place).stdout.strip())
    (own / "packages.pth").write_text(f"{packages}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    done = do(*pip, "install", "--no-deps", "--no-index", wheel, cwd=place)
    assert done.returncode == 0, done.stderr
    added = {path.name for path in own.iterdir()} - {"packages.pth", "__pycache__"}
    assert {name.partition("-")[0] for name in added} == {"ntil"}
    return python


def links_to_torch(folder: Path) -> Path:
    """A folder that shows torch, the packages that its metadata require, and no others."""
    folder.mkdir()
    pending, seen = ["torch"], set()
    while pending:
        name = pending.pop()
        if name in seen or not (SITE / f"{name}.dist-info").parent.exists():
            continue
        seen.add(name)
        try:
            listed = distribution(name)
        except ModuleNotFoundError:  # a requirement of other platforms
            continue
        for top in {Path(file).parts[0] for file in listed.files or () if not str(file).startswith("..")}:
            if (SITE / top).exists() and not (folder / top).exists():
                (folder / top).symlink_to(SITE / top)
        plain = [line for line in listed.requires or () if "extra ==" not in line]
        pending += [re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0] for line in plain]
    return folder


def test_the_wheel_holds_one_package_with_all_of_the_framework(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        sources = {name: archive.read(name).decode() for name in names if name.endswith(".py")}
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"ntil"}
    kinds = (".py", ".yaml", ".json", ".j2", ".txt")
    expected = {
        str(Path(*(() if room == "ntil" else ("ntil",)), file.relative_to(ROOT)))
        for room in ("ntil", *ROOMS)
        for file in (ROOT / room).rglob("*")
        # The start of a small model is of use in a checkout alone, and larger than all else.
        if file.suffix in kinds and not {"__pycache__", "starts"} & {*file.parts}
    }
    assert {name for name in names if name.endswith(kinds) and ".dist-info/" not in name} == expected
    pattern = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(ROOMS)})\b", re.MULTILINE)
    assert not [name for name, text in sources.items() if pattern.search(text)]
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert required == ["Requires-Dist: torch>=2.8"]


def test_with_torch_alone_the_losses_work_and_training_names_its_extra(place, wheel):
    python = installed(place / "torch-alone", wheel, links_to_torch(place / "torch"))
    losses = do(python, "-W", "ignore", "-c", LOSSES, cwd=place)
    assert losses.returncode == 0, losses.stderr
    assert losses.stdout == "['ntil']\n"
    assert do(python.parent / "ntil", "--help", cwd=place).returncode == 0
    refused = do(python.parent / "ntil", "train", cwd=place)
    assert refused.returncode == 2
    assert re.fullmatch(r"ntil train: needs '\w+'; `pip install 'ntil\[train\]'` brings it\n", refused.stderr)


def listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_a_plugin_trains_far_from_a_checkout_and_nothing_is_written_into_the_installation(place, wheel):
    python = installed(place / "train", wheel, SITE)
    package = next((place / "train").rglob("site-packages/ntil"))
    do(python, "-m", "compileall", "-q", package, cwd=place)
    for path in (package, *package.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = listing(package)
    work = place / "work"
    work.mkdir()
    for name in ("data.py", "tasks.py", "conf.py"):  # a user's, which nothing of ntil may meet
        (work / name).write_text("raise SystemExit('not yours')\n")
    ntil, cache = python.parent / "ntil", {"NTIL_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    assert do(ntil, "new", "loss", "steep", cwd=work).returncode == 0
    done = do(ntil, "train", "--config-dir", "conf", "loss=steep", "task=clock", *RUN, cwd=work, **cache)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    (metrics,) = work.glob("runs/**/metrics.json")
    run = metrics.parent
    assert "steep_loss" in (run / "code.json").read_text()
    # The run is the one that a checkout would make: the same targets, the same identity.
    assert "target: tasks.clock:Clock" in (run / "config.yaml").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NTIL_CONFIG_PATH", str(work / "conf"))
        config = compose(["loss=steep", "task=clock", *RUN])
    assert run.name == f"seed0-{config_hash(config)}"
    assert listing(package) == before
    changed = work / "steep_loss.py"
    changed.write_text(changed.read_text().replace(".abs()", ".square()"))
    again = do(ntil, "train", "--config-dir", "conf", "loss=steep", "task=clock", *RUN, cwd=work, **cache)
    assert again.returncode == 2
    assert "steep_loss changed since" in again.stderr
    report = do(ntil, "report", "--config-dir", "conf", f"runs={run}", "examples=1", cwd=work, **cache)
    assert report.returncode == 0, report.stderr
