"""Transforms: what the twins make, to the last bit, and the same again after a resume."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import shardstream as ss
from shardstream.errors import ConfigError, SampleError, TextError, TransformError
from shardstream.text import CategoryHasher, FeatureHasher
from shardstream.transforms import Hash, HashCategories, Images, Place, Standardize, Tokenize
from tests import texts
from tests.twins import transforms as twin


def images_of(seed: int, num: int, height: int, width: int, num_channels: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, height, width, num_channels), dtype=np.uint8)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_images_are_the_twin_s(data):
    """Any size, crop, padding and number of channels, at random or not: every pixel is the twin's to the last bit."""
    height, width, num_channels, padding = (data.draw(st.integers(*r)) for r in ((1, 40), (1, 300), (1, 5), (0, 6)))
    crop = tuple(data.draw(st.integers(1, n + 2 * padding)) for n in (height, width))
    options = {"padding": padding, "random_crop": data.draw(st.booleans()), "random_flip": data.draw(st.booleans())}
    numbers = st.floats(-3, 3, width=32)
    mean = data.draw(st.lists(numbers, min_size=num_channels, max_size=num_channels))
    std = data.draw(st.lists(numbers.filter(lambda x: abs(x) > 1e-3), min_size=num_channels, max_size=num_channels))
    seed, epoch = data.draw(st.integers(0, 2**64 - 1)), data.draw(st.integers(0, 2**40))
    images, positions = images_of(seed % 1000, 3, height, width, num_channels), np.array([5, 2**40, 7])
    made = Images("img", crop=crop, mean=mean, std=std, **options)(
        {"img": torch.from_numpy(images), "y": 1}, Place(seed, epoch, positions)
    )
    expected = [
        twin.image(image, crop, *options.values(), mean, std, (seed, epoch, int(p)))
        for image, p in zip(images, positions)
    ]
    assert made["y"] == 1 and made["img"].dtype == torch.float32
    assert made["img"].numpy().tobytes() == np.stack(expected).tobytes()


def test_images_of_different_sizes_are_cropped_to_one():
    """A list of images, as decoded files come, is cropped to one size; without channels they are grey."""
    images = [images_of(i, 1, 20 + i, 30 - i, 1)[0, :, :, 0] for i in range(5)]
    options = {"padding": 1, "random_crop": True, "random_flip": True}
    made = Images("img", crop=(18, 20), to="x", **options)({"img": images}, Place(1, 2, np.arange(5)))
    expected = [
        twin.image(image[..., None], (18, 20), 1, True, True, [0.0], [1.0], (1, 2, i)) for i, image in enumerate(images)
    ]
    assert made["x"].numpy().tobytes() == np.stack(expected).tobytes() and made["img"] is images


def test_whole_images_need_no_crop():
    """Without a crop images keep their size, and pixels from 0 to 1 are the default."""
    images = images_of(3, 4, 7, 5, 3)
    assert Images("img", crop=np.array([6, 4])).crop == (6, 4)
    made = Images("img")({"img": torch.from_numpy(images)}, Place(0, 0, np.arange(4)))["img"]
    np.testing.assert_allclose(made.numpy(), images.transpose(0, 3, 1, 2) / 255, rtol=1e-6)


def test_draws_are_even():
    """Crops and flips are as often here as there, and change with seed, epoch and position."""
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 64, 1).repeat(4000, 0)
    transform = Images("img", crop=(1, 57), random_crop=True, random_flip=True)

    def draws(seed, epoch):
        made = (
            transform({"img": torch.from_numpy(image)}, Place(seed, epoch, np.arange(4000)))["img"].numpy()[:, 0, 0]
            * 255
        )
        flipped = made[:, 0] > made[:, 1]
        return np.rint(np.where(flipped, made[:, -1], made[:, 0])), flipped

    (left, flipped), others = draws(0, 0), [draws(1, 0), draws(0, 1)]
    assert np.bincount(left.astype(int), minlength=8).min() > 400 and 1850 < flipped.sum() < 2150
    assert abs(np.corrcoef(left, flipped)[0, 1]) < 0.05
    for other_left, other_flipped in others:
        assert (left == other_left).mean() < 0.2 and 0.4 < (flipped == other_flipped).mean() < 0.6


def test_draws_are_pinned():
    """A resumed run repeats crops and flips in every version: these never change."""
    image = np.arange(100, dtype=np.uint8).reshape(1, 10, 10, 1).repeat(6, 0)
    made = (
        Images("img", crop=(1, 2), random_crop=True, random_flip=True)({"img": image}, Place(42, 3, np.arange(6)))[
            "img"
        ]
        * 255
    )
    assert np.rint(made.numpy()).astype(int).reshape(6, 2).tolist() == [
        [92, 91],
        [93, 94],
        [35, 36],
        [75, 76],
        [98, 99],
        [54, 53],
    ]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A dataset with images, numbers and texts."""
    url = str(tmp_path_factory.mktemp("transforms") / "d")
    schema = ss.Schema(
        img=ss.Dense("uint8", (12, 12, 3)), x=ss.Dense("float64", (3,)), text=ss.Text(), y=ss.Dense("int64")
    )
    images, words = images_of(1, 300, 12, 12, 3), texts.adversarial(seed=1, num=300)
    with ss.ShardWriter(url, schema=schema, shard_nbytes="40kB") as writer:
        for y in range(300):
            writer.write({"img": images[y], "x": [y, 1e9 + y, -y], "text": words[y], "y": y})
    return url


@ss.batched
@ss.placed
def augment(columns, place):
    """Several transforms joined, as the documentation has it."""
    standardize = Standardize("x", [1, 1e9, 0], [2, 3, 4])
    images = Images("img", crop=(12, 12), padding=2, random_crop=True, random_flip=True)
    return standardize(images(columns, place))


def rows(loader, batches: int | None = None) -> dict[int, bytes]:
    found = {}
    for number, batch in enumerate(loader, 1):
        for y, image, x in zip(batch["y"].tolist(), batch["img"], batch["x"]):
            found[y] = image.numpy().tobytes() + x.numpy().tobytes()
        if number == batches:
            break
    return found


@pytest.mark.parametrize("cut", [1, 4])
def test_resumed_runs_repeat_crops_and_flips(url, cut):
    """After a resume, with other batches, ranks and workers, every row is what it was in an uninterrupted run."""
    options = {"shuffle": True, "seed": 9, "transform": augment}
    whole, next_epoch = (rows(stream) for stream in [ss.ShardStream(url, batch_size=32, **options)] * 2)
    first = ss.StreamLoader(ss.ShardStream(url, batch_size=32, **options))
    found, state = rows(first, cut), first.state_dict()
    for rank in range(2):
        rest = ss.StreamLoader(ss.ShardStream(url, batch_size=21, rank=rank, world_size=2, **options), num_workers=rank)
        rest.load_state_dict(state)
        found |= rows(rest)
    assert found == whole and len(whole) == 300 and next_epoch.keys() == whole.keys() and next_epoch != whole


DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 3), (5,), (7, 1), (40, 13), (3, 5, 4), (2, 700)])
def test_standardized_numbers_are_the_twin_s(dtype, shape):
    """Every dtype and shape: the difference in float64, then float32, to the last bit."""
    generator = np.random.default_rng(len(shape))
    values = (generator.normal(size=shape) * 100).astype(dtype)
    mean, std = generator.normal(size=shape[-1]) * 50, generator.uniform(0.5, 2, shape[-1])
    for arguments in ((mean, std), (3.5, 2.0), (mean, 7.0)):
        made = Standardize("x", *arguments)({"x": values})["x"]
        assert made.dtype == torch.float32 and made.shape == shape
        assert made.numpy().tobytes() == twin.standardize(values, *arguments).tobytes()


def test_large_numbers_keep_their_spread():
    """Seconds since 1970 with a spread of a day lose nothing, as they would in float32."""
    seconds = 1.7e9 + np.arange(5) * 1000
    made = Standardize("t", 1.7e9, 1000.0)({"t": torch.from_numpy(seconds)})["t"]
    assert made.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def tokenizer():
    return ss.tokenizers.train(texts.library_text(100_000), 700, "o200k", special_tokens=["<end>"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_texts_become_ids_in_the_stream(url, tokenizer, num_workers):
    """A text column comes as the tokenizer's ids, for any number of workers."""
    stream = ss.ShardStream(url, batch_size=64, shuffle=True, fields=["text", "y"], transform=Tokenize(tokenizer))
    expected = [tokenizer.encode(text).tolist() for text in texts.adversarial(seed=1, num=300)]
    count = 0
    for batch in ss.StreamLoader(stream, num_workers):
        ids, bounds = batch["ids"].values, batch["ids"].offsets.tolist()
        assert ids.dtype == torch.int64
        for y, begin, end in zip(batch["y"].tolist(), bounds, bounds[1:]):
            assert ids[begin:end].tolist() == expected[y]
            count += 1
    assert count == 300


@pytest.mark.parametrize("options", [{}, {"binary": True}, {"signed": True}], ids=["counts", "binary", "signed"])
def test_texts_become_features_in_the_stream(url, options):
    """A text column comes as the hasher's rows, in the form of jagged sparse fields."""
    hasher = FeatureHasher(1024, **options)
    stream = ss.ShardStream(url, batch_size=64, fields=["text"], transform=Hash(hasher, to="text"))
    indices, indptr, values = hasher.transform(texts.adversarial(seed=1, num=300))
    batches = [batch["text"] for batch in stream]
    assert torch.cat([batch.values for batch in batches]).tolist() == indices.tolist()
    assert torch.cat([batch.offsets.diff() for batch in batches]).tolist() == np.diff(indptr).tolist()
    if options.get("binary"):
        assert {batch.weights for batch in batches} == {None}
    else:
        assert torch.cat([batch.weights for batch in batches]).tolist() == values.tolist()
        assert {batch.weights.dtype for batch in batches} == {torch.float32}  # as EmbeddingBag's are


def test_columns_become_named_features_in_the_stream(tmp_path):
    """Texts are categories and numbers weights, row by row as the hasher has them; the columns stay."""
    rows = [{"city": f"city {n % 7}", "age": n % 3, "price": n / 4} for n in range(100)]
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(city=ss.Text(), age=ss.Dense("uint8"), price=ss.Dense("float32"))) as writer:
        for row in rows:
            writer.write(row)
    hasher = CategoryHasher(1 << 12, signed=True)
    indices, indptr, values = hasher.transform(rows)
    batches = list(ss.ShardStream(str(tmp_path), batch_size=32, transform=HashCategories(hasher, ["city", "age", "price"])))
    assert torch.cat([batch["x"].values for batch in batches]).tolist() == indices.tolist()
    assert torch.cat([batch["x"].offsets.diff() for batch in batches]).tolist() == np.diff(indptr).tolist()
    assert torch.cat([batch["x"].weights for batch in batches]).tolist() == values.tolist()
    assert [city for batch in batches for city in batch["city"]] == [row["city"] for row in rows]
    transform = HashCategories(hasher, ["x"])
    for columns, message in (({}, "no column 'x'"), ({"x": torch.ones(2, 3)}, "several values a row"), ({"x": {}}, "not a list")):
        with pytest.raises(ConfigError, match=message):
            transform(columns)
    with pytest.raises(TextError, match="'x' is bytes") as caught:
        transform({"x": ["a", b"b"]})
    assert caught.value.index == 1
    for arguments in ((FeatureHasher(8), ["x"]), (CategoryHasher(8, "string"), ["x"]), (hasher, "x"), (hasher, [])):
        with pytest.raises(ConfigError, match="no text.CategoryHasher|no list of columns"):
            HashCategories(*arguments)


def test_transforms_are_pickled(tokenizer):
    """Instances go to worker processes and transform there as here."""
    columns = {"img": torch.from_numpy(images_of(1, 2, 6, 6, 3)), "x": torch.ones(2, 3), "text": ["a b", "<end>"]}
    place = Place(1, 2, np.arange(2))
    for transform in (
        Images("img", crop=(4, 4), random_crop=True),
        Standardize("x", 1.5),
        Tokenize(tokenizer),
        Hash(FeatureHasher(64)),
        HashCategories(CategoryHasher(64), ["text"]),
    ):
        arguments = (columns, place) if isinstance(transform, Images) else (columns,)
        one, other = transform(*arguments), pickle.loads(pickle.dumps(transform))(*arguments)
        assert str(one) == str(other)


def test_outputs_are_not_written_again_while_they_are_held():
    """Memory of a batch that somebody keeps is not taken for the next."""
    transform = Standardize("x", 0.0)
    kept = [transform({"x": np.full((1000, 3), value)})["x"] for value in (1.0, 2.0, 3.0)]
    assert [float(x.mean()) for x in kept] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"crop": (0, 4)}, "a height and a width"), ({"crop": (4,)}, "a height and a width"), ({"crop": 4}, "crop=4 must be a height and a width"),
    ({"crop": "44"}, "a height and a width"), ({"crop": (4.0, 4)}, "a height and a width"),
    ({"padding": 2}, "need crop="),
    ({"random_crop": True}, "need crop="), ({"crop": (4, 4), "padding": -1}, "from 0"), ({"std": 0}, "std is not 0"),
    ({"std": [1, 0, 1]}, "std is not 0"), ({"mean": float("nan")}, "are numbers"),
    ({"mean": "grey"}, "are numbers"), ({"std": [[1.0]]}, "are numbers"),
])  # fmt: skip
def test_wrong_arguments_of_images_are_named(arguments, message):
    """Mistakes are errors where the transform is made."""
    with pytest.raises(ConfigError, match=message):
        Images("img", **arguments)


@pytest.mark.parametrize(("column", "kind", "message"), [
    (np.zeros((2, 4, 4, 3), np.float32), SampleError, "float32 of shape"), (np.zeros((2, 4), np.uint8), SampleError, "is no image"),
    (np.zeros((2, 4, 4, 17), np.uint8), SampleError, "is no image"), (np.zeros((2, 4, 0, 3), np.uint8), SampleError, "is no image"),
    (np.zeros((2, 7, 9, 3), np.uint8), SampleError, "7 x 9 pixels, with 0 around it, cannot be cropped to 8 x 8"),
    ([np.zeros((9, 9, 3), np.uint8), np.zeros((9, 7, 3), np.uint8)], SampleError, "9 x 7 pixels, .*key 1"),
    ([np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 1), np.uint8)], SampleError, "images of 1 and 3 channels"),
    ([np.zeros((9, 9, 3), np.uint8), b"jpeg"], SampleError, "is no image.*key 1"), (np.zeros((2, 9, 9, 2), np.uint8), ConfigError, "3 and 1 numbers for 2"),
])  # fmt: skip
def test_columns_that_are_no_images_are_named(column, kind, message):
    """Bad rows are errors that say which and why; nothing outside them is read."""
    with pytest.raises(kind, match=message):
        Images("img", crop=(8, 8), mean=[0.1, 0.2, 0.3])({"img": column}, Place(0, 0, np.arange(2)))


def test_wrong_columns_are_named(url, tokenizer):
    """A column that is missing or of another kind is an error that names it; in a stream with the place."""
    for transform, columns in ((Standardize("x", 1.0), {"y": 1}), (Tokenize(tokenizer), {"x": []}), (Hash(FeatureHasher(8)), {"text": torch.ones(2)}),
                               (Standardize("x", [1.0, 2.0]), {"x": np.ones((2, 3))}), (Standardize("x", 1.0), {"x": ["a"]}),
                               (Standardize("x", 1.0), {"x": np.array(["a"])}), (lambda c: Images("img")(c, Place(0, 0, np.arange(2))), {})):  # fmt: skip
        with pytest.raises(ConfigError):
            transform(columns)
    for make in (Tokenize, Hash):
        with pytest.raises(ConfigError, match="'cl100k_base' is no"):
            make("cl100k_base")
    with pytest.raises(ConfigError, match="mean and std have 2 and 3"):
        Standardize("x", [1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(TransformError, match="there is no column 'texts'"):
        next(iter(ss.ShardStream(url, batch_size=4, transform=Tokenize(tokenizer, "texts"))))
