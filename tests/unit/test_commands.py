"""The parts of the verbs that need no model."""

from __future__ import annotations

from importlib import resources

from tutelage import config
from tutelage.commands import DEMO_ROWS, _free
from tutelage.seeds import derive
from tutelage.train.schedule import evaluation_points


def test_the_demo_never_overwrites(tmp_path):
    wanted = tmp_path / "demo"
    assert _free(wanted) == wanted
    wanted.mkdir()
    assert _free(wanted) == wanted
    (wanted / "recipe.yaml").write_text("")
    assert _free(wanted) == tmp_path / "demo-2"
    (tmp_path / "demo-2").write_text("a file")
    assert _free(wanted) == tmp_path / "demo-3"


def test_the_demos_recipe_is_one():
    with resources.as_file(resources.files("tutelage.demo") / "recipe.yaml") as path:
        recipe = config.load(path).recipe
    assert recipe.model.path == "smollm2-135m-instruct"
    assert recipe.evaluate.score == "json"
    assert DEMO_ROWS > 100


def test_held_out_loss_is_measured_evenly_and_not_twice_at_the_end():
    assert evaluation_points(100, 3) == {25, 50, 75}
    assert evaluation_points(2, 3) == {1}
    assert evaluation_points(1, 3) == set()
    assert evaluation_points(10, 0) == set()


def test_seeds_depend_on_every_part_of_their_name():
    names = [(0, "dropout", 1, 2), (1, "dropout", 1, 2), (0, "adapter", 1, 2), (0, "dropout", 12), (0, "dropout", 2, 1)]
    seeds = {derive(seed, purpose, *indices) for seed, purpose, *indices in names}
    assert len(seeds) == len(names)
    assert derive(*names[0]) == derive(*names[0])
    assert all(0 <= seed < 2**63 for seed in seeds)
