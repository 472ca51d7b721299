"""What a machine's root has before it boots: the layer over the host's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.cloud.userdata import UserData
from tests.sshd_options import COMMON

USER = "ubuntu"
UID = 4242
"""Whoever logs in; an id that the host gives to nobody."""
_HERE = Path(__file__).with_name("guest")
_STANDIN = "/usr/lib/cloud-standin"
_PROGRAMS = ("bin/apt-get", "bin/systemctl", "bin/cloud-init", "sbin/poweroff", "sbin/shutdown")
_PACKAGES = {"nfs-common": ("mount.nfs4", "mount.nfs"), "nfs-kernel-server": ("exportfs",)}
_ABSENT = ("mount.nfs", "mount.nfs4", "umount.nfs", "umount.nfs4", "exportfs", "rpc.nfsd")
"""What the host may have and a fresh machine does not."""
_EMPTY = ("root", "home", "srv", "mnt", "tmp", "etc/exports.d", "var/log/cloud", "var/lib/cloud")


def make_image(upper: Path, url: str, instance: str) -> None:
    """Make the layer.

    Args:
        upper: its folder, on a file system that takes ``trusted.`` attributes.
        url: where the machine reaches its hypervisor, and its metadata.
        instance: id.
    """
    for folder in (*_EMPTY, "etc/ssh", "usr/bin", "usr/sbin", "usr/lib"):
        (upper / folder).mkdir(parents=True, exist_ok=True)
    for folder in _EMPTY:  # nothing of the host's is seen in them
        os.setxattr(upper / folder, "trusted.overlay.opaque", b"y")
    (upper / "tmp").chmod(0o1777)
    for name in _ABSENT:
        (upper / "usr/sbin" / name).unlink(missing_ok=True)
        if Path("/usr/sbin", name).exists():
            os.mknod(upper / "usr/sbin" / name, 0o020000, 0)  # a whiteout
    _programs(upper)
    (upper / "etc/cloud-instance").write_text(json.dumps({"id": instance, "hypervisor": url}))
    (upper / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (upper / "etc/exports").write_text("")
    calls = upper / "var/log/cloud/calls"
    calls.touch()
    calls.chmod(0o666)
    (upper / "var/lib/cloud/instance").mkdir()
    _user(upper)


def _programs(upper: Path) -> None:
    shutil.copyfile(_HERE / "standin.py", upper / _STANDIN[1:])
    (upper / _STANDIN[1:]).chmod(0o755)
    for name in _PROGRAMS:
        (upper / "usr" / name).symlink_to(_STANDIN)
    for package, names in _PACKAGES.items():
        place = upper / "usr/lib/cloud-packages" / package / "usr/sbin"
        place.mkdir(parents=True)
        for name in names:
            (place / name).symlink_to(_STANDIN)
    shutil.copyfile(_HERE / "sudo", upper / "usr/bin/sudo")
    (upper / "usr/bin/sudo").chmod(0o755)
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    shutil.copyfile(setpriv, upper / "usr/lib/cloud-setpriv")
    (upper / "usr/lib/cloud-setpriv").chmod(0o4755)


def _user(upper: Path) -> None:
    """Make the user who logs in."""
    for name, line, mode in (
        ("passwd", f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash", 0o644),
        ("group", f"{USER}:x:{UID}:", 0o644),
        ("shadow", f"{USER}:*:19000:0:99999:7:::", 0o640),
    ):
        file = upper / "etc" / name
        file.write_text(f"{Path('/etc', name).read_text()}{line}\n")
        file.chmod(mode)
    home = upper / "home" / USER
    home.mkdir(mode=0o755)
    os.chown(home, UID, UID)


def configure_ssh(
    upper: Path, data: UserData, keys: list[str], *, addresses: list[str], port: int, url: str
) -> None:
    """What cloud-init does for sshd.

    Args:
        upper: the layer.
        data: of the instance.
        keys: public keys of who may log in.
        addresses: on which it listens.
        port: the same for all.
        url: of the metadata, for sessions.
    """
    ssh = upper / "etc/ssh"
    host_key = ssh / "cloud_host_key"
    if data.host_key:
        host_key.write_text(data.host_key)
    elif not host_key.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)]
        subprocess.run(command, check=True, timeout=30)
    host_key.chmod(0o600)
    (ssh / "cloud_authorized_keys").write_text("".join(f"{key.strip()}\n" for key in keys))
    lines = (
        f"Port {port}",
        *(f"ListenAddress {address}" for address in addresses),
        "HostKey /etc/ssh/cloud_host_key",
        "AuthorizedKeysFile /etc/ssh/cloud_authorized_keys",
        f"SetEnv AWS_EC2_METADATA_SERVICE_ENDPOINT={url}",
        *COMMON,
    )
    (ssh / "cloud_config").write_text("".join(f"{line}\n" for line in lines))
