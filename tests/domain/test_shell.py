"""Command lines: what is plain, and that a shell does no more than what was seen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.domain.shell import commands, inner, pieces


def words(line: str) -> list[tuple[str, ...]] | None:
    found = commands(line)
    return None if found is None else [command.words for command in found]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ls -l", [("ls", "-l")]),
        ("  ls\t-l  ", [("ls", "-l")]),
        ("git log --oneline | cat", [("git", "log", "--oneline"), ("cat",)]),
        ("a && b || c ; d", [("a",), ("b",), ("c",), ("d",)]),
        ("echo 'a; b' \"c && d\"", [("echo", "a; b", "c && d")]),
        (r"echo a\;b \'c", [("echo", "a;b", "'c")]),
        (r'echo "a\"b\$c\d"', [("echo", r'a"b$c\d')]),
        ("echo ''", [("echo", "")]),
        ("echo 'it'\"'\"'s'", [("echo", "it's")]),
        ("echo '$HOME `x`'", [("echo", "$HOME `x`")]),
        ("echo a#b", [("echo", "a#b")]),
    ],
)
def test_plain_lines(line: str, expected: list[tuple[str, ...]]) -> None:
    assert words(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "", "   ", "ls;", "; ls", "ls &", "ls & rm x", "ls && ", "ls || && b", "ls ;; b",
        "ls > x", "ls < x", "ls 2>&1", "cat <<E", "ls $(rm x)", "ls `rm x`", "ls $X", 'ls "$X"',
        'ls "`rm x`"', "(ls)", "ls () { rm; }", "ls\nrm x", "ls \rrm", "ls 'a\nb'", "ls # x",
        "ls 'x", 'ls "x', "ls \\", "ls |& cat", "ls <(rm x)", "ls \x00", "echo \\\nrm",
        " && ".join(["ls"] * 21),
    ],
)  # fmt: skip
def test_everything_else_is_not_plain(line: str) -> None:
    assert commands(line) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/bin/bash -lc 'ls -l'", "ls -l"),
        ("bash -c \"echo 'a' && ls\"", "echo 'a' && ls"),
        ("/usr/bin/sh -c ls", "ls"),
        ("/bin/bash -lc 'ls\nrm x'", "ls\nrm x"),
        (r'/bin/bash -lc "echo \"a\" \$HOME"', 'echo "a" $HOME'),
        ("./bash -c ls", "./bash -c ls"),
        ("/tmp/bash -c ls", "/tmp/bash -c ls"),
        ("bash -c ls x", "bash -c ls x"),
        ("bash -c ls; rm x", "bash -c ls; rm x"),
        ("bash -c", "bash -c"),
        ("bash script.sh x", "bash script.sh x"),
        ("bash -c 'ls' > x", "bash -c 'ls' > x"),
    ],
)
def test_the_line_inside_a_shells_argument(line: str, expected: str) -> None:
    assert inner(line) == expected


def test_pieces_miss_nothing() -> None:
    assert pieces("ls; (rm a) | x=`y` && $(z)\nw") == ["ls", "rm a", "x=", "y", "z", "w"]


ALPHABET = st.sampled_from(["ab", "b", " ", "\t", "'", '"', "\\", ";", "&&", "|", "&", "$", "$(",
                            "`", ">", "<", "(", ")", "#", "\n", "a#", "{", "}", "||"])  # fmt: skip
ORACLE = r"""
command_not_found_handle() { { printf '%s\0' "$@"; printf '\001\0'; } >&3; }
for line in "$@"; do ( eval "$line" ) 3>&1 2>/dev/null >/dev/null; printf '\002\0'; done
"""


@given(st.lists(st.lists(ALPHABET, min_size=1, max_size=14).map("".join), max_size=60))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_real_shell_runs_nothing_that_was_not_seen(tmp_path: Path, lines: list[str]) -> None:
    """Bash tells of each command that it would run; there are none, so it runs none."""
    plain = [line for line in lines if commands(line) is not None]
    done = subprocess.run(
        ["/bin/bash", "--norc", "--noprofile", "-c", ORACLE, "bash", *plain],
        cwd=tmp_path,
        env={"PATH": "/nowhere"},
        capture_output=True,
        timeout=30,
        check=True,
    )
    told = done.stdout.decode().split("\x02\0")[:-1]
    assert len(told) == len(plain)
    for line, ran in zip(plain, told, strict=True):
        seen = {command.words for command in commands(line) or ()}
        for command in ran.split("\x01\0")[:-1]:
            assert tuple(command.split("\0")[:-1]) in seen, line
    assert not list(tmp_path.iterdir())
