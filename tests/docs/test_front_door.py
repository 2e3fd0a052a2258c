"""What a visitor reads first: citation, changes, Dockerfile, templates and workflow agree with the project."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import ntil

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
# Fields of an issue form, and what each must have (the forms' documented syntax).
FIELDS = {"markdown": {"value"}, "textarea": {"label"}, "input": {"label"}, "checkboxes": {"label", "options"}}


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == ntil.__version__
    assert citation["license"] == PROJECT["license"]
    people = [person for work in (citation, *citation["references"]) for person in work["authors"]]
    assert all(person.keys() in ({"name"}, {"given-names", "family-names"}) for person in people)
    readme = (ROOT / "README.md").read_text()
    assert f"version = {{{ntil.__version__}}}" in readme
    for work in (citation, *citation["references"]):
        assert f"title = {{{work['title']}}}" in readme


def test_the_changes_begin_with_this_version_and_have_notes():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ntil.__version__
    notes = (ROOT / f"docs/release-notes-{ntil.__version__}.md").read_text()
    assert notes.startswith(f"# Release notes: {ntil.__version__}\n")


def instructions():
    """Instructions of the Dockerfile: (word, the rest as one line)."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_the_image_has_the_pinned_torch_and_starts_as_a_user():
    steps = instructions()
    (torch,) = re.findall(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    installs = [rest for word, rest in steps if word == "RUN" and rest.startswith("pip install")]
    assert installs[0].split()[-1] == torch  # before anything that could pull another build of it
    constraints = re.search(r"--constraint (\S+)", installs[1])
    assert constraints
    assert (ROOT / constraints[1]).is_file()
    (base,) = [rest for word, rest in steps if word == "FROM"]
    version = re.fullmatch(r"python:(\d+\.\d+)-\w+-\w+", base)
    assert version
    assert f">={version[1]}" == PROJECT["requires-python"]
    last = dict(steps)
    assert last["USER"] not in ("root", "0")
    assert last["ENTRYPOINT"] == '["ntil"]'
    assert "ntil" in PROJECT["scripts"]


def test_the_dockerfile_is_linted():
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint isn't installed (the image extra brings it): the Dockerfile isn't linted")
    result = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("file", [t for t in TEMPLATES if t.stem != "config"], ids=lambda file: file.stem)
def test_an_issue_form_is_one(file):
    form = yaml.safe_load(file.read_text())
    assert {"name", "description", "body"} <= form.keys()
    names = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(set(names)) == len(names) > 0
    for field in form["body"]:
        assert FIELDS[field["type"]] <= field["attributes"].keys()
    for page in re.findall(r"docs/[\w-]+\.md", file.read_text()):
        assert (ROOT / page).is_file(), page


def test_the_pull_request_template_names_commands_that_exist():
    template = (ROOT / ".github/PULL_REQUEST_TEMPLATE.md").read_text()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)`", template)) <= set(targets)
    for path in re.findall(r"(?:ntil|tests)/[\w/]+\.py", template):
        assert (ROOT / path).is_file(), path


def test_the_workflow_calls_the_ci_script_and_may_only_read():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {"contents": "read"}
    assert [step["run"] for step in job["steps"] if ".ci/run" in step.get("run", "")] == ["bash .ci/run"]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    assert "secrets." not in (ROOT / ".github/workflows/ci.yml").read_text()
    (python,) = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert f">={python}" == PROJECT["requires-python"]
