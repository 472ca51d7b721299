"""The machines of the test cloud are machines: SSH, volumes, a shared file system, and an end."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from providers.aws_userdata import HostKey, host_key, user_data
from tests.cloud.api import AMI, GROUP, KEY_NAME, SUBNET
from tests.cloud.loops import left
from tests.cloud.machines import ROOT, Cloud
from tests.cloud.test_api import launch

_ASK = """
import os, urllib.error
from urllib.request import Request, urlopen

base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] + "/latest/"
ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
token = urlopen(Request(base + "api/token", method="PUT", headers=ttl)).read().decode()
token = {"X-aws-ec2-metadata-token": token}
asked = Request(base + "meta-data/spot/instance-action", headers=token)
try:
    print(urlopen(asked).read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
"""


def boot(cloud: Cloud, count: int = 1, **more: Any) -> tuple[list[str], HostKey]:
    """Launch machines with a host key of ours."""
    key = host_key()
    ids = launch(cloud, MinCount=count, MaxCount=count, UserData=user_data(key), **more)
    cloud.wait_ready(*ids)
    return ids, key


def ssh(
    cloud: Cloud, instance: str, key: HostKey, *command: str, address: str = ""
) -> subprocess.Popen[str]:
    """OpenSSH's client, which takes no other host key than that one."""
    address = address or cloud.machines()[instance]["address"]
    known = cloud.path / f"known-{instance}"
    known.write_text(f"[{address}]:{cloud.port} {key.public}\n")
    options = {
        "UserKnownHostsFile": str(known),
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
    }
    words = [f"-o{name}={value}" for name, value in options.items()]
    return subprocess.Popen(
        ["ssh", "-F", "none", *words, "-i", str(cloud.key), "-p", str(cloud.port),
         f"ubuntu@{address}", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def over_ssh(cloud: Cloud, instance: str, key: HostKey, command: str, **more: str) -> str:
    """What a command prints; tries again while sshd does not listen yet."""
    answer = ""

    def done() -> bool:
        nonlocal answer
        process = ssh(cloud, instance, key, command, **more)
        answer, said = process.communicate(timeout=20)
        assert "Connection refused" in said or process.returncode == 0, said
        return process.returncode == 0

    cloud.wait(done, "it lets in")
    return answer.strip()


def volume(cloud: Cloud, instance: str) -> str:
    """A new volume, attached."""
    client = cloud.client()
    name = str(client.create_volume(Size=8, AvailabilityZone="us-east-1a")["VolumeId"])
    attach(cloud, name, instance)
    return name


def attach(cloud: Cloud, name: str, instance: str) -> None:
    cloud.client().attach_volume(VolumeId=name, InstanceId=instance, Device="/dev/sdf")
    cloud.wait(lambda: device(cloud, instance, name).is_symlink(), "the volume appears")


def device(cloud: Cloud, instance: str, name: str) -> Path:
    link = f"nvme-Amazon_Elastic_Block_Store_{name.replace('-', '')}"
    return cloud.file(instance, f"/dev/disk/by-id/{link}")


def serve(cloud: Cloud, server: str, name: str, *clients: str) -> None:
    """Make a file system on a volume and export it."""
    link = f"/dev/disk/by-id/{device(cloud, server, name).name}"
    addresses = " ".join(f"{cloud.machines()[c]['address']}(rw,sync)" for c in clients)
    for line in (
        "apt-get install -y nfs-kernel-server",
        f"blkid -p {link} || mkfs.ext4 -q {link}",
        f"mkdir -p {ROOT} && mount {link} {ROOT}",
        f"echo '{ROOT} {addresses}' >/etc/exports.d/test.exports",
        "systemctl enable --now nfs-server",
        "exportfs -ra",
    ):
        cloud.run(server, "sh", "-c", line)


def mount(cloud: Cloud, client: str, address: str, **more: Any) -> str:
    cloud.run(client, "apt-get", "install", "-y", "nfs-common")
    line = (
        f"mkdir -p {ROOT}; mount -t nfs4 -o rw,hard,noatime,vers=4.2 {address}:{ROOT} {ROOT} 2>&1"
    )
    return cloud.run(client, "sh", "-c", line, **more)


def test_one_logs_in_by_the_host_key_that_userdata_gave(cloud: Cloud) -> None:
    (one,), key = boot(cloud)
    assert over_ssh(cloud, one, key, "echo $HOME; ls -A; hostname").split("\n") == [
        "/home/ubuntu",
        f"ip-{cloud.machines()[one]['address'].replace('.', '-')}",
    ]
    over_ssh(cloud, one, key, "sudo -n touch /usr/marked /tmp/marked")
    assert not Path("/usr/marked").exists()
    assert over_ssh(cloud, one, key, "id -un; sudo -n id -un") == "ubuntu\nroot"
    assert over_ssh(cloud, one, key, "cloud-init status --wait") == "status: done"
    other = ssh(cloud, one, host_key(), "true")
    assert other.wait(20) != 0


def test_a_volume_shared_by_two_machines(cloud: Cloud) -> None:
    (server, client, third), _ = boot(cloud, 3)
    name = volume(cloud, server)
    address = cloud.machines()[server]["address"]
    assert "Connection refused" in mount(cloud, client, address, check=False)
    serve(cloud, server, name, client)
    assert mount(cloud, client, address) == ""
    assert f" {address}:{ROOT} " in cloud.run(client, "cat", "/proc/self/mountinfo")
    cloud.run(client, "sh", "-c", f"echo hello >{ROOT}/note")
    assert cloud.run(server, "cat", f"{ROOT}/note") == "hello\n"
    assert "access denied" in mount(cloud, third, address, check=False)
    assert "apt-get install -y nfs-common" in cloud.called(client)

    cloud.client().detach_volume(VolumeId=name)
    cloud.wait(lambda: _attachment(cloud, name) == "busy", "the volume is busy")
    cloud.run(client, "umount", "-f", "-l", ROOT)
    cloud.run(server, "umount", ROOT)
    cloud.wait(lambda: cloud.volumes()[name]["state"] == "available", "it is free")
    assert not device(cloud, server, name).is_symlink()
    attach(cloud, name, third)
    cloud.run(third, "mount", f"/dev/disk/by-id/{device(cloud, third, name).name}", "/mnt")
    assert cloud.run(third, "cat", "/mnt/note") == "hello\n"


def _attachment(cloud: Cloud, name: str) -> str:
    attachments = cloud.client().describe_volumes(VolumeIds=[name])["Volumes"][0]["Attachments"]
    return attachments[0]["State"] if attachments else ""


def test_without_the_server_its_clients_hang(cloud: Cloud) -> None:
    (server, client), _ = boot(cloud, 2)
    name = volume(cloud, server)
    serve(cloud, server, name, client)
    mount(cloud, client, cloud.machines()[server]["address"])
    cloud.run(client, "setsid", "sh", "-c", f"exec sleep 600 >{ROOT}/log </dev/null 2>&1 &")
    cloud.wait(lambda: cloud.run(client, "pidof", "sleep", check=False) != "", "it begins")
    pid = int(cloud.run(client, "pidof", "sleep"))
    state = cloud.file(client, f"/proc/{pid}/stat")

    cloud.reboot(server)
    cloud.wait(lambda: " T " in state.read_text(), "who has files there hangs")
    listing = start(cloud, client, "ls", ROOT)
    with pytest.raises(subprocess.TimeoutExpired):
        listing.wait(0.3)
    cloud.wait(lambda: device(cloud, server, name).is_symlink(), "the volume appears")
    cloud.run(server, "mount", f"/dev/disk/by-id/{device(cloud, server, name).name}", ROOT)
    cloud.run(server, "exportfs", "-ra")
    assert listing.wait(10) == 0
    cloud.wait(lambda: " S " in state.read_text(), "it goes on")

    cloud.kill(server)
    cloud.wait(lambda: " T " in state.read_text(), "it hangs again")
    listing = start(cloud, client, "ls", ROOT)
    cloud.run(client, "pkill", "-9", "-x", "sleep|ls")
    listing.wait(10)
    cloud.run(client, "umount", "-f", "-l", ROOT)
    assert cloud.run(client, "ls", ROOT) == ""
    cloud.wait(lambda: cloud.volumes()[name]["state"] == "available", "the volume is free")


def start(cloud: Cloud, instance: str, *command: str) -> subprocess.Popen[bytes]:
    """A command on a machine that may not end."""
    pid = cloud.machines()[instance]["pid"]
    return subprocess.Popen(["nsenter", "--target", str(pid), "--mount", "--pid", *command])


def test_the_end_of_an_instance_is_the_end_of_its_processes(cloud: Cloud) -> None:
    (one, two), key = boot(cloud, 2)
    over_ssh(cloud, one, key, "CODESWARM_JOB_ID=mine setsid sleep 600 </dev/null >/dev/null 2>&1 &")
    cloud.wait(lambda: len(cloud.processes("mine")) == 1, "it begins")
    (pid,) = cloud.processes("mine")
    assert cloud.cut(one) == 0
    session = ssh(cloud, two, key, "sleep 600")
    cloud.wait(lambda: cloud.cut(two) > 0, "a connection is cut")
    assert session.wait(20) == 255
    cloud.client().terminate_instances(InstanceIds=[one])
    cloud.wait(lambda: cloud.instances()[one]["state"] == "terminated", "it ends")
    assert not psutil.pid_exists(pid)
    cloud.run(two, "poweroff", check=False)
    cloud.wait(lambda: cloud.instances()[two]["state"] == "stopped", "it stops")
    assert cloud.instances()[two]["reason"] == "Client.InstanceInitiatedShutdown"


def test_what_was_written_is_there_after_a_reboot_and_nothing_is_mounted(cloud: Cloud) -> None:
    (one,), key = boot(cloud)
    name = volume(cloud, one)
    serve(cloud, one, name, one)
    over_ssh(cloud, one, key, "echo mine >note")
    cloud.reboot(one)
    assert over_ssh(cloud, one, key, "cat note") == "mine"
    assert ROOT not in cloud.run(one, "cat", "/proc/self/mountinfo")
    assert cloud.run(one, "systemctl", "is-active", "nfs-server") == "active\n"
    cloud.wait(lambda: device(cloud, one, name).is_symlink(), "the volume appears")
    cloud.run(one, "mount", f"/dev/disk/by-id/{device(cloud, one, name).name}", ROOT)


def test_ssh_is_refused_while_it_boots_and_when_told_to(cloud: Cloud) -> None:
    cloud.set(boot_seconds=1.0)
    (one,), key = boot(cloud)
    first = ssh(cloud, one, key, "true")
    assert "refused" in first.communicate(timeout=20)[1]
    over_ssh(cloud, one, key, "true")
    cloud.refuse_ssh(one, 0.5)
    assert "refused" in ssh(cloud, one, key, "true").communicate(timeout=20)[1]
    over_ssh(cloud, one, key, "true")


def test_a_spot_instance_is_told_of_its_end(cloud: Cloud) -> None:
    (one,), key = boot(cloud, InstanceMarketOptions={"MarketType": "spot"})
    script = f"/usr/bin/python3 -c {shlex.quote(_ASK)}"
    assert over_ssh(cloud, one, key, script) == "404"
    cloud.interrupt_spot(one, 1.0)
    said = over_ssh(cloud, one, key, script)
    assert json.loads(said)["action"] == "terminate"
    cloud.wait(lambda: cloud.instances()[one]["state"] == "terminated", "it is taken")
    assert cloud.instances()[one]["reason"] == "Server.SpotInstanceTermination"


def test_nothing_is_left_even_of_a_cloud_that_was_killed(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path / "cloud", boot_seconds=0.05)
    (one,), _ = boot(cloud)
    volume(cloud, one)
    machine = psutil.Process(cloud.machines()[one]["pid"])
    assert left(cloud.path)
    server = cloud._process
    server.kill()
    server.wait()
    cloud.end()
    cloud.wait(lambda: not _alive(machine), "the machine's first process ends")


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_public_address_and_a_device_as_of_xen(cloud: Cloud) -> None:
    cloud.set(xen=True)
    face = {"DeviceIndex": 0, "SubnetId": SUBNET, "AssociatePublicIpAddress": True}
    key = host_key()
    answer = cloud.client().run_instances(
        ImageId=AMI, InstanceType="m4.large", KeyName=KEY_NAME, MinCount=1, MaxCount=1,
        NetworkInterfaces=[{**face, "Groups": [GROUP]}], UserData=user_data(key),
    )  # fmt: skip
    one = str(answer["Instances"][0]["InstanceId"])
    cloud.wait_ready(one)
    public = cloud.instances()[one]["public_ip"]
    assert public not in ("", cloud.instances()[one]["private_ip"])
    name = str(cloud.client().create_volume(Size=8, AvailabilityZone="us-east-1a")["VolumeId"])
    cloud.client().attach_volume(VolumeId=name, InstanceId=one, Device="/dev/sdf")
    cloud.wait(cloud.file(one, "/dev/xvdf").is_block_device, "the volume appears")
    assert over_ssh(cloud, one, key, "ls /dev/disk/by-id; echo it is", address=public) == "it is"
