"""F3 and F4: the power goes at any operation of saves, with anything lost that was not synced."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import count
from operations import Operation, watching
from outcomes import outcome
from powerloss import Disk, fates
from savings import Small, found

STEPS, EVERY = 8, 2
COMMITTED = "committed"


def recorded(folder: Path, *, keep: int) -> list[Operation]:
    """The operations of a run with four saves, with a mark after each."""
    made: list[Operation] = []
    with watching(folder, lambda operation: None, made.append):
        small = Small(folder, keep=keep)
        small.go(STEPS, EVERY, lambda step: made.append(Operation(COMMITTED, str(step))))
    return made


def look(target: Path, committed: int, begun: int) -> None:
    """A checkpoint of the last two is found, and none older than one that was reported; the journal reaches it."""
    step, _ = found(target)
    assert step in (committed, begun), f"went on after step {step}; {committed} was reported, {begun} begun"
    lines = (target / "metrics.jsonl").read_bytes().count(b"\n") if (target / "metrics.jsonl").is_file() else 0
    assert lines >= step, f"the journal has {lines} steps, and the checkpoint is of step {step}"


def lose_power(folder: Path, operations: list[Operation], root: str, states: int) -> int:
    """Look at what may be left at every operation; how many states were looked at."""
    chance = random.Random("F3")
    disk, committed, begun, looked = Disk(root), 0, 0, 0
    each = max(3, states // len(operations))
    for operation in operations:
        if operation.kind == COMMITTED:
            committed = int(operation.path)
        else:
            if operation.kind == "mkdir" and (name := re.search(r"\.step-(\d+)-", operation.path)):
                begun = int(name[1])
            disk.do(operation)
        ways = list(fates(disk, chance, each))
        for fate in ways if len(ways) <= each else chance.sample(ways, each):
            target = folder / "state"
            disk.write(target, fate)
            look(target, committed, begun)
            shutil.rmtree(target)
            looked += 1
    return looked


@pytest.mark.parametrize("keep", [1, 2])
def test_the_power_goes(tmp_path, keep):
    root = tmp_path / "run"
    root.mkdir()
    operations = recorded(root, keep=keep)
    assert {"fsync", "fsync folder", "rename", "save"} <= {operation.kind for operation in operations}
    with outcome("F3", f"power lost at any operation of four saves, checkpoint.keep={keep}") as noted:
        looked = lose_power(tmp_path, operations, str(root), count(120, 4000))
        noted.trials = noted.passed = looked
        noted.note = f"{len(operations)} operations; what is not synced is lost, zeros, half or whole"


def order(names: list[str]) -> None:
    """Each file is synced before the manifest gets its name, that before the folder gets its, which is synced last."""
    at = {name: number for number, name in enumerate(names)}
    part = next(name.split()[1] for name in names if name.startswith("mkdir") and ".step-" in name)
    manifest = at[f"rename {part}/.manifest.json.part to {part}/manifest.json"]
    given = next(number for name, number in at.items() if name.startswith(f"rename {part} to "))
    for file in ("model.safetensors", "optimizer.safetensors", "state.json", ".manifest.json.part"):
        assert at[f"fsync {part}/{file}"] < manifest, f"{file} is synced after the manifest gets its name"
    folder = [number for number, name in enumerate(names) if name == f"fsync folder {part}"]
    assert any(number < manifest for number in folder)
    assert any(manifest < number < given for number in folder)
    after = [number for number, name in enumerate(names) if name == f"fsync folder {Path(part).parent}"]
    assert any(number > given for number in after), "the folder of checkpoints is not synced after the rename"


def test_the_order_of_syncs_as_the_program_makes_them(tmp_path):
    (root := tmp_path / "run").mkdir()
    with outcome("F4", "order of syncs and renames in a save, as recorded") as noted, noted.trial():
        order([operation.named(root) for operation in recorded(root, keep=1)])


SCRIPT = "import sys; sys.path[:0] = sys.argv[2:]\nfrom savings import Small\nfrom pathlib import Path\n"
CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += 0")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed; the recorded order is tested")
def test_the_order_of_syncs_as_the_system_sees_them(tmp_path):
    root, out = tmp_path / "run", tmp_path / "calls"
    command = [sys.executable, "-c", SCRIPT + "Small(Path(sys.argv[1])).go(2, 2)", str(root), *sys.path]
    traced = ["strace", "-f", "-y", "-qq", "-s", "512", "-e", "trace=fsync,mkdir,rename,renameat,renameat2", "-o"]
    done = subprocess.run([*traced, str(out), *command], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode and "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr[:200]}; the recorded order is tested")
    assert done.returncode == 0, done.stderr[-2000:]
    names = []
    for line in out.read_text("utf-8").splitlines():
        if (call := CALL.match(line)) and str(root) in line:
            paths = [path for path in re.findall(r"[<\"]([^<>\"]+)[>\"]", call[2]) if path.startswith(str(root))]
            short = [path.removeprefix(str(root)).strip("/") or "." for path in paths]
            kind = call[1][:6] if call[1].startswith("rename") else call[1]
            file = kind != "fsync" or Path(paths[0]).suffix in (".safetensors", ".json", ".jsonl")
            known = file or paths[0].endswith(".json.part")
            names.append(f"{kind if known else 'fsync folder'} {' to '.join(short)}")
    with outcome("F4", "order of syncs and renames in a save, as strace saw them") as noted, noted.trial():
        order(names)
