"""Which repository URLs are taken, and where they point."""

from pathlib import Path

import pytest

from controller.repository.problems import RepositoryProblem, RepositoryReason
from controller.repository.urls import is_branch_name, is_ref_name, locate, resolve_url

BASE = Path("/manifests/here")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("./greeter.git", "/manifests/here/greeter.git"),
        ("greeter.git", "/manifests/here/greeter.git"),
        ("../greeter", "/manifests/greeter"),
        ("/srv/git/greeter.git", "/srv/git/greeter.git"),
        ("file:///srv/git/a%20b.git", "/srv/git/a b.git"),
        ("file://localhost/srv/x", "/srv/x"),
        ("./a:b", "/manifests/here/a:b"),
    ],
)
def test_local_urls_become_absolute_paths(url: str, expected: str) -> None:
    location = resolve_url(url, BASE)
    assert (location.url, location.local) == (expected, True)


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert resolve_url("~/x.git", None).url == "/home/ada/x.git"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/team/repo.git",
        "https://example.org:8443/repo",
        "ssh://git@example.org:2222/repo.git",
        "git@example.org:team/repo.git",
        "example.org:repo",
    ],
)
def test_remote_urls_stay_word_for_word(url: str) -> None:
    location = resolve_url(url, BASE)
    assert (location.url, location.local) == (url, False)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "empty"),
        ("-uevil", "begin with '-'"),
        ("--upload-pack=touch /tmp/x", "begin with '-'"),
        ("ext::sh -c touch% /tmp/x", "remote helper"),
        ("fd::17", "remote helper"),
        ("git://example.org/x", "git://"),
        ("ftp://example.org/x", "ftp://"),
        ("https://user:secret@example.org/x", "credentials"),
        ("https://token@example.org/x", "credentials"),
        ("ssh://git:secret@example.org/x", "credentials"),
        ("ssh://-oProxyCommand=x/y", "host"),
        ("-oProxyCommand=x:y", "begin with '-'"),
        ("git@-oProxyCommand=x:y", "begins with '-'"),
        ("host:-evil", "begins with '-'"),
        ("https://example.org", "no path"),
        ("https://exa mple:port/x", "cannot be read"),
        ("file://otherhost/x", "names a host"),
        ("a\nb", "control characters"),
        ("file:///a%00b", "control characters"),
        ("~no-such-user-here/x", "user that does not exist"),
    ],
)
def test_hostile_and_useless_urls_are_refused(url: str, told: str) -> None:
    with pytest.raises(RepositoryProblem) as caught:
        resolve_url(url, BASE)
    assert caught.value.reason is RepositoryReason.INVALID_URL
    assert told in caught.value.message
    assert "secret" not in caught.value.message


def test_a_relative_path_needs_a_folder() -> None:
    with pytest.raises(RepositoryProblem, match="relative"):
        locate("repo.git")


def test_branch_names() -> None:
    for good in ("main", "feature/x", "codeswarm/p/t", "v1.0", "ünïcode"):
        assert is_branch_name(good), good
    for bad in ("", "-x", "a..b", "a b", "a~1", "x.lock", "a//b", "/a", "a/", ".a", "a/.b", "@",
                "HEAD", "a@{b", "a\nb", "x.lock/y", "a*"):  # fmt: skip
        assert not is_branch_name(bad), bad
    assert is_ref_name("refs/heads/main")
    assert not is_ref_name("heads/main")
