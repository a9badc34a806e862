"""``ss.transforms.DecodeImages``: the pixels that Pillow gives, on any number of threads, and no batch lost to one bad
image.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import shardstream as ss
from shardstream.codecs import images
from shardstream.transforms import decoding

DecodeImages, Images = ss.transforms.DecodeImages, ss.transforms.Images


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return a smooth picture, as photos are."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(data: bytes, mode: str = "RGB") -> np.ndarray:
    """The twin: Pillow's pixels of one image, grey as a JPEG has it."""
    image = Image.open(io.BytesIO(data))
    image.draft(mode, image.size)
    return np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)


def decoded(data: list, **options) -> np.ndarray:
    return DecodeImages("jpg", **options)({"jpg": data})["jpg"].numpy()


def bomb(side: int) -> bytes:
    """A PNG of 60 bytes that says it is that high and wide."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")),
              (b"IEND", b"")]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks)


VARIETY = [
    encoded(picture(37, 53)), encoded(picture(37, 53, 1), quality=30, subsampling=0), encoded(picture(37, 53, 2), progressive=True),
    encoded(picture(37, 53, 3).convert("L")), encoded(picture(37, 53, 4).convert("CMYK")), encoded(picture(37, 53, 5), "PNG"),
    encoded(picture(37, 53, 6).convert("P"), "PNG"), encoded(picture(37, 53, 7).convert("RGBA"), "PNG"), encoded(picture(37, 53, 8).convert("1"), "PNG"),
    encoded(picture(37, 53, 9), "WEBP"), encoded(picture(37, 53, 10), "GIF"), encoded(picture(37, 53, 11), "BMP"), encoded(picture(37, 53, 12), "TIFF"),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("has_simplejpeg", [True, False])
def test_pixels_are_pillows_of_every_format(monkeypatch, mode, has_simplejpeg):
    """One batch of many kinds of files is what Pillow makes of each, with simplejpeg or without, on one thread or two.
    """
    if not has_simplejpeg:
        monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    monkeypatch.setattr(decoding, "THREAD_NBYTES", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    wanted = np.stack([pixels(data, mode) for data in VARIETY])
    for num_threads in (1, 3):
        got = DecodeImages("jpg", mode=mode, num_threads=num_threads, to="x")({"jpg": VARIETY, "y": 1})
        assert got["x"].dtype == torch.uint8 and got["jpg"] is VARIETY and got["y"] == 1
        assert np.array_equal(got["x"].numpy(), wanted)


@pytest.mark.parametrize("has_simplejpeg", [True, False])
def test_resizing_is_pillows_and_near_it_where_a_jpeg_is_made_smaller_first(monkeypatch, has_simplejpeg):
    """Below 4 times the size, and of other formats, it is Pillow's resize to the last bit; above, within 4 of 255 of
    it.
    """
    if not has_simplejpeg:
        monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    files = [encoded(picture(90, 130), quality=95), encoded(picture(200, 60), quality=95),
             encoded(picture(401, 333), "PNG"), encoded(picture(20, 30), quality=95)]  # fmt: skip
    wanted = [np.asarray(Image.open(io.BytesIO(data)).resize((32, 24), Image.Resampling.BILINEAR)) for data in files]
    got = decoded(files, size=(24, 32))
    assert got.shape == (4, 24, 32, 3) and all(np.array_equal(one, other) for one, other in zip(got, wanted))
    for factor in (4, 9, 17):
        large = encoded(picture(24 * factor + 5, 32 * factor + 3, factor), quality=95)
        whole = np.asarray(Image.open(io.BytesIO(large)).resize((32, 24), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(decoded([large], size=(24, 32))[0] - whole).max() <= 4
        smaller = Image.open(io.BytesIO(large))
        smaller.draft("RGB", (64, 48))
        assert smaller.width < 32 * factor  # it was made smaller, and the result is of that
        reduction = {4: 2, 9: 4, 17: 8}[factor]
        box = (0, 0, (32 * factor + 3) / reduction, (24 * factor + 5) / reduction)
        assert np.array_equal(decoded([large], size=(24, 32))[0],
                              np.asarray(smaller.resize((32, 24), Image.Resampling.BILINEAR, box)))  # fmt: skip


def test_a_shorter_side_keeps_proportions_and_feeds_a_crop():
    """size=24 makes sizes as torchvision's Resize(24) does, and Images(crop=) makes one batch of them."""
    shapes = [(90, 130), (200, 60), (24, 24), (100, 33)]
    columns = {"jpg": [encoded(picture(*shape)) for shape in shapes]}
    columns = DecodeImages("jpg", size=24)(columns)
    assert [one.shape for one in columns["jpg"]] == [(24, 34, 3), (80, 24, 3), (24, 24, 3), (72, 24, 3)]
    made = Images("jpg", crop=(24, 24))(columns, ss.Place(0, 0, np.arange(4)))["jpg"]
    assert made.shape == (4, 3, 24, 24)


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    data = encoded(picture(20, 30), exif=exif)
    assert decoded([data]).shape == (1, 20, 30, 3)


BAD = {
    "empty": b"", "text": b"not an image", "cut": VARIETY[0][:700], "header only": VARIETY[0][:4], "bomb": bomb(9000), "large bomb": bomb(100_000), "none": None, "cut png": VARIETY[5][:500],
    "program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 37 53\n%%EndComments\nshowpage\n", "16 bits": encoded(Image.fromarray(np.zeros((37, 53), np.uint16)), "PNG"),
}  # fmt: skip


@pytest.mark.parametrize("has_simplejpeg", [True, False])
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_an_error_of_its_row(monkeypatch, kind, has_simplejpeg):
    """Hostile and damaged bytes are a SampleError with their row, also in the first one, and all bad rows are told at
    once.
    """
    if not has_simplejpeg:
        monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    with pytest.raises(ss.RowErrors, match="cannot be decoded") as caught:
        decoded([BAD[kind], VARIETY[0], BAD[kind], VARIETY[5]])
    assert list(caught.value.errors) == [0, 2] and (caught.value.key, caught.value.field) == (0, "jpg")
    assert list(pickle.loads(pickle.dumps(caught.value)).errors) == [0, 2]
    if kind == "bomb":
        assert "it has 9000 x 9000 pixels, more than max_pixels=67108864. [key 0" in str(caught.value)


def test_no_image_becomes_larger_than_max_pixels():
    """The limit holds for what is stored and for what a long narrow image would become."""
    assert decoded([VARIETY[0]], max_pixels=37 * 53).shape == (1, 37, 53, 3)
    for data, options in ((VARIETY[0], {"max_pixels": 37 * 53 - 1}),
                          (encoded(picture(2, 400)), {"size": 100, "max_pixels": 10_000})):  # fmt: skip
        with pytest.raises(ss.RowErrors, match="more than max_pixels"):
            decoded([data], **options)


def test_images_of_several_sizes_say_what_to_do():
    with pytest.raises(ss.ConfigError, match=r"images of 37 x 53 and 20 x 30 pixels are no one batch: give size="):
        decoded([VARIETY[0], encoded(picture(20, 30))])


@pytest.mark.parametrize("options", [
    {"size": 0}, {"size": True}, {"size": (1, 2, 3)}, {"size": (1,)}, {"size": (0, 5)}, {"size": "large"}, {"size": 2.5}, {"size": 2**15 + 1}, {"mode": "CMYK"},
    {"max_pixels": 0}, {"max_pixels": 1e6}, {"num_threads": 0}, {"num_threads": True},
])  # fmt: skip
def test_mistakes_are_named_at_once(options):
    with pytest.raises(ss.ConfigError, match=f"{next(iter(options))}="):
        DecodeImages("jpg", **options)


def test_a_missing_decoder_says_what_to_install(monkeypatch):
    monkeypatch.setattr(images, "pillow", lambda: None)
    monkeypatch.setattr(decoding, "pillow", lambda: None)
    with pytest.raises(ss.ConfigError, match=r"resizing images needs Pillow: pip install"):
        DecodeImages("jpg", size=5)
    with pytest.raises(ss.RowErrors, match="Pillow is not installed"):
        decoded([VARIETY[5]])
    monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    with pytest.raises(ss.ConfigError, match=r"decoding images needs Pillow or simplejpeg"):
        DecodeImages("jpg")


def test_no_rows_and_columns_of_other_kinds():
    assert decoded([], size=(4, 5)).shape == (0, 4, 5, 3) and decoded([], mode="L").shape == (0, 0, 0, 1)
    with pytest.raises(ss.ConfigError, match="no column 'jpg'"):
        DecodeImages("jpg")({"png": []})
    with pytest.raises(ss.ConfigError, match="not a list of bytes"):
        DecodeImages("jpg")({"jpg": torch.zeros(3)})


@pytest.mark.parametrize("sides, num, has_threads", [((37, 53), 200, False), ((120, 160), 60, True), ((120, 160), 2, False)])
def test_threads_share_what_is_worth_it(monkeypatch, sides, num, has_threads):
    """Neither many images so small that threads would wait for each other, nor a few."""
    submitted, pool = [], decoding._pool()
    monkeypatch.setattr(decoding, "_pool", lambda: submitted.append(None) or pool)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    data = [encoded(picture(*sides, seed), quality=75) for seed in range(3)] * (num // 2)
    assert decoded(data, num_threads=2).shape == (len(data), *sides, 3)
    assert len(submitted) == has_threads


def test_threads_are_made_anew_in_a_forked_child(monkeypatch):
    """A child of a process whose threads have decoded has none of them, and decodes."""
    monkeypatch.setattr(decoding, "THREAD_NBYTES", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    transform = DecodeImages("jpg", num_threads=2)
    wanted = transform({"jpg": VARIETY * 4})["jpg"].numpy()
    child = os.fork()
    if child == 0:  # compared by numpy: torch's own threads don't survive a fork
        os._exit(0 if np.array_equal(pickle.loads(pickle.dumps(transform))({"jpg": VARIETY * 4})["jpg"].numpy(), wanted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- in a stream -------------------------------------------------------------------------------------

BAD_ROWS = (0, 7, 8, 59)


@pytest.fixture(scope="module")
def urls(tmp_path_factory) -> dict[str, str]:
    """Sixty images in blocks and as files, four of them cut."""
    folder = tmp_path_factory.mktemp("images")
    found = {"blocks": str(folder / "blocks"), "files": str(folder / "files")}
    data = [VARIETY[number % 3][: 600 if number in BAD_ROWS else None] for number in range(60)]
    with ss.ShardWriter(found["blocks"], schema=ss.Schema(jpg=ss.Bytes(), y=ss.Dense("int64"))) as writer:
        for number, one in enumerate(data):
            writer.write({"jpg": one, "y": number})
    with ss.ShardWriter(found["files"]) as writer:
        for number, one in enumerate(data):
            writer.write({"__key__": f"{number:03}", "jpg": one, "cls": number})
    return found


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("layout, label", [("blocks", "y"), ("files", "cls")])
def test_bad_images_are_skipped_and_counted(urls, layout, label, num_workers):
    """With on_error="skip" the other rows of a batch come as ever, and the report counts and names those that don't."""
    stream = ss.ShardStream(urls[layout], batch_size=8, on_error="skip", read=ss.ReadPolicy(max_skipped=5),
                            transform=DecodeImages("jpg"), drop_last="pad")  # fmt: skip
    seen = []
    for batch in ss.StreamLoader(stream, num_workers=num_workers, multiprocessing_context="fork"):
        own = ~batch["__pad__"].numpy()
        assert all(np.array_equal(image, pixels(VARIETY[number % 3])) for image, number in zip(batch["jpg"].numpy(), batch[label].tolist()))
        seen += batch[label].numpy()[own].tolist()
    assert seen == [number for number in range(60) if number not in BAD_ROWS]
    # row 0 twice: the last batch is filled up from the epoch's start
    assert (stream.report.num_skipped, stream.report.num_dropped) == (5, 0)
    assert any("key 59" in error or "key 059" in error for error in stream.report.errors)


def test_a_bad_image_is_named_and_a_budget_ends(urls):
    """With on_error="raise", and beyond max_skipped, the error names shard, block and sample."""
    for layout, key in (("blocks", 0), ("files", "000")):
        for options in ({}, {"on_error": "skip", "read": ss.ReadPolicy(max_skipped=1)}):
            with pytest.raises(ss.TransformError, match="cannot be decoded") as caught:
                list(ss.ShardStream(urls[layout], batch_size=16, transform=DecodeImages("jpg"), **options))
            error = caught.value
            assert (error.key, error.block, error.field) == (key, 0, "jpg") and error.shard.endswith(".tar")


def test_a_batch_of_bad_images_alone_has_no_rows(urls):
    """Where nothing of a batch is left, it has its columns and no rows; single samples go on with the next that is an
    image.
    """
    options = {"on_error": "skip", "read": ss.ReadPolicy(max_skipped=4), "transform": DecodeImages("jpg")}
    first = next(iter(ss.ShardStream(urls["blocks"], batch_size=1, **options)))
    assert first["jpg"].shape == (0, 37, 53, 3) and first["y"].shape == (0,)
    assert [int(sample["y"]) for sample in ss.ShardStream(urls["blocks"], **options)] == [number for number in range(60) if number not in BAD_ROWS]


def refuse_odd(sample: dict) -> dict:
    if int(sample["y"]) % 2:
        raise ss.SampleError("it is odd.")
    return sample


def test_a_row_wise_transform_skips_by_sample_errors_only(urls):
    """A SampleError of a row-wise transform skips the row; any other error is one, whatever on_error says."""
    options = {"batch_size": 10, "on_error": "skip", "read": ss.ReadPolicy(max_skipped=30)}
    stream = ss.ShardStream(urls["blocks"], transform=refuse_odd, **options)
    assert [y for batch in stream for y in batch["y"].tolist()] == list(range(0, 60, 2))
    assert (stream.report.num_skipped, stream.report.num_dropped) == (30, 0) and "it is odd. [shard" in stream.report.errors[0]
    with pytest.raises(ss.TransformError, match="KeyError"):
        list(ss.ShardStream(urls["blocks"], transform=lambda sample: sample["nope"], **options))
    with pytest.raises(ss.TransformError, match="SampleError: it is odd") as caught:
        list(ss.ShardStream(urls["blocks"], batch_size=10, transform=refuse_odd))
    assert caught.value.key == 1


def test_map_style_datasets_name_the_row(urls):
    ds = ss.ShardDataset(ss.Dataset(urls["blocks"]).shards[0], transform=DecodeImages("jpg"))
    assert ds[[1, 5]]["jpg"].shape == (2, 37, 53, 3)
    with pytest.raises(ss.TransformError, match="cannot be decoded") as caught:
        ds[[3, 59, 8]]
    assert caught.value.key == 59
