import numpy as np
import pytest

from study.data.detail import detail
from study.telling.detail import main


def images(*maps):
    return np.array(maps, dtype=np.uint8)[..., None]


def test_detail_is_what_patches_do_not_share():
    checks = np.indices((12, 8)).sum(axis=0) % 2 * 200
    steps = np.repeat(np.repeat([[0, 40], [90, 10], [200, 250]], 4, axis=0), 4, axis=1)
    assert detail(images(checks)) == pytest.approx(1)
    assert detail(images(steps)) == pytest.approx(0)
    noise = np.random.default_rng(0).integers(0, 255, (12, 8))
    whole = noise - noise.mean()
    means = whole.reshape(3, 4, 2, 4).mean(axis=(1, 3))
    assert detail(images(noise)) == pytest.approx(1 - 16 * np.square(means).sum() / np.square(whole).sum())


def test_what_has_no_detail_is_refused():
    with pytest.raises(ValueError, match=r"^images must vary, got flat ones alone$"):
        detail(images(np.full((12, 8), 7)))
    with pytest.raises(ValueError, match=r"^images must be at least a patch of 4 pixels a side, got 3×8$"):
        detail(images(np.zeros((3, 8))))


def test_the_command_prints_a_number_for_each_set(tmp_path, capsys):
    file = tmp_path / "x.yaml"
    file.write_text(
        "question: q?\nbase: nano\naxes: {fusion: [concat]}\nseeds: [0]\n"
        "datasets: ['phantom_texture?n_train=40', 'phantom_position?n_train=40']\n"
    )
    assert main([str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    values = [float(line.rpartition(": ")[2]) for line in lines]
    assert [line.rpartition(": ")[0] for line in lines] == ["phantom_texture?n_train=40", "phantom_position?n_train=40"]
    assert values[0] > values[1] + 0.2
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
