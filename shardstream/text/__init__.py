"""Text to sparse features: hashed word and character n-grams, hashed key=value features."""

from shardstream.text.categories import CategoryHasher
from shardstream.text.hashing import FeatureHasher

__all__ = ["CategoryHasher", "FeatureHasher"]
