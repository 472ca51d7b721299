"""What an agent plants in its checkout runs nowhere and leads nowhere."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.worker.harness import Repository, Worker, block, git
from worker.trees import is_below

PLANTED = {
    "hooks": """
for hook in pre-commit post-commit pre-push post-checkout post-index-change \
            reference-transaction prepare-commit-msg commit-msg pre-merge-commit post-merge; do
  mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch %s\\n' "$PWNED" > .git/hooks/$hook
  chmod +x .git/hooks/$hook
done
""",
    "config": """
git config core.fsmonitor "touch $PWNED; false"
git config core.hooksPath "$PWD/.git/hooks"
git config core.sshCommand "touch $PWNED"
git config core.editor "touch $PWNED"
git config core.askPass "touch $PWNED"
git config credential.helper "!touch $PWNED"
git config commit.gpgSign true
git config gpg.program "touch $PWNED"
git config alias.push "!touch $PWNED"
git config alias.add "!touch $PWNED"
git config diff.external "touch $PWNED"
git config merge.evil.driver "touch $PWNED"
git config uploadpack.packObjectsHook "touch $PWNED"
git config core.alternateRefsCommand "touch $PWNED"
git config url.ext::sh.insteadOf /
git config include.path "$PWD/evil"
""",
    "filter": """
git config filter.evil.clean "touch $PWNED; cat"
git config filter.evil.smudge "touch $PWNED; cat"
git config filter.evil.process "touch $PWNED"
git config filter.evil.required true
echo '* filter=evil diff=evil merge=evil' > .gitattributes
mkdir -p .git/info; echo '* filter=evil' > .git/info/attributes
""",
    "worktree": """
git config core.worktree /tmp
git config extensions.worktreeConfig true
git config --worktree core.fsmonitor "touch $PWNED"
""",
    "commondir": """
mkdir ../evil; cp -r .git ../evil/; echo "$PWD/../evil/.git" > .git/commondir; rm -rf ../evil
""",
    "index": """
git config core.splitIndex true; git update-index --split-index
git update-index --fsmonitor --assume-unchanged README.md
touch .git/index.lock .git/HEAD.lock
""",
    "submodule": """
git init -q sub; cd sub; git config core.fsmonitor "touch $PWNED; false"
echo 1 > f; git add f; git -c user.name=a -c user.email=b commit -qm x; cd ..
git add sub 2>/dev/null; git -c core.fsmonitor=false commit -qm sub
printf '[submodule "sub"]\\n\\tpath = sub\\n\\turl = ./x\\n' > .gitmodules
echo 2 > sub/f; rm -f "$PWNED"
""",
    "refs": "echo 'ref: ../../../../etc/passwd' > .git/HEAD",
    "head link": "rm .git/HEAD; ln -s /etc/passwd .git/HEAD",
    "alternates": """
echo "$PWD/../nowhere/objects" > .git/objects/info/alternates
echo http://127.0.0.1:1/ > .git/objects/info/http-alternates
""",
    "info link": "rm -r .git/objects/info; ln -s /tmp .git/objects/info",
}


def outcome(worker: Worker, record: dict[str, Any]) -> dict[str, Any]:
    worker.write(record)
    return worker.outcome(record["injection_id"])


@pytest.mark.parametrize("name", PLANTED)
def test_nothing_planted_runs_now_or_in_the_next_attempt(
    worker: Worker, remote: Repository, tmp_path: Path, name: str
) -> None:
    pwned = tmp_path / "pwned"
    script = f"PWNED={pwned}\n{PLANTED[name]}\necho 1 > made; true"
    done = outcome(worker, remote.work("u.1", block({"run": script}, {"run": f"rm -f {pwned}"})))
    assert done["status"] == "completed", done
    assert not pwned.exists()
    told = worker.wait("task_complete", "u.1")["data"]
    assert "made" in told["files_changed"]
    assert remote.refs()["refs/codeswarm/uid-library/1"] == told["head_commit"]
    look = {
        "run": "git status --porcelain; git commit -q --allow-empty -m x; git push . HEAD:refs/x/y"
    }
    done = outcome(worker, remote.work("u.2", block(look), attempt=2, name="next"))
    assert done["status"] == "completed", done
    assert not pwned.exists()


@pytest.mark.parametrize(
    "script",
    [
        "rm -rf .git",
        "mv .git ../stolen; ln -s ../stolen .git",
        "mv .git ../stolen; echo 'gitdir: ../stolen' > .git",
        "git init -q ../other; rm -rf .git; ln -s ../other/.git .git",
        "mv .git/objects ../stolen; ln -s ../stolen .git/objects",
    ],
)
def test_a_git_folder_that_was_replaced_is_refused(
    worker: Worker, remote: Repository, script: str
) -> None:
    done = outcome(worker, remote.work("u.1", block({"run": script + "; echo 1 > made"})))
    assert done["error"]["class"] == "task"
    assert "replaced the checkout's .git" in done["error"]["message"]
    assert not [ref for ref in remote.refs() if "codeswarm" in ref]
    done = outcome(worker, remote.work("u.2", block({"run": "git status"}), attempt=2))
    assert done["status"] == "completed", done


def test_a_checkout_that_became_a_link_is_not_followed(
    worker: Worker, remote: Repository, tmp_path: Path
) -> None:
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("keep")
    script = f"cd ..; mv repo moved; mv git gone; ln -s {outside} repo; ln -s {outside} git"
    outcome(worker, remote.work("u.1", block({"run": script})))
    done = outcome(worker, remote.work("u.2", block({"run": "cat README.md"}), attempt=2))
    assert done["status"] == "completed", done
    assert [p.name for p in outside.iterdir()] == ["file"]


def test_a_submodule_that_became_a_link_does_not_lead_out(
    worker: Worker, remote: Repository, tmp_path: Path
) -> None:
    clone = tmp_path / "sub"
    clone.mkdir()
    git("init", "-q", cwd=clone)
    git("commit", "-q", "--allow-empty", "-m", "x", cwd=clone)
    commit = git("rev-parse", "HEAD", cwd=clone)
    tree = git("ls-tree", remote.base, cwd=remote.path) + f"\n160000 commit {commit}\tsub\n"
    made = subprocess.run(
        ["git", "mktree", "--missing"],
        cwd=remote.path,
        input=tree.encode(),
        capture_output=True,
        check=True,
    )
    remote.base = git(
        "commit-tree", "-m", "sub", "-p", remote.base, made.stdout.decode().strip(), cwd=remote.path
    )
    git("update-ref", "refs/heads/main", remote.base, cwd=remote.path)
    link = f"rmdir sub; ln -s {clone} sub"
    done = outcome(worker, remote.work("u.1", block({"run": link})))
    assert done["status"] == "completed", done
    assert (clone / ".git").is_dir()
    evil = f"git init -q sub; git -C sub config core.fsmonitor 'touch {tmp_path}/pwned; false'"
    done = outcome(
        worker,
        remote.work("u.2", block({"run": evil}, {"write": {"path": "a", "content": ""}}), name="b"),
    )
    assert done["status"] == "completed", done
    assert worker.wait("task_complete", "u.2")["data"]["files_changed"] == ["a"]
    assert not (tmp_path / "pwned").exists()


def test_only_plain_folders_count_as_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert is_below(tmp_path, tmp_path / "a" / "b")
    assert not is_below(tmp_path, tmp_path / "link" / "b")
    assert not is_below(tmp_path, tmp_path / "absent")
