"""Personas from folders, files and ConfigMaps, and how what cannot be used is told."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.resources import personas
from controller.resources.admission import admit
from controller.resources.manifest import load
from controller.resources.personas import (
    MAX_BYTES,
    MAX_SKILL_FILES,
    Persona,
    baseline,
    resolve_persona,
    with_baseline,
)
from controller.resources.texts import BASE_DIR, MAX_TEXT, Ref, Sources, Unresolved

EXAMPLES = Path(__file__).parents[2] / "examples" / "personas"


def nothing(_: Any) -> None:
    return None


def at(folder: Path) -> dict[str, Any]:
    return {"metadata": {"name": "x", "namespace": "ns", "annotations": {BASE_DIR: str(folder)}}}


def by_path(folder: Path, path: str, sources: Sources = Sources()) -> Persona | Unresolved:  # noqa: B008
    return resolve_persona(at(folder), {"path": path}, nothing, sources)


def good(found: Persona | Unresolved) -> Persona:
    assert isinstance(found, Persona), found
    return found


def bad(found: Persona | Unresolved) -> Unresolved:
    assert isinstance(found, Unresolved), found
    return found


def put(path: Path, text: str = "text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a manifest, with a persona in it and something outside."""
    home = tmp_path / "manifests"
    put(home / "personas/backend/AGENTS.md", "You are careful.\n")
    put(home / "personas/backend/skills/review/SKILL.md", "# Review\n")
    put(home / "personas/backend/skills/review/scripts/run.sh", "echo\n")
    put(home / "personas/backend/README.md", "not for agents\n")
    put(tmp_path / "outside/AGENTS.md", "outside\n")
    put(tmp_path / "outside/SKILL.md", "outside\n")
    return home


PERSONA = Persona(
    "You are careful.\n", {"review/SKILL.md": "# Review\n", "review/scripts/run.sh": "echo\n"}
)


def test_a_folder_a_file_and_nothing(folder: Path) -> None:
    assert by_path(folder, "./personas/backend") == PERSONA
    assert by_path(folder, "personas/backend/") == PERSONA
    assert by_path(folder, "personas/backend/AGENTS.md") == Persona("You are careful.\n")
    assert resolve_persona(at(folder), None, nothing) == Persona()


def test_the_baseline_always_comes_first() -> None:
    assert with_baseline(Persona()) == baseline().strip() + "\n"
    told = with_baseline(Persona("\n# Mine\n"))
    assert told.startswith("# How agents work here") and told.endswith("\n\n# Mine\n")
    assert "TASK_RESULT" in baseline() and "TASK_GRAPH_JSON" in baseline()
    assert not any(line in ("TASK_RESULT", "TASK_GRAPH_JSON") for line in baseline().splitlines())


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (
            "---\nname: a\ndescription: One line.\n---\n# A\n",
            "`.agents/skills/a/SKILL.md`: One line.",
        ),
        ("---\ndescription: >-\n  Two\n  lines.\nname: a\n---\n", ": Two lines."),
        ("---\r\ndescription: 'Quoted.'\r\n---\r\n", ": Quoted."),
        ("# A\n\ndescription: not a head\n", "`.agents/skills/a/SKILL.md`"),
        ("---\ndescription: open\n", "`.agents/skills/a/SKILL.md`"),
    ],
)
def test_skills_are_listed_for_agents_that_do_not_look_for_them(head: str, told: str) -> None:
    text = with_baseline(Persona("# Mine", {"a/SKILL.md": head, "a/more.md": "x"}))
    assert "\n\n# Mine\n\n# Skills\n" in text
    assert text.endswith(f"{told}\n") and "more.md" not in text


def test_a_folder_without_agents_says_so(folder: Path) -> None:
    (folder / "empty").mkdir()
    put(folder / "small/agents.md")
    told = bad(by_path(folder, "empty"))
    assert told.reason == "PersonaWithoutAgents"
    assert told.message == "agent.persona.path: 'empty' is a folder without AGENTS.md"
    assert "there is 'agents.md': the case counts" in bad(by_path(folder, "small")).message


def test_hidden_and_compiled_files_are_left_out(folder: Path) -> None:
    skills = folder / "personas/backend/skills"
    put(skills / ".DS_Store")
    put(skills / ".git/config")
    put(skills / "review/__pycache__/x.pyc")
    assert by_path(folder, "personas/backend") == PERSONA


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside", "PathOutsideFolder"),
        ("/etc", "PathOutsideFolder"),
        ("personas/../../outside", "PathOutsideFolder"),
        ("away", "PathOutsideFolder"),
        ("none", "FileNotFound"),
        ("fifo", "FileUnreadable"),
        ("loop", "FileUnreadable"),
    ],
)
def test_paths_that_leave_or_lead_nowhere(folder: Path, path: str, reason: str) -> None:
    (folder / "away").symlink_to("../outside")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    told = bad(by_path(folder, path))
    assert told.reason == reason and told.message.startswith("agent.persona.path: ")


@pytest.mark.parametrize("name", ["AGENTS.md", "skills/review/SKILL.md", "skills/more"])
def test_a_link_inside_must_not_leave_either(folder: Path, tmp_path: Path, name: str) -> None:
    link = folder / "personas/backend" / name
    link.unlink(missing_ok=True)
    target = {"skills/more": "outside"}.get(name, f"outside/{Path(name).name}")
    link.symlink_to(tmp_path / target)
    assert bad(by_path(folder, "personas/backend")).reason == "PathOutsideFolder"


def test_personas_may_share_skills_by_links(folder: Path) -> None:
    put(folder / "shared/style/SKILL.md", "# Style\n")
    (folder / "personas/backend/skills/style").symlink_to("../../../shared/style")
    found = good(by_path(folder, "personas/backend"))
    assert found.skills["style/SKILL.md"] == "# Style\n"


def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "personas/backend/skills/again").symlink_to(".")
    assert bad(by_path(folder, "personas/backend")).reason == "PersonaTooLarge"


def test_links_that_make_many_folders_of_few(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "personas/wide/AGENTS.md")
    levels = [folder / "personas/wide/skills", *(folder / f"level{n}" for n in range(6))]
    for here, below in pairwise(levels):
        here.mkdir()
        for number in range(10):
            (here / str(number)).symlink_to(below)
    levels[-1].mkdir()
    listed, names = [], personas._names

    def counted(found: Path, path: str) -> list[str]:
        listed.append(path)
        assert len(listed) < 1000, "this would go on for a million folders"
        return names(found, path)

    monkeypatch.setattr(personas, "_names", counted)
    told = bad(by_path(folder, "personas/wide"))
    assert told.reason == "PersonaTooLarge" and "folders of skills" in told.message


def test_what_is_no_file_or_no_text(folder: Path) -> None:
    skills = folder / "personas/backend/skills"
    os.mkfifo(skills / "pipe")
    assert bad(by_path(folder, "personas/backend")).reason == "FileUnreadable"
    (skills / "pipe").unlink()
    (skills / "picture.png").write_bytes(b"\x89PNG\xff")
    assert bad(by_path(folder, "personas/backend")).reason == "NotText"
    (skills / "picture.png").unlink()
    put(skills / "two\nlines.md")
    assert bad(by_path(folder, "personas/backend")).reason == "FileUnreadable"


def test_skills_that_are_a_file(folder: Path) -> None:
    put(folder / "odd/AGENTS.md")
    put(folder / "odd/skills")
    told = bad(by_path(folder, "odd"))
    assert told.reason == "FileUnreadable" and "is not a folder" in told.message


def test_what_is_too_large(folder: Path) -> None:
    skills = folder / "personas/backend/skills"
    put(folder / "personas/backend/AGENTS.md", "x" * (MAX_TEXT + 1))
    assert bad(by_path(folder, "personas/backend")).reason == "TextTooLong"
    put(folder / "personas/backend/AGENTS.md")
    for number in range(MAX_BYTES // MAX_TEXT + 1):
        put(skills / f"{number}.md", "x" * MAX_TEXT)
    assert bad(by_path(folder, "personas/backend")).reason == "PersonaTooLarge"
    for number in range(MAX_SKILL_FILES + 1):
        put(skills / f"{number}.md", "x")
    told = bad(by_path(folder, "personas/backend"))
    assert told.reason == "PersonaTooLarge" and f"more than {MAX_SKILL_FILES} files" in told.message


def test_where_there_are_no_files(folder: Path) -> None:
    cluster = Sources(files=False)
    told = bad(by_path(folder, "personas/backend", cluster))
    assert told.reason == "NotInThisHome" and "ConfigMap" in told.message
    rooted = Sources(files=False, roots=(str(folder),))
    assert by_path(folder, "personas/backend", rooted) == PERSONA


# --- ConfigMaps --------------------------------------------------------------------------------


def by_map(data: dict[str, str], **more: Any) -> Persona | Unresolved:
    stored = admit(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "backend"},
            "data": data,
            **more,
        }
    )
    found = {Ref("ConfigMap", "ns", "backend"): stored}.get
    return resolve_persona(at(Path("/")), {"configMapRef": {"name": "backend"}}, found)


def test_a_config_maps_keys_are_the_files() -> None:
    assert (
        by_map(
            {
                "AGENTS.md": "You are careful.\n",
                "skills__review__SKILL.md": "# Review\n",
                "skills__review__scripts__run.sh": "echo\n",
                "README.md": "not for agents",
            }
        )
        == PERSONA
    )
    found = good(by_map({"AGENTS.md": "a"}, binaryData={"skills__x": "aGk="}))
    assert found.skills == {"x": "hi"}


def test_a_config_map_that_is_not_there_or_has_no_agents() -> None:
    missing = resolve_persona(at(Path("/")), {"configMapRef": {"name": "no"}}, nothing)
    assert bad(missing).reason == "ConfigMapNotFound"
    told = bad(by_map({"agents.md": "x", "b": "y"}))
    assert told.reason == "PersonaWithoutAgents" and "its keys: agents.md, b" in told.message
    assert bad(by_map({"AGENTS.md": "a"}, binaryData={"skills__x": "/w=="})).reason == "NotText"


@pytest.mark.parametrize(
    "key",
    [
        "skills", "skills__", "skills.review.SKILL.md", "skills__..__x", "skills____x", "skillset",
        "skills__.git__config", "skills__" + "__".join("abcdefghi"),
    ],
)  # fmt: skip
def test_a_key_that_is_no_path_of_a_skill(key: str) -> None:
    told = bad(by_map({"AGENTS.md": "a", key: "x"}))
    assert told.reason == "PersonaKeyInvalid"
    assert repr(key) in told.message and "skills__review__SKILL.md" in told.message


# --- the examples ------------------------------------------------------------------------------


def test_the_examples_can_be_used() -> None:
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    assert len(names) >= 7
    for name in names:
        found = good(by_path(EXAMPLES, name))
        lines = found.instructions.splitlines()
        assert lines[0].startswith("# ") and 40 <= len(lines) <= 100, name
        for path, text in found.skills.items():
            if path.endswith("/SKILL.md"):
                head = text.split("---\n")[1]
                assert f"name: {path.split('/')[0]}\n" in head and "\ndescription: " in head, path
                assert path.split("/")[0] in found.instructions, f"{name} does not name {path}"


def test_the_manifest_of_the_examples_is_good() -> None:
    for document in load([str(EXAMPLES / "swarms.yaml")]):
        spec = admit(document.obj)["spec"]
        good(resolve_persona(at(EXAMPLES), spec["agent"]["persona"], nothing))


def test_the_planner_is_shown_a_plan_that_is_one() -> None:
    from controller.domain.planning import Plan, parse_plan

    text = (EXAMPLES / "task-graph-planner/AGENTS.md").read_text()
    start = text.index("    TASK_GRAPH_JSON\n")
    end = text.index("\n    }\n", start) + len("\n    }\n")
    shown = "".join(line[4:] for line in text[start:end].splitlines(keepends=True))
    plan = parse_plan(shown.replace("},\n    ...\n", "}\n"))
    assert isinstance(plan, Plan), plan
    assert [task.depends_on for task in plan.tasks] == [(), ("store",)]
    assert not isinstance(parse_plan(text), Plan), "an answer that repeats it must be no plan"


def test_the_orchestrator_is_shown_lines_that_are_routes() -> None:
    from controller.domain.routing import decide, parse_routes

    text = (EXAMPLES / "swarm-orchestrator/AGENTS.md").read_text()
    routes = [route for route in parse_routes(text) if route.swarm == "builders"]
    assert len(routes) == 2
    assert decide(routes, ["builders"], 0, 3) == (routes, [])
