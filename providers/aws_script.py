"""The shell script that makes a machine ready: packages, the user's commands, the shared volume.

Every step looks whether there is anything to do, so the script may be cut off anywhere and be run
again: whatever is running or mounted is found to be so.  It is POSIX shell, since a machine need
not have Python yet.  What it does goes to ``~/.codeswarm/bootstrap.log``; what it has to tell goes
to its output, in lines that begin with ``MARK``.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence

from providers.aws_script_volume import MOUNTS, VOLUME

MARK = "codeswarm-bootstrap:"
LOG = "bootstrap.log"
"""Below ``~/.codeswarm``."""
RUN = ["sh", "-c", 'eval "$(cat)"', "codeswarm-bootstrap"]
"""How it is run, the text on its input: so its words are in nobody's process table."""


def text(values: Mapping[str, str | int], commands: Sequence[str], main: str) -> str:
    """The whole script.

    Args:
        values: variables of the script.
        commands: the user's own.
        main: the name of its main function: ``set_up`` or ``share``.
    """
    given = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())
    digest, calls = hashlib.sha256(), ""
    for number, command in enumerate(commands, 1):
        digest.update(command.encode() + b"\0")  # of all so far: a text may stand there twice
        mark = digest.hexdigest()[:16]
        calls += f"  user_command {number} {mark} {shlex.quote(command)}\n"
    user = f"user_commands() {{\n{calls or '  :'}\n}}\n"
    return given + _TOOLS + _PACKAGES + user + _COMMAND + MOUNTS + VOLUME + _MAIN + f"{main}\n"


_TOOLS = r"""
umask 022
LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export LC_ALL PATH
exec 3>&1 </dev/null
base="$HOME/.codeswarm" log="$HOME/.codeswarm/bootstrap.log" marks="$HOME/.codeswarm/done"
tell() { printf '\n%s %s\n' 'codeswarm-bootstrap:' "$*" >&3; }
# fail REASON WHAT [STATUS]: with the last lines of what the step said
fail() {
  say "failed: $1: $2 ${3:+(exit status $3)}"
  tell "failed $1 ${3:--} $2"
  tail -c "+$((begun + 1))" "$log" | tail -n 12 | cut -c 1-400 |
    sed "s/^/  /" >&3 # none of these is taken for ours
  exit 1
}
say() { printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$log"; }
begin() {
  say "$*"
  begun=$(wc -c <"$log")
}
have() { command -v "$1" >/dev/null 2>&1; }
# Each within a limit of its own: what touches a disk or a network may hang
limit=120
as_root() {
  if [ -n "$sudo" ]; then
    sudo -n timeout -k 5 "$limit" env PATH="$PATH" "$@"
  else
    timeout -k 5 "$limit" "$@"
  fi
}

open_log() {
  mkdir -p "$marks" && chmod 700 "$base" && [ -d "$base" ] || {
    tell "failed HomeNotWritable - $base"
    exit 1
  }
  if have flock; then
    exec 9>>"$base/bootstrap.lock"
    flock -w "$patience" 9 || { tell busy; exit 0; }
  fi
  [ "$(wc -c <"$log" 2>/dev/null || echo 0)" -lt 4194304 ] || mv -f "$log" "$log.1"
  exec >>"$log" 2>&1
  begun=$(wc -c <"$log")
}
need_root() {
  sudo=
  [ "$(id -u)" = 0 ] && return
  sudo=yes
  as_root true || fail SudoNeeded "sudo -n true" "$?"
}
await_boot() {
  [ -e "$marks/boot" ] && return
  if have cloud-init; then
    begin "waiting for cloud-init"
    timeout -k 5 "$boot_seconds" cloud-init status --wait 9>&-
    say "cloud-init: exit status $?"
  fi
  : >"$marks/boot"
}
"""

_PACKAGES = r"""
find_python() {
  for python in $pythons; do
    python=$(command -v "$python" 2>/dev/null) &&
      "$python" -E -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1 && return
  done
  python=
  return 1
}
apt() {
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" 9>&-
}
install() {
  begin "installing: $*"
  limit=1200
  install_now "$@"
  status=$?
  limit=120
  return "$status"
}
# apt-get does not wait for the lock of its lists, whatever its options: at the first boot of an
# image apt-daily.service holds it for minutes.
update() {
  tries=0 until=$(($(date +%s) + lock_seconds))
  while begun_update=$(wc -c <"$log"); ! apt update; do
    tries=$((tries + 1))
    if tail -c "+$((begun_update + 1))" "$log" | grep -q "lists/lock"; then
      [ "$(date +%s)" -lt "$until" ] || return 0
    else
      [ "$tries" -lt 4 ] || return 0
    fi
    sleep "$pause_seconds"
  done
}
install_now() {
  if have apt-get; then
    [ -n "$updated" ] || update
    updated=yes
    apt install "$@" && return 0
    as_root dpkg --configure -a 9>&- # an earlier one may have been cut off
    apt install "$@"
  elif have dnf; then
    as_root dnf -y install "$@" 9>&-
  elif have yum; then
    as_root yum -y install "$@" 9>&-
  else
    say "there is no apt-get, dnf or yum"
    return 127
  fi
}
nfs() { if have apt-get; then echo "nfs-$1"; else echo nfs-utils; fi; }
wanted() {
  wants=
  find_python || wants="$wants python3"
  have git || wants="$wants git"
  if [ "$role" = coordinator ]; then
    have mkfs.ext4 || wants="$wants e2fsprogs"
    [ -z "$clients" ] || have exportfs || wants="$wants $(nfs kernel-server)"
  fi
  [ "$role" != member ] || have mount.nfs4 || wants="$wants $(nfs common)"
}
install_wanted() {
  wanted
  if [ -n "$wants" ]; then
    install $wants || fail PackagesFailed "$wants" "$?"
    find_python || for newer in python3.12 python3.11 python3.9 python39; do
      install "$newer" && find_python && break
    done
    wanted
    [ -n "$python" ] || fail PythonNotFound "$pythons"
    [ -z "$wants" ] || fail PackagesFailed "$wants" 0
  fi
  [ -z "$packages" ] || [ -e "$marks/packages-$packages_mark" ] && return
  install $packages || fail PackagesFailed "$packages" "$?"
  : >"$marks/packages-$packages_mark"
}
keep_logged_out() { # systemd can be told to end what a login leaves behind: workers
  have loginctl && [ -d /run/systemd/system ] || return 0
  case $(loginctl show-session -p KillUserProcesses 2>/dev/null) in *=yes) ;; *) return 0 ;; esac
  begin "KillUserProcesses is turned off"
  as_root mkdir -p /etc/systemd/logind.conf.d
  printf '[Login]\nKillUserProcesses=no\n' |
    as_root tee /etc/systemd/logind.conf.d/codeswarm.conf >/dev/null
  as_root systemctl kill -s HUP systemd-logind || :
}
"""

_COMMAND = r"""
user_command() { # NUMBER MARK TEXT
  [ -e "$marks/command-$2" ] && return
  begin "command $1: $(printf '%s\n' "$3" | head -n 1 | cut -c 1-200)"
  shell=sh
  have bash && shell=bash
  (cd "$HOME" && exec timeout -k 5 "$command_seconds" "$shell" -lc "$3") 3>&- 9>&-
  status=$?
  [ "$status" -eq 0 ] || fail BootstrapFailed "$1" "$status"
  : >"$marks/command-$2"
}
"""

_MAIN = r"""
set_up() {
  open_log
  begin "begins: role $role"
  await_boot
  need_root
  install_wanted
  keep_logged_out
  user_commands
  take_role
}
share() {
  open_log
  need_root
  install_wanted
  find_python
  take_role
}
take_role() {
  find_place
  if [ "$role" = coordinator ]; then
    await_device
    format
    mount_volume
    export_volume
  else
    export_nothing
    mount_from
  fi
  begin "ready"
  tell "ready $python $place"
}
"""
