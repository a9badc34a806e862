"""Byte-level BPE tokenizers with tiktoken's and Hugging Face's exact ids, and their training.

>>> tok = ss.tokenizers.load("cl100k_base.tiktoken")
>>> ids, offsets = tok.encode_batch(["hello world", ""])
>>> ids.tolist(), offsets.tolist()
([15339, 1917], [0, 2, 2])
"""

from shardstream.tokenizers.loading import load
from shardstream.tokenizers.tokenizer import Tokenizer
from shardstream.tokenizers.training import train
from shardstream.tokenizers.vocab import Vocabulary

__all__ = ["Tokenizer", "Vocabulary", "load", "train"]
