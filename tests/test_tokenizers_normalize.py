"""Normal form C by Unicode 9.0, whatever this Python's data."""

import random

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from shardstream.tokenizers.normalize import nfc
from tests import texts

REFERENCE = normalizers.NFC()
# Marks and starters old and new, precomposed letters, Hangul in parts.
COMBINING = (
    "ae\u1100\u1161\u11a8\u0301\u0323\u0327\u0f71\u0f72\u1b05\u1b35\u05b0\u3099\u304b\u09c7\u09be\u00e9\u1ea5\u212b\u0958"
    "\u0898\u07fd\u1abf\u1dfa\u09fe\u0d3c\u0eba\ua82c\U000105d2\U000105c9\U00011935\U00011930\U00011938\U000113c2\U00016121"
    "\U0001611e\U00016d63\U00016d67\U0001e4ec\U00010f46\U0001e130"
)


def test_every_character_is_normalized_as_in_tokenizers():
    """Each character alone, and between marks that reorder and compose."""
    for context in ("{} ", "e{}\u0316\u0301 "):
        for text in texts.code_points(context, every=64):
            assert nfc(text) == REFERENCE.normalize_str(text)


@given(st.text(st.sampled_from(COMBINING) | st.characters(codec="utf-8"), max_size=12))
def test_any_text_is_normalized_as_in_tokenizers(text):
    """Sequences of marks, old and new, come out as tokenizers has them."""
    assert nfc(text) == REFERENCE.normalize_str(text)


def test_seeded_sequences_of_marks():
    """A larger sample than hypothesis takes, of the characters that matter."""
    rng = random.Random(14)
    for _ in range(20000):
        text = "".join(rng.choices(COMBINING, k=rng.randrange(1, 7)))
        assert nfc(text) == REFERENCE.normalize_str(text), ascii(text)
