"""The workflows of GitHub: least rights, pinned actions, and commands that exist; and the script that publishes."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]


def jobs(file):
    return yaml.safe_load(file.read_text())["jobs"]


def steps(file):
    return [step for job in jobs(file).values() for step in job["steps"]]


def test_workflows_are_book_release_and_weekly():
    assert [file.name for file in WORKFLOWS] == ["book.yml", "release.yml", "weekly.yml"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda f: f.name)
def test_workflow_rights_are_the_least(file):
    assert yaml.safe_load(file.read_text())["permissions"] == {"contents": "read"}
    more = {name: job["permissions"] for name, job in jobs(file).items() if "permissions" in job}
    needed = {"book.yml": {"publish": {"contents": "write"}}, "release.yml": {"upload": {"id-token": "write"}}}
    assert more == needed.get(file.name, {})
    for name, job in jobs(file).items():
        assert job["timeout-minutes"] <= 240
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@") and name != "publish":
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda f: f.name)
def test_workflow_actions_are_pinned_to_commits(file):
    used = re.findall(r"uses: (.*)", file.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda f: f.name)
def test_workflow_commands_are_targets_of_make(file):
    called = [word for step in steps(file) for word in re.findall(r"\bmake ([\w-]+)", step.get("run", ""))]
    assert called and set(called) <= TARGETS


def test_main_is_built_tested_and_only_then_published():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    triggers = workflow[True]  # YAML 1.1 reads the key "on" as a truth value
    assert triggers == {"push": {"branches": ["main"]}, "pull_request": None}
    test, publish = workflow["jobs"]["test"], workflow["jobs"]["publish"]
    assert [step["run"] for step in test["steps"] if "run" in step] == ["make book", "make test"]
    assert publish["needs"] == "test" and "refs/heads/main" in publish["if"] and "push" in publish["if"]
    assert "-W -n" in (ROOT / "Makefile").read_text()


def test_oldest_and_newest_versions_are_tested():
    """The lowest declared versions every week and before a release; each Python from the lowest on for every change."""
    files = {file.stem: jobs(file) for file in WORKFLOWS}
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert files["book"]["unit"]["strategy"]["matrix"]["python"][0] == lowest
    for job in (files["weekly"]["oldest"], files["release"]["oldest"]):
        assert job["steps"][-1]["run"] == "make test-oldest"
    assert "--resolution lowest-direct" in (ROOT / "Makefile").read_text()


def test_a_release_is_uploaded_only_when_tested_and_approved():
    upload = jobs(ROOT / ".github/workflows/release.yml")["upload"]
    assert set(upload["needs"]) == jobs(ROOT / ".github/workflows/release.yml").keys() - {"upload"}
    assert upload["environment"] == "pypi"
    assert "--trusted-publishing always" in upload["steps"][-1]["run"]
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


def test_hooks_check_what_make_test_checks():
    assert {hook["entry"].split()[1] for hook in HOOKS} == {"lint", "types", "unit"} <= TARGETS


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def clone(tmp_path):
    """A repository with a remote, as a publisher has it."""
    git(tmp_path, "init", "--quiet", "--bare", "remote.git")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "clone")
    folder = tmp_path / "clone"
    (folder / ".ci").mkdir()
    (folder / ".ci/publish").write_text((ROOT / ".ci/publish").read_text())
    (folder / ".ci/publish").chmod(0o755)
    (folder / ".gitignore").write_text("_build/\n")
    for name, value in (("user.name", "Ann"), ("user.email", "ann@example.org")):
        git(folder, "config", name, value)
    git(folder, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Start")
    return folder


def test_publish_script_replaces_gh_pages(clone, tmp_path):
    html, remote = clone / "_build/html", tmp_path / "remote.git"
    assert subprocess.run([clone / ".ci/publish"], capture_output=True).returncode == 1  # nothing has been built
    (html / "_static").mkdir(parents=True)
    (html / "index.html").write_text("one")
    (html / "_static/old.css").write_text("")
    subprocess.run([clone / ".ci/publish"], check=True)
    assert git(remote, "ls-tree", "-r", "--name-only", "gh-pages").split() == [
        ".nojekyll",
        "_static/old.css",
        "index.html",
    ]
    (html / "index.html").write_text("two")
    (html / "_static/old.css").unlink()
    for _ in range(2):  # the second time there is nothing new
        subprocess.run([clone / ".ci/publish"], check=True)
    assert git(remote, "ls-tree", "-r", "--name-only", "gh-pages").split() == [".nojekyll", "index.html"]
    assert git(remote, "show", "gh-pages:index.html") == "two"
    assert git(remote, "log", "--format=%an", "gh-pages").split() == ["Ann", "Ann"]
    assert git(clone, "status", "--porcelain", "--branch").strip() == "## main"
