"""The sshd of the tests itself, with OpenSSH's own client: what the other tests build on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.sshd import Sshd


def ssh(sshd: Sshd, *words: str, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    """OpenSSH's client, that takes nothing from this machine's user."""
    given = [f"UserKnownHostsFile={sshd.known_hosts}", "IdentitiesOnly=yes", "IdentityAgent=none"]
    given += ["BatchMode=yes", "ConnectTimeout=5", "StrictHostKeyChecking=yes", *options]
    command = ["ssh", "-F", "none", "-i", str(sshd.key), "-p", str(sshd.port)]
    command += [word for option in given for word in ("-o", option)]
    command += [f"{sshd.user}@127.0.0.1", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def test_login_with_a_home_and_an_environment_of_its_own(tmp_path: Path) -> None:
    with Sshd(tmp_path / "a", environment={"SLURM_CONF": "/a b/slurm.conf"}) as sshd:
        code, out, err = ended(ssh(sshd, 'echo "$HOME|$SLURM_CONF"'))
        assert (code, out.strip()) == (0, f"{sshd.home}|/a b/slurm.conf"), err


def test_it_goes_away_and_comes_back_on_its_port_with_another_key(tmp_path: Path) -> None:
    with Sshd(tmp_path / "a") as sshd:
        port = sshd.port
        sshd.stop()
        assert "refused" in ended(ssh(sshd, "true"))[2]
        sshd.start()
        assert sshd.port == port and ended(ssh(sshd, "true"))[0] == 0
        sshd.rekey()
        assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in ended(ssh(sshd, "true"))[2]


def test_sessions_are_cut_but_what_runs_in_them_sees_the_end_of_its_input(tmp_path: Path) -> None:
    with Sshd(tmp_path / "a") as sshd:
        flag = tmp_path / "pid"
        session = ssh(sshd, f"echo $$ > {flag}; exec sleep 3600")
        deadline = time.monotonic() + 10
        while not (flag.exists() and flag.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        pid = int(flag.read_text())
        assert sshd.sessions() == 1
        sshd.cut()
        assert ended(session)[0] == 255
        assert sshd.sessions() == 0
        assert psutil.Process(pid).cmdline() == ["sleep", "3600"], "it was killed as well"
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_key_that_may_log_in_no_more(tmp_path: Path) -> None:
    with Sshd(tmp_path / "a") as sshd:
        sshd.deauthorize()
        assert "Permission denied" in ended(ssh(sshd, "true"))[2]
        sshd.authorize()
        assert ended(ssh(sshd, "true"))[0] == 0
        assert sshd.logins() == 1
