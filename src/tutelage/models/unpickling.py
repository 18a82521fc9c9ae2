"""What the fresh process of `tutelage convert` does: give up the network, open pickles, write safetensors.

    python -m tutelage.models.unpickling < order.json, in the folder to write

Nothing of Tutelage but this file takes part, and the answer is one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_NO_NEW_PRIVILEGES = 38
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
_WRAPPERS = ("state_dict", "model", "module", "model_state_dict")
_LEAST_TORCH = (2, 10)


class _Refused(Exception):
    def __init__(self, code: str, found: str, file: str = "") -> None:
        super().__init__(found)
        self.code, self.found, self.file = code, found, file


def main() -> int:
    """Follow the order on standard input; 0 when every file was written."""
    order = json.load(sys.stdin)
    try:
        isolated = _leave_the_network(required=order["isolated"])
        places: dict[str, str] = {}
        total = 0
        for source, name in zip(order["files"], order["names"], strict=True):
            tensors = _opened(source, tied=order["tied"])
            repeated = sorted(places.keys() & tensors.keys())
            if repeated:
                raise _Refused("model/bad-weights", f"the tensor `{repeated[0]}` is in another file too", source)
            places |= dict.fromkeys(tensors, name)
            total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
            _write(tensors, name)
        if len(order["names"]) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
            Path(order["index"]).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    except _Refused as refused:
        print(json.dumps({"code": refused.code, "found": refused.found, "file": refused.file}))
        return 1
    print(json.dumps({"done": True, "isolated": isolated}))
    return 0


def _leave_the_network(*, required: bool) -> bool:
    """Move into namespaces that have no way out; whether that was possible.

    It comes before torch is imported: a process with threads may not leave.
    """
    problem = "namespaces are a thing of Linux"
    if sys.platform == "linux":
        system = ctypes.CDLL(None, use_errno=True)
        system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if system.unshare(_NEW_USER | _NEW_NET) == 0:
            ways = [line.partition(":")[0].strip() for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]]
            if set(ways) <= {"lo"}:
                return True
            problem = f"there are still ways out: {', '.join(ways)}"
        else:
            problem = f"unshare: {os.strerror(ctypes.get_errno())}"
    if required:
        raise _Refused("security/no-isolation", problem)
    return False


def _opened(file: str, *, tied: bool) -> dict[str, Any]:
    """The tensors in a pickle, each checked and with memory of its own."""
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _LEAST_TORCH:
        raise _Refused("security/pickle", f"torch {torch.__version__} has known holes in weights_only; 2.10 is needed")
    zipped = zipfile.is_zipfile(file)
    if zipped:
        _refuse_bombs(file)
    try:
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # whatever it is, there is no second try with less care
        text = str(error).strip().splitlines()
        raise _Refused("security/pickle", (text[0] if text else type(error).__name__)[:300], file) from None
    for wrapper in _WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
            break
    if not isinstance(held, dict) or not held:
        raise _Refused("model/bad-weights", f"it holds {type(held).__name__}, not tensors by name", file)
    tensors: dict[str, Any] = {}
    for name, tensor in held.items():
        problem = _problem_of(name, tensor)
        if problem:
            raise _Refused("model/bad-weights", problem, file)
        if tied and name in _HEADS and any(name != other and _same(tensor, value) for other, value in held.items()):
            continue  # The model makes it from the embedding.
        tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return tensors


def _problem_of(name: object, tensor: Any) -> str:
    """What is wrong with an entry: a broken pickle can make tensors that reach beyond their memory."""
    import torch

    if not isinstance(name, str) or not name.isprintable() or not name:
        return f"a tensor has the name {name!r:.60}"
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return f"`{name[:80]}` is {type(tensor).__name__}, not a tensor"
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        return f"`{name[:80]}` is not a plain tensor ({tensor.layout}, {tensor.dtype}, {tensor.device})"
    last = tensor.storage_offset() + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    if tensor.numel() and not 0 <= last < tensor.untyped_storage().nbytes() // tensor.element_size():
        return f"`{name[:80]}` reaches beyond its memory"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"`{name[:80]}` shows the same memory many times"
    return ""


def _same(one: Any, other: Any) -> bool:
    return one.data_ptr() == getattr(other, "data_ptr", int)() and one.shape == other.shape


def _refuse_bombs(file: str) -> None:
    """Torch stores its archives as they are; one that unpacks to more is none of its making."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise _Refused("security/pickle", f"{entry.filename[:80]} is packed, as torch packs nothing", file)


def _write(tensors: dict[str, Any], name: str) -> None:
    from safetensors.torch import save_file

    save_file(tensors, name, metadata={"format": "pt"})
    with open(name, "rb") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
