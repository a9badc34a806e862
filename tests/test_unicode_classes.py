"""The classes of characters that split patterns ask about are those of the tokenizers we equal."""

import importlib.util
from pathlib import Path

import pytest
import tiktoken

CSRC = Path(__file__).resolve().parents[1] / "csrc"
SURROGATES = range(0xD800, 0xE000)


def generator():
    spec = importlib.util.spec_from_file_location("gen_unicode_classes", CSRC / "gen/gen_unicode_classes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def classes() -> bytearray:
    return generator().classes()


def test_committed_tables_are_fresh():
    """The generator, run here, writes the committed file byte for byte."""
    assert generator().generate() == (CSRC / "lib/unicode_classes.c").read_text()


@pytest.mark.parametrize("number", range(len(generator().CLASSES)), ids=generator().CLASSES)
def test_every_code_point_has_the_class_that_tiktoken_gives_it(classes, number):
    """tiktoken's own engine matches exactly the code points of each class; what it does not match, it drops."""
    text = "".join(chr(c) for c in range(0x110000) if c not in SURROGATES)
    encoding = tiktoken.Encoding("classes", pat_str=generator().CLASSES[number], special_tokens={},
                                 mergeable_ranks={bytes([i]): i for i in range(256)})  # fmt: skip
    matched = encoding.decode(encoding.encode_ordinary(text))
    assert matched == "".join(char for char in text if classes[ord(char)] == number + 1)
