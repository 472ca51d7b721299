"""The controller is killed among many tasks: when does it converge again, what does it weigh?"""

from __future__ import annotations

import time

import psutil

from bench.kube_lab import Bench, Clients, Memory, bench, load

DEADLINE = 900.0
AIM_SECONDS = 10.0
AIM_MEGABYTES = 200.0


def restart(bench: Bench, count: int) -> tuple[float, psutil.Process]:
    """Kill it when half of the tasks are done, and start it; seconds to the next one done."""
    bench.wait_tasks(count // 2, DEADLINE)
    bench.lab.kill()
    before = sum(
        (task.get("status") or {}).get("phase") == "Succeeded" for task in bench.lab.list("Task")
    )
    begin = time.monotonic()
    controller = bench.start()
    up = time.monotonic() - begin
    bench.lab.wait(lambda: bench.tasks() > before, "another task to be done")
    again = time.monotonic() - begin
    print(
        f"  killed with {before} of {count} tasks done: up after {up:.2f} s, the next task done "
        f"after {again:.2f} s (aim {AIM_SECONDS:.0f}; {load()})"
    )
    return again, controller


def create(bench: Bench, count: int, *arguments: str) -> None:
    """Have so many tasks more."""
    with Clients(bench.lab, count, 1, *arguments) as creators:
        creators.go()
        creators.wait()


def measure(count: int, workers: int) -> bool:
    """Restart among ``count`` tasks, then go on to twice as many; whether the aims are reached."""
    print(f"restart with {count} tasks, memory with {2 * count}")
    with bench() as room:
        room.start()
        room.swarm(workers)
        create(room, count)
        again, controller = restart(room, count)
        room.wait_tasks(count, DEADLINE)
        room.check(count)
        print(f"  all {count} done, each in one attempt and one turn")
        memory = Memory(controller)
        create(room, count, "--prefix", "more")
        room.wait_tasks(2 * count, DEADLINE, memory.look)
        room.check(2 * count)
        print(f"  {2 * count} tasks done: at most {memory.most:.0f} MB")
        room.lab.kill()
        begin = time.monotonic()
        memory = Memory(room.start())
        room.lab.wait(lambda: room.tasks() == 2 * count, "all tasks to be known")
        seconds = time.monotonic() - begin
        for _ in range(20):
            time.sleep(0.25)
            memory.look()
        print(
            f"  started with {2 * count} tasks, all done: {seconds:.2f} s, "
            f"at most {memory.most:.0f} MB (aim {AIM_MEGABYTES:.0f}; {load()})"
        )
        room.lab.stop()
    return again <= AIM_SECONDS and memory.most <= AIM_MEGABYTES
