"""A manifest describes a folder to the last byte; whatever is not as it says is found, by name."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from tutelage import files
from tutelage.checkpoints import manifest
from tutelage.checkpoints.manifest import Broken


@pytest.fixture
def folder(tmp_path):
    """A sealed folder of two files."""
    path = tmp_path / "step-00000007"
    path.mkdir()
    (path / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    (path / "state.json").write_text('{"step": 7}\n')
    manifest.seal(path, step=7, run="abc", facts={"healthy": False, "heldout_nll": 1.25})
    return path


def rewrite(folder, **changes):
    """The manifest with other values, as if it had been written so; None removes a key."""
    whole = {**json.loads((folder / "manifest.json").read_text()), **changes}
    del whole["sha256"]
    whole = {key: value for key, value in whole.items() if value is not None}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    whole["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(files.as_json(whole), "utf-8")


def reason(folder) -> str:
    with pytest.raises(Broken) as caught:
        manifest.verify(manifest.read(folder))
    return str(caught.value)


def test_what_is_sealed_is_read_back_and_verifies(folder):
    found = manifest.read(folder)
    manifest.verify(found)
    assert (found.folder, found.step, found.run, found.bytes) == (folder, 7, "abc", 2048 + 12)
    assert (found.healthy, found.heldout_nll) == (False, 1.25)
    content = (folder / "model.safetensors").read_bytes()
    assert found.files["model.safetensors"] == {"bytes": 2048, "sha256": hashlib.sha256(content).hexdigest()}
    assert set(found.files) == {"model.safetensors", "state.json"}


def test_facts_that_are_not_there_are_good_ones(folder):
    (folder / manifest.FILE).unlink()
    found = manifest.seal(folder, step=7, run="a run", facts={})
    assert (found.healthy, found.heldout_nll) == (True, None)


@pytest.mark.parametrize("place", [0, 1000, 2047])
@pytest.mark.parametrize("bit", [0, 7])
def test_one_flipped_bit_is_found(folder, place, bit):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)
    assert reason(folder).startswith("model.safetensors has another content: SHA-256 ")


@pytest.mark.parametrize("size", [0, 1, 8, 1024, 2047])
def test_a_torn_file_is_found_by_its_size(folder, size):
    os.truncate(folder / "model.safetensors", size)
    assert reason(folder) == f"model.safetensors has {size:,} bytes; 2,048 were written"


def test_zeros_in_place_of_content_are_found(folder):
    (folder / "model.safetensors").write_bytes(bytes(2048))
    assert "another content" in reason(folder)


def test_a_file_that_is_missing_or_does_not_belong_is_found(folder):
    (folder / "extra").write_text("")
    assert reason(folder) == "extra does not belong to it"
    (folder / "extra").unlink()
    (folder / "state.json").unlink()
    assert reason(folder) == "state.json is missing"


def test_a_link_is_no_file(folder, tmp_path):
    kept = tmp_path / "elsewhere"
    (folder / "state.json").rename(kept)
    (folder / "state.json").symlink_to(kept)
    assert reason(folder) == "state.json is not a regular file"
    (folder / "state.json").unlink()
    (folder / "state.json").mkdir()
    assert reason(folder) == "state.json is not a regular file"


def test_no_manifest_is_an_unfinished_save(folder):
    (folder / "manifest.json").unlink()
    assert reason(folder) == "manifest.json is missing, so the save was not finished"


def test_a_manifest_that_is_a_link_or_too_large_is_not_read(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "LONGEST", 10)
    assert reason(folder) == "manifest.json is a link or too large"
    monkeypatch.undo()
    (folder / "manifest.json").rename(tmp_path / "m.json")
    (folder / "manifest.json").symlink_to(tmp_path / "m.json")
    assert reason(folder) == "manifest.json is a link or too large"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"\x00" * 300])
def test_what_is_not_json_is_said_so(folder, content):
    (folder / "manifest.json").write_bytes(content)
    assert reason(folder).startswith("manifest.json cannot be read: ")


def test_a_manifest_that_was_changed_afterwards_is_found(folder):
    path = folder / "manifest.json"
    for old, new in (('"heldout_nll": 1.25', '"heldout_nll": 0.25'), ('"bytes": 12', '"bytes": 13'), ("abc", "abd")):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        assert reason(folder) == "manifest.json was changed after it was written"
        path.write_text(text)
    manifest.verify(manifest.read(folder))


def test_another_format_is_named(folder):
    rewrite(folder, format=2)
    assert reason(folder) == "manifest.json has format 2, and this version reads 1"


@pytest.mark.parametrize("step", [-1, "7", 7.0, True, [7]])
def test_a_step_is_a_number_of_steps(folder, step):
    rewrite(folder, step=step)
    assert reason(folder) == f"manifest.json says step {step!r}"


@pytest.mark.parametrize("key", ["format", "step", "run", "files", "facts"])
def test_every_part_is_needed(folder, key):
    rewrite(folder, **{key: None})
    assert reason(folder).startswith("manifest.json lacks what a manifest says: ")


@pytest.mark.parametrize("whole", ["[]", "1", "null", '"text"'])
def test_a_manifest_is_an_object(folder, whole):
    (folder / "manifest.json").write_text(whole)
    assert reason(folder).startswith("manifest.json lacks what a manifest says: ")


@pytest.mark.parametrize("known", [[], "state.json", {"state.json": 12}, {"state.json": {"bytes": 12}}])
def test_files_are_described_by_size_and_digest(folder, known):
    rewrite(folder, files=known)
    assert reason(folder).startswith("manifest.json lacks what a manifest says: ")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "..", ".", "manifest.json"])
def test_names_that_lead_out_of_the_folder_are_refused(folder, name):
    rewrite(folder, files={name: {"bytes": 1, "sha256": "0"}})
    assert reason(folder) == f"manifest.json names files outside of the folder: {name!r}"
