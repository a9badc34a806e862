"""The worked numbers of docs/FORMAT.md section 7 are those of the twin."""

from pathlib import Path

from tests.twins import mix, order

TEXT = " ".join((Path(__file__).resolve().parents[1] / "docs/FORMAT.md").read_text().split())


def stated(values):
    return ", ".join(map(str, values)) in TEXT


def test_keys_are_as_stated():
    """The three keys of section 7.1."""
    for words in [(7, 3), (7, 3, 2), (7, 3, 1, 0, 0)]:
        assert (
            f"{', '.join(map(str, words))})` is `{order.key(*words):016x}`" in TEXT
            or f"is `{order.key(*words):016x}`" in TEXT
        )


def test_the_ciphers_images_are_as_stated():
    """The images and the walk of section 7.2."""
    key = order.key(7, 3, 1, 0, 0)
    assert stated(order.permute(key, 170, index) for index in range(8))
    assert f"from there to {order.permute(key, 170, 22)}." in TEXT


def test_the_worked_epoch_is_as_stated():
    """The lines of sections 7.3 and 7.4."""
    assert stated(order.permute(order.key(7, 3, order.SHARDS), 4, i) for i in range(4))
    assert stated(order.lane_begins(7, 3, 22, 4))
    assert stated(order.line(7, 3, 22, 4, 12, position) for position in range(22))
    assert [order.sample(7, 3, [6, 0, 7, 9], 4, 12, position) for position in range(3)] == [(2, 3), (3, 2), (0, 4)]
    assert stated(order.intervals(order.key(7, 3, order.LANES), 6))


def test_the_mixtures_quotas_are_as_stated():
    """The integer weights and two blocks' quotas of section 7.6."""
    whole = mix.integer_weights([0.7, 0.3])
    first, second = (mix.quotas([0.7, 0.3], block) for block in (0, 7))
    assert f"are {whole[0]:,} and {whole[1]:,}; block 0 has quotas {first[0]} and {first[1]}" in TEXT
    assert f"block 7 {second[0]} and {second[1]}" in TEXT
