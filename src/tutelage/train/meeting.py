"""How the processes of a run find one another: by the launcher's variables, at the launcher's store."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

from tutelage.errors import Problem, RecipeError, WorkerError
from tutelage.train.ranks import ALONE, Ranks

MEETING_SECONDS = 900
"""How long the processes wait for one another at the start."""
PATIENCE = timedelta(days=2)
"""How long a process waits for another: the watchdog ends what hangs, long before."""


def start(device: str = "cpu") -> Ranks:
    """Meet the processes that the launcher started beside this one; `ALONE` where there are none.

    Raises:
        RecipeError: recipe/conflict, where the launcher's variables do not fit together.
        WorkerError: worker/lost, naming those who did not come.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        return ALONE
    rank, local = _number("RANK"), _number("LOCAL_RANK", 0)
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ or not 0 <= rank < world:
        _refuse_launch()
    if _number("LOCAL_WORLD_SIZE", world) == world:
        _stay_on_this_machine()
    backend = "gloo"
    if device == "cuda":
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=_met(rank, world), rank=rank, world_size=world, timeout=PATIENCE)
    return Ranks(rank, world, local, device)


def _met(rank: int, world: int) -> dist.Store:
    """The launcher's store, when all processes have reached it; signals are heard meanwhile."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    of_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    until = time.monotonic() + MEETING_SECONDS
    try:
        first = rank == 0 and not of_launcher
        patience = timedelta(seconds=MEETING_SECONDS)
        reached = dist.TCPStore(host, port, world, is_master=first, timeout=patience, wait_for_workers=False)
        store = dist.PrefixStore(f"tutelage/{attempt}", reached)
        store.set(f"here/{rank}", "")
        missing = list(range(world))
        while missing := [other for other in missing if not store.check([f"here/{other}"])]:
            if time.monotonic() > until:
                raise _did_not_come(f"rank {missing[0]}", f"{world - len(missing)} of {world} processes came")
            time.sleep(0.05)
    except (dist.DistError, RuntimeError) as error:
        raise _did_not_come(f"the store at {host}:{port}", str(error).splitlines()[0]) from error
    return store


def _did_not_come(who: str, found: str) -> WorkerError:
    why, fix = f"waited for {MEETING_SECONDS} s", "start all with one launcher; look at the machine that is missing"
    return WorkerError(Problem("worker/lost", f"{who} could not be reached", found=found, why=why, fix=fix))


def _number(name: str, otherwise: int | None = None) -> int:
    text = os.environ.get(name, "")
    if text.isdigit():
        return int(text)
    if text or otherwise is None:
        _refuse_launch()
    return otherwise


def _refuse_launch() -> NoReturn:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    raise RecipeError(
        Problem(
            "recipe/conflict",
            "the environment names several processes, but not how they meet",
            found=", ".join(f"{name}={os.environ.get(name, '(not set)')}" for name in names),
            why="WORLD_SIZE above 1 says that a launcher started several processes",
            fix="start them with `torchrun --nproc-per-node N -m tutelage train RECIPE`, or unset WORLD_SIZE",
        )
    )


def _stay_on_this_machine() -> None:
    """All processes are here: they meet on the loopback interface, and no other machine can reach their sockets."""
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)
