"""Unicode normal form C as Hugging Face's tokenizers compute it: by the data of Unicode 9.0.

Python's ``unicodedata`` is newer, and differs where characters came later that combine,
decompose or compose. Unicode 9.0 has them unassigned: inert, and so a border that no
reordering or composition crosses. Text between them is the same in both. What is in form C
by newer data is so by older data, too.
"""

from __future__ import annotations

import re
import unicodedata

# Code points with a combining class or a part in a canonical composition, assigned after Unicode 9.0:
# those of 10.0 to 16.0 and of what regex 2026.11 knows beyond. tests/test_tokenizers_normalize.py asks tokenizers.
_INERT = re.compile(
    "([\u05c8\u05c9\u07fd\u0897-\u089f\u08ca-\u08d3\u09fe\u0c3c\u0d3b\u0d3c\u0eba\u1715\u1abf-\u1af0\u1df6-\u1dfa"
    "\ua82c\U000105c9\U000105d2\U000105da\U000105e4\U00010d24-\U00010d27\U00010d69-\U00010d6d\U00010eab\U00010eac"
    "\U00010ecb-\U00010ecf\U00010ef0-\U00010eff\U00010f46-\U00010f50\U00010f82-\U00010f85\U00011070\U0001133b"
    "\U00011380-\U000113d3\U0001145e\U00011839\U0001183a\U00011930-\U0001193e\U00011943\U000119e0\U00011a34\U00011a47"
    "\U00011a99\U00011d42-\U00011d45\U00011d97\U00011f41\U00011f42\U00016100-\U0001612f\U00016d40-\U00016d6a"
    "\U00016ff0\U00016ff1\U0001d127\U0001d128\U0001d250-\U0001d281\U0001e08f\U0001e130-\U0001e136\U0001e2ae"
    "\U0001e2ec-\U0001e2ef\U0001e4ec-\U0001e4ef\U0001e5ee\U0001e5ef\U0001e6e3-\U0001e6f5]+)"
)


def nfc(text: str) -> str:
    """Return ``text`` in normal form C of Unicode 9.0; text that is in it already costs a scan."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    parts = _INERT.split(text)
    parts[::2] = (unicodedata.normalize("NFC", part) for part in parts[::2])
    return "".join(parts)
