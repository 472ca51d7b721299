"""What is left on EC2 of swarms that are gone is found and, when told to, removed; nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from cli.file_client import FileClient
from cli.main import cli
from controller.runtime.aws import begin_sweep
from controller.runtime.home import Home
from controller.runtime.leftovers import look_for_leftovers
from controller.store.database import Database
from controller.store.kube_rest import path_of
from providers import aws_sweep
from providers.aws_api import Boto, Clouds
from providers.aws_places import Places
from providers.aws_sweep import Found, Standing, removable, remove, survey
from providers.aws_values import Api, Wish
from tests.aws.conftest import QUICK, Run, launch
from tests.cli.apiserver import ApiServer, Asked, Reply, status
from tests.cloud.api import REGION, CloudApi
from tests.lab import swarm

AGE = aws_sweep.LEAST_AGE_SECONDS + 60


def later() -> float:
    """When what a test has just made is old enough."""
    return time.time() + AGE


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home.at(tmp_path / "home").ensure()
    monkeypatch.setenv("CODESWARM_HOME", str(made.root))
    return made


@pytest.fixture
def db(home: Home) -> Iterator[Database]:
    with Database(home.state) as database:
        yield database


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on EC2 is old enough to be judged at once."""
    monkeypatch.setattr(aws_sweep, "LEAST_AGE_SECONDS", -60.0)
    monkeypatch.setattr(FileClient, "ensure_controller", lambda *_: None)


def tags(uid: str, home: str = "home-1", **more: str) -> dict[str, str]:
    ours = {"home": home, "swarm": f"default/{uid}", "swarm-uid": uid, **more}
    return {f"codeswarm.dev/{key}": value for key, value in ours.items()}


async def fill(ec2: Boto, wish: Wish, home: str = "home-1") -> dict[str, str]:
    """Something of every kind; its ids."""
    made = {}
    for name, of in (("owned", home), ("left", home), ("another", "home-2")):
        made[name] = (await launch(ec2, wish, token=name, tags=tags(name, of)))[0]
    for name, more in (
        ("left-volume", {}),
        ("kept", {"kept": "true"}),
        ("holds", {"in-use": "true"}),
        ("owned-volume", {"kept": "true"}),
    ):
        uid = "owned" if name.startswith("owned") else "left"
        volume = await ec2.create_volume(
            wish, "us-east-1a", token=name, tags=tags(uid, home, **more)
        )
        made[name] = volume.id
    return made


def knowing(*uids: str) -> Callable[[], Any]:
    async def known() -> Collection[str]:
        return uids

    return known


def test_everything_is_told_whose_it_is(ec2: Boto, wish: Wish, run: Run[Any]) -> None:
    made = run(fill(ec2, wish))
    found = run(survey(ec2, {"home-1"}, knowing("owned"), now=later))
    standing = {one.id: one.standing for one in found}
    assert {name: standing[one] for name, one in made.items()} == {
        "owned": Standing.OWNED,
        "left": Standing.LEFT,
        "another": Standing.ANOTHER,
        "left-volume": Standing.LEFT,
        "kept": Standing.KEPT,
        "holds": Standing.HOLDS,
        "owned-volume": Standing.OWNED,
    }
    assert len(found) == len(made)  # root volumes go with their instances
    assert {one.id for one in removable(found, volumes=False)} == {
        made["left"],
        made["left-volume"],
    }
    assert {one.id for one in removable(found, volumes=True)} == {
        made[name] for name in ("left", "left-volume", "kept", "holds")
    }


def test_what_is_new_is_left_alone(ec2: Boto, wish: Wish, run: Run[Any]) -> None:
    run(fill(ec2, wish))
    found = run(survey(ec2, {"home-1"}, knowing()))
    assert {one.standing for one in found} == {Standing.YOUNG, Standing.ANOTHER}


def test_a_home_that_is_not_known_owns_nothing(ec2: Boto, wish: Wish, run: Run[Any]) -> None:
    run(fill(ec2, wish))
    found = run(survey(ec2, frozenset(), knowing(), now=later))
    assert {one.standing for one in found} == {Standing.ANOTHER}


def test_swarms_are_asked_for_after_ec2(ec2: Boto, wish: Wish, run: Run[Any]) -> None:
    run(fill(ec2, wish))

    async def known() -> Collection[str]:
        assert ec2.by_action["DescribeInstances"] and ec2.by_action["DescribeVolumes"]
        return {"left", "owned"}

    found = run(survey(ec2, {"home-1"}, known, now=later))
    assert Standing.LEFT not in {one.standing for one in found}


def test_removing_waits_until_it_is_gone(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    made = run(fill(ec2, wish))
    api.wait(lambda: api.instances()[made["left"]]["state"] == "running", "it runs")
    run(ec2.attach(made["left-volume"], made["left"], "/dev/sdf"))
    api.set(ending_seconds=0.5)
    api.lose_answer("TerminateInstances")
    api.throttle("DeleteVolume", 1)
    found = run(survey(ec2, {"home-1"}, knowing("owned"), now=later))
    assert run(remove(ec2, removable(found, volumes=False), look_seconds=0.05)) == []
    api.set(ending_seconds=0.05)
    assert set(api.live()) == {made["owned"], made["another"]}
    assert set(api.volumes()) == {made["kept"], made["holds"], made["owned-volume"]}


def test_what_cannot_be_removed_is_said(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    made = run(fill(ec2, wish))
    for action in ("TerminateInstances", "DeleteVolume"):
        api.refuse(action, "UnauthorizedOperation", "not authorized", -1, status=403)
    found = run(survey(ec2, {"home-1"}, knowing("owned"), now=later))
    chosen = removable(found, volumes=False)
    left = "\n".join(run(remove(ec2, chosen, seconds=0.2, look_seconds=0.05)))
    assert "allow ec2:TerminateInstances" in left
    assert "allow ec2:DeleteVolume" in left
    assert f"{made['left']} has not ended" in left


def test_a_root_volume_whose_machine_is_gone_is_left_over(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any]
) -> None:
    own = {**tags("gone"), "codeswarm.dev/root-volume": "gone"}
    del own["codeswarm.dev/swarm-uid"]
    volume = run(ec2.create_volume(wish, "us-east-1a", token="r", tags=own))
    found = run(survey(ec2, {"home-1"}, knowing(), now=later))
    assert [(one.id, one.standing, one.root) for one in found] == [(volume.id, Standing.LEFT, True)]


# --- a controller's start -------------------------------------------------------------------------


def look(clouds: Clouds, api: CloudApi, *uids: str, removing: bool) -> Any:
    places = [Api(REGION, api.url)]
    return look_for_leftovers(
        clouds, places, {"home-1"}, knowing(*uids), removing=removing, delay=0.0
    )


@pytest.mark.usefixtures("old")
def test_a_start_names_what_is_left_and_removes_it_only_if_told_to(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = run(fill(ec2, wish))
    clouds = Clouds(QUICK)
    run(look(clouds, api, "owned", removing=False))
    assert made["left"] in caplog.text and made["left-volume"] in caplog.text
    assert made["holds"] in caplog.text
    assert made["another"] not in caplog.text and made["owned"] not in caplog.text
    assert len(api.live()) == 3
    run(look(clouds, api, "owned", removing=True))
    assert set(api.live()) == {made["owned"], made["another"]}
    assert set(api.volumes()) == {made["kept"], made["holds"], made["owned-volume"]}
    caplog.clear()
    api.down()
    run(look(clouds, api, "owned", removing=True))
    assert "could not be looked at" in caplog.text
    api.up()
    run(clouds.close())


@pytest.mark.usefixtures("old")
def test_a_controller_of_one_namespace_judges_no_swarm_of_another(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = run(fill(ec2, wish))
    before = set(api.live())
    clouds, places = Clouds(QUICK), [Api(REGION, api.url)]
    look = partial(look_for_leftovers, clouds, places, {"home-1"}, knowing("owned"), delay=0.0)
    run(look(removing=True, served="team-b"))
    assert set(api.live()) == before
    assert not caplog.records
    run(look(removing=True, served="default"))
    assert made["left"] not in api.live()
    run(clouds.close())


def test_a_start_of_a_home_that_was_never_there_asks_nobody(run: Run[Any]) -> None:
    clouds = Clouds(QUICK)
    run(look_for_leftovers(clouds, [], {"home-1"}, knowing()))
    assert clouds.all() == []


def test_a_home_that_lost_its_files_looks_where_its_swarms_are(home: Home, api: CloudApi) -> None:
    """A pod's home may be a new one after each restart."""
    effective = {"provider": {"aws": api.parameters()}}
    swarms: list[Any] = []
    store = cast(Any, SimpleNamespace(list=lambda kind: swarms))
    provider = cast(Any, SimpleNamespace(clouds=None))

    async def begun() -> bool:
        task = begin_sweep(home, provider, store, set, removing=False)
        if task is not None:
            task.cancel()
        return task is not None

    assert not asyncio.run(begun())
    swarms.append({"metadata": {"uid": "u"}, "status": {"effective": effective}})
    assert asyncio.run(begun())


# --- codeswarm doctor --aws ----------------------------------------------------------------------


def doctor(*words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["doctor", "--aws", *words], input=input, prog_name="codeswarm")


def own_swarm(db: Database, api: CloudApi) -> str:
    """A swarm on AWS in the store; its uid."""
    made = db.create(swarm("cloud", provider={"aws": api.parameters()}))
    return str(made["metadata"]["uid"])


@pytest.mark.usefixtures("old")
def test_doctor_lists_and_removes(  # noqa: PLR0917
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any], home: Home, db: Database
) -> None:
    uid = own_swarm(db, api)
    mine = run(launch(ec2, wish, tags=tags(uid, home.identity)))
    made = run(fill(ec2, wish, home.identity))
    # Two swarms are gone: `owned` and `left` of this home.
    listed = doctor()
    assert listed.exit_code == 1
    text = listed.stdout
    assert f"{REGION} at {api.url}, account 123456789012" in text
    for one, words in ((mine[0], "of a swarm"), (made["left"], "left over"),
                       (made["another"], "of another home"), (made["kept"], "kept on purpose"),
                       (made["holds"], "may hold work")):  # fmt: skip
        [line] = [line for line in text.splitlines() if one in line]
        assert words in line
    assert len(api.live()) == 4

    refused = doctor("--remove", input="n\n")
    assert refused.exit_code == 130
    assert len(api.live()) == 4
    nobody = doctor("--remove")
    assert nobody.exit_code == 2
    assert "--yes" in nobody.stderr

    done = doctor("--remove", "--yes")
    assert done.exit_code == 0, done.output
    assert "2 instance(s) ended, 1 volume(s) deleted" in done.stdout
    assert set(api.live()) == {*mine, made["another"]}
    assert made["kept"] in api.volumes()

    all_of_it = doctor("--remove", "--volumes", input="y\n")
    assert all_of_it.exit_code == 0, all_of_it.output
    assert api.volumes() == {}
    assert doctor().exit_code == 0


def test_doctor_looks_where_the_home_ever_was(
    api: CloudApi, home: Home, db: Database, run: Run[Any]
) -> None:
    assert "name one with --region" in doctor().stdout
    clouds = Clouds(seen=Places(home.aws_places).note)
    clouds.of(Api(REGION, api.url))
    clouds.of(Api(REGION, api.url))
    run(clouds.close())
    assert Places(home.aws_places).all() == [Api(REGION, api.url)]
    with home.aws_places.open("a") as file:
        file.write('torn {"region\n[]\n')
    Places(home.aws_places).note(Api("eu-central-1"))
    assert Places(home.aws_places).all() == [Api(REGION, api.url), Api("eu-central-1")]
    home.aws_places.unlink()
    Places(home.aws_places).note(Api(REGION, api.url))
    assert "nothing of Codeswarm's is there" in doctor().stdout
    api.down()
    away = doctor()
    assert away.exit_code == 0
    assert away.stdout.startswith(f"WARN  {REGION} at {api.url}: GetCallerIdentity")
    named = doctor("--region", REGION, "--endpoint-url", api.url)
    assert named.exit_code == 1
    api.up()


@pytest.mark.usefixtures("old")
def test_doctor_in_a_cluster(
    ec2: Boto, wish: Wish, api: CloudApi, run: Run[Any], tmp_path: Path
) -> None:
    made = run(fill(ec2, wish, "uid-of-the-namespace"))
    made["lease"] = run(launch(ec2, wish, token="l", tags=tags("x", "uid-of-the-lease")))[0]
    uids = {"/api/v1/namespaces/codeswarm": "uid-of-the-namespace"}
    uids[path_of("Lease", "codeswarm", "codeswarm-controller")] = "uid-of-the-lease"
    of_swarm = {
        "metadata": {"name": "cloud", "namespace": "a", "uid": "owned"},
        "status": {"effective": {"provider": {"aws": api.parameters()}}},
    }
    refused = {
        "metadata": {"name": "trap", "namespace": "b", "uid": "trap"},
        "spec": {"provider": {"aws": api.parameters(endpointUrl="http://127.0.0.9:1")}},
    }

    def answer(asked: Asked) -> Reply:
        if asked.path in uids:
            return Reply({"metadata": {"uid": uids[asked.path]}})
        if asked.path == path_of("Swarm", None):
            return Reply({"items": [of_swarm, refused]})
        return status(403, "may not", "Forbidden")

    with ApiServer(answer) as server:
        config = str(server.kubeconfig(tmp_path))
        listed = CliRunner().invoke(cli, ["doctor", "--kubeconfig", config, "--aws"])
    standing = {
        name: line.rpartition("   ")[2]
        for name, one in made.items()
        for line in listed.stdout.splitlines()
        if one in line
    }
    assert standing["owned"] == standing["owned-volume"] == "of a swarm", listed.output
    assert standing["left"] == standing["lease"] == "left over"
    assert standing["another"] == "of another home"
    assert "127.0.0.9" not in listed.output, "nobody's endpoint is asked before it is accepted"

    # Who may not see all swarms sees no left-overs, and removes nothing.
    with ApiServer(lambda _: status(403, "may not", "Forbidden")) as server:
        config = str(server.kubeconfig(tmp_path))
        words = ["--aws", "--region", REGION, "--endpoint-url", api.url, "--remove", "--yes"]
        refused = CliRunner().invoke(cli, ["doctor", "--kubeconfig", config, *words])
    assert refused.exit_code != 0
    assert set(api.live()) == {made[name] for name in ("owned", "left", "another", "lease")}


@pytest.mark.parametrize(
    "words",
    [["--region", "x"], ["--remove"], ["--aws", "--endpoint-url", "http://x"], ["--aws", "--yes"]],
)
def test_options_that_do_not_go_together(words: list[str]) -> None:
    assert CliRunner().invoke(cli, ["doctor", *words]).exit_code == 2


def test_removable_is_a_choice_of_what_was_found() -> None:
    def one(standing: Standing) -> Found:
        return Found(Api("r"), standing, "volume", "", "", "", "", 0.0, standing)

    every = [one(standing) for standing in Standing]
    chosen = {found.standing for found in removable(every, volumes=True)}
    assert not chosen & {Standing.OWNED, Standing.ANOTHER, Standing.YOUNG}
