"""Reading manifests: places, odd YAML, folders, lists, doubles, and what is not trusted."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.resources import manifest
from controller.resources.admission import Invalid, admit
from controller.resources.manifest import Document, ManifestError, load

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"


def read(text: str | bytes) -> list[Document]:
    return load(["-"], io.BytesIO(text.encode() if isinstance(text, str) else text))


def values(text: str) -> dict[str, Any]:
    (document,) = read(text)
    return document.obj


def test_documents_know_their_places(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("# first\n" + CONFIG % "a" + "---\n---\n" + CONFIG % "b")
    one, two = load([str(file)])
    assert (one.source, one.index, one.line) == (str(file), 1, 2)
    assert (two.index, two.line) == (3, 7)
    assert one.base_dir == str(tmp_path)
    assert two.line_of("metadata.name") == 9
    assert two.line_of("spec.tasks[3].name") == 7


def test_a_schema_error_names_file_line_document_object_and_field(tmp_path: Path) -> None:
    file = tmp_path / "quickstart.yaml"
    file.write_text(
        CONFIG % "a" + "---\napiVersion: codeswarm.dev/v1alpha1\nkind: Project\n"
        "metadata: {name: greeter}\nspec:\n  repository: {url: ./x}\n  workers: [{swarm: a}]\n"
        "  tasks:\n  - name: a\n    prompt: x\n  - name: b\n    prompt: x\n    dependsOn: a\n"
    )
    document = load([str(file)])[1]
    with pytest.raises(Invalid) as refusal:
        admit(document.obj)
    assert document.explain(refusal.value).startswith(
        f"{file}:16 (document 2) Project/greeter: spec.tasks[1].dependsOn: must be a list"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "stdin: is empty"),
        ("---\n# nothing\n---\n", "stdin: has no documents"),
        ("- 1\n", "stdin:1 (document 1): is a list, not an object"),
        ("hello\n", "is a text, not an object"),
        ("a: [1\n", "stdin:2 (document 1): is not YAML"),
        (CONFIG % "a" + "---\na: }\n", "stdin:5 (document 2): is not YAML"),
        ("a:\n\tb: 1\n", "not with tabs"),
        ("a: 1\nb: 2\na: 3\n", 'stdin:3 (document 1): the field "a" stands twice'),
        ("a: {1: x, '1': y}\n", 'the field "1" stands twice'),
        ("a: !!python/object:os.system x\n", "the tag !!python/object:os.system is not allowed"),
        ("a: !!binary aGk=\n", "the tag !!binary is not allowed"),
        ("a: !x {b: 1}\n", "is not allowed"),
        ("a: !!int x\n", "is not a valid int"),
        ("a: &a [*a]\n", "an alias stands inside of what it stands for"),
        ("a: *b\n", "is not YAML"),
        ("? [a]\n: b\n", "the name of a field must be a plain text"),
        ("a: .inf\n", ".inf is not a number that JSON can carry"),
        ("kind: List\nitems: 3\n", "items: must be a list"),
        ("kind: List\nitems:\n- a: 1\n- 3\n", "stdin:4 (document 1): items[1]: is a single value"),
        (b"a: \xff\n", "stdin:1: is not UTF-8"),
        ("[" * 3_000_000, "nested more than 100 levels deep"),
        ("- " * 3_000_000, "nested more than 100 levels deep"),
        ("{a: " * 200 + "}" * 200, "nested more than 100 levels deep"),
    ],
    ids=range(23),
)
def test_what_cannot_be_read_says_where_and_why(text: str | bytes, words: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        read(text)
    assert words in str(refusal.value)


def test_aliases_may_not_multiply() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 9):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    with pytest.raises(ManifestError, match="with aliases written out"):
        read("\n".join(lines))


def test_aliases_and_merge_keys_are_fine_otherwise() -> None:
    found = values("a: &a {x: 1, z: 2}\nb: {<<: *a, z: 3}\nc: {<<: [{x: 0}, *a]}\n")
    assert found["b"] == {"x": 1, "z": 3}
    assert found["c"] == {"x": 0, "z": 2}


def test_scalars_are_read_as_kubectl_reads_them() -> None:
    text = "a: 04:00:00\nb: 2020-01-01\nc: 1e3\nd: '1e3'\ne: yes\nf: ~\ng: 0x10\n3: x\ntrue: y\n"
    assert values(text) == {
        "a": "04:00:00",
        "b": "2020-01-01",
        "c": 1000,
        "d": "1e3",
        "e": True,
        "f": None,
        "g": 16,
        "3": "x",
        "true": True,
    }


def test_folders_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "d.txt"):
        (tmp_path / name).write_text(json.dumps({"metadata": {"name": name}, "kind": "X"}))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "e.yaml").write_text("kind: X\nmetadata: {name: e.yaml}\n")
    names = [d.obj["metadata"]["name"] for d in load([str(tmp_path)])]
    assert names == ["a.yml", "b.yaml", "c.json"]
    deep = [d.obj["metadata"]["name"] for d in load([str(tmp_path)], recursive=True)]
    assert deep == [*names, "e.yaml"]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no such file or folder"):
        load([str(tmp_path / "x.yaml")])
    (tmp_path / "sub").mkdir()
    with pytest.raises(ManifestError, match="--recursive"):
        load([str(tmp_path)])
    with pytest.raises(ManifestError, match="there is nothing to read"):
        load(["-"])


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_bytes(b"a: " + b"x" * manifest.MAX_FILE_BYTES)
    with pytest.raises(ManifestError, match="is larger than 8 MiB"):
        load([str(file)])


def test_json_may_have_tabs_and_no_doubles(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{\n\t"kind": "X"\n}')
    assert load([str(file)])[0].obj == {"kind": "X"}
    file.write_text('{"a": 1,\n "a": 2}')
    with pytest.raises(ManifestError, match="stands twice"):
        load([str(file)])
    file.write_text('{"a": NaN}')
    with pytest.raises(ManifestError, match="NaN is not a number"):
        load([str(file)])
    file.write_text('{"a": 1,\n')
    with pytest.raises(ManifestError, match=r"a\.json:2 .*is not JSON"):
        load([str(file)])
    file.write_text("[" * 100_000)
    with pytest.raises(ManifestError, match="nested too deeply"):
        load([str(file)])


def test_a_list_is_its_items() -> None:
    text = (
        "kind: List\nitems:\n- kind: A\n  metadata: {name: x}\n- kind: B\n  metadata: {name: x}\n"
    )
    one, two = read(text)
    assert (one.obj["kind"], two.obj["kind"]) == ("A", "B")
    assert (one.line, two.line, two.line_of("metadata.name")) == (3, 5, 6)


def test_two_documents_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONFIG % "x")
    (tmp_path / "b.yaml").write_text("\n" + CONFIG % "x")
    with pytest.raises(ManifestError, match=r"b\.yaml:2.*ConfigMap/x is already.*a\.yaml:1"):
        load([str(tmp_path)])
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: other}\n"
    (tmp_path / "b.yaml").write_text(other)
    assert len(load([str(tmp_path)])) == 2
    with pytest.raises(ManifestError, match="is already described"):
        load([str(tmp_path)], namespace="other")


@given(st.text(max_size=200) | st.text(alphabet="a:-[]{}&*!|> \n'\"#,0", max_size=80))
def test_any_text_is_read_or_refused_with_words(text: str) -> None:
    try:
        documents = read(text.encode("utf-8", "replace"))
    except ManifestError as error:
        assert str(error).startswith("stdin")
        return
    assert all(isinstance(d.obj, dict) for d in documents)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=6), JSON, min_size=1).filter(lambda d: "kind" not in d))
def test_json_means_the_same_as_yaml(value: dict[str, Any]) -> None:
    assert values(json.dumps(value)) == value
