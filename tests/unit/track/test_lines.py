"""Reading a file that another process writes."""

from __future__ import annotations

import json

import pytest

from tutelage.track.lines import Lines


def write(path, steps, note="", mode="w"):
    with path.open(mode) as file:
        file.writelines(json.dumps({"step": step, "note": note}) + "\n" for step in steps)


def steps(lines):
    return [line["step"] for line in lines.new()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_each_line_is_given_once(path):
    lines = Lines(path)
    assert steps(lines) == []
    write(path, [1, 2])
    assert steps(lines) == [1, 2]
    assert steps(lines) == []
    write(path, [3], mode="a")
    assert steps(lines) == [3]


def test_a_line_still_being_written_waits(path):
    lines = Lines(path)
    path.write_text('{"step": 1}\n{"st')
    assert steps(lines) == [1]
    assert steps(lines) == []
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert steps(lines) == [2]


def test_a_file_cut_back_is_read_again(path):
    lines = Lines(path)
    write(path, range(1, 9))
    assert steps(lines) == [*range(1, 9)]
    write(path, range(1, 4))
    assert steps(lines) == [1, 2, 3]


@pytest.mark.parametrize("note", ["", "x", "another length"])
def test_a_file_cut_back_that_grew_beyond_where_it_was_is_noticed(path, note):
    lines = Lines(path)
    write(path, range(1, 9))
    assert len(steps(lines)) == 8
    write(path, range(1, 4))
    write(path, range(4, 30), note, mode="a")
    found = steps(lines)
    # With lines as they were before there is nothing to notice; with other ones, all come again.
    assert found == ([*range(9, 30)] if not note else [*range(1, 30)])


def test_what_a_power_failure_left_is_passed_over(path):
    lines = Lines(path)
    path.write_bytes(b'{"step": 1}\n\0\0\0\0\n[2]\n{"step": 3}\n\xff\n{"step": 4}\n')
    assert steps(lines) == [1, 3, 4]
    path.write_bytes(path.read_bytes() + b'{"step": 5}\n')
    assert steps(lines) == [5]
