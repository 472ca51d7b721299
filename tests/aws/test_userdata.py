"""UserData is what cloud-init reads, and holds one secret only: the host key."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
import yaml

from providers.aws_nodes import Nodes
from providers.aws_userdata import host_key, public_half, user_data
from providers.aws_values import Api, Wish
from providers.base import SwarmHandle
from providers.ssh_target import Means


def test_it_gives_the_host_its_key() -> None:
    key = host_key()
    text = user_data(key)
    assert text.startswith("#cloud-config\n")
    told = yaml.safe_load(text)
    assert set(told) == {"ssh_deletekeys", "ssh_keys"}
    assert told["ssh_deletekeys"] is True
    assert told["ssh_keys"]["ed25519_public"] == key.public
    private = asyncssh.import_private_key(told["ssh_keys"]["ed25519_private"])
    public = private.export_public_key("openssh").decode().split()
    assert key.public.split() == public[:2]
    assert len(key.public) <= 256  # it must go into a tag
    assert "PRIVATE" not in repr(key)


def test_two_keys_are_never_the_same() -> None:
    assert host_key().public != host_key().public


def test_keys_can_be_let_in() -> None:
    one = asyncssh.generate_private_key("ssh-ed25519")
    public = public_half(one.export_private_key("openssh").decode())
    assert public is not None
    text = user_data(host_key(), [public + " a comment\nssh_deletekeys: false"])
    told = yaml.safe_load(text)
    assert told["ssh_authorized_keys"] == [public + " a comment ssh_deletekeys: false"]
    assert told["ssh_deletekeys"] is True


def test_a_key_that_cannot_be_read_has_no_public_half() -> None:
    one = asyncssh.generate_private_key("ssh-ed25519")
    assert public_half(one.export_private_key("pkcs8-pem", passphrase="x").decode()) is None
    assert public_half("nonsense") is None


def test_more_than_ec2_takes_is_refused() -> None:
    with pytest.raises(ValueError, match="16384"):
        user_data(host_key(), ["x" * 17000])


def test_without_a_key_pair_the_manifests_own_key_is_let_in(tmp_path: Path) -> None:
    key = host_key()
    (tmp_path / "id").write_text(key.private)
    by_file = {"identityFile": str(tmp_path / "id")}
    swarm = SwarmHandle("default", "cloud", "u1", by_file)
    wish = Wish(Api("us-east-1"), "ami-1", "c7i.large", "/shared")

    def lets_in(swarm: SwarmHandle, wish: Wish = wish, *, files: bool = True) -> tuple[str, ...]:
        return asyncio.run(Nodes(lambda: Means(files=files)).lets_in(swarm, wish))

    assert lets_in(swarm) == (key.public,)
    assert not lets_in(swarm, files=False) and not lets_in(swarm, replace(wish, key_name="k"))
    assert lets_in(replace(swarm, parameters={}, secrets={"sshKey": key.private})) == (key.public,)
    (tmp_path / "id").write_text("protected by a passphrase")
    assert lets_in(swarm) == ()
    (tmp_path / "id.pub").write_text(f"{key.public} me@here\n")
    assert lets_in(swarm) == (key.public,)
    assert f'- "{key.public}"' in user_data(host_key(), lets_in(swarm))
