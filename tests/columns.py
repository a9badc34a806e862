"""Comparison of columns and batches down to kind and dtype."""

import numpy as np
import torch

import shardstream as ss


def assert_same(left, right) -> None:
    """Fail unless two batches, columns or rows are equal in kind, dtype, shape and content."""
    assert type(left) is type(right), (left, right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for name in left:
            assert_same(left[name], right[name])
    elif isinstance(left, (ss.Jagged, list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right):
            assert_same(one, other)
    elif isinstance(left, torch.Tensor):
        assert (left.dtype, left.layout, left.shape) == (right.dtype, right.layout, right.shape)
        dense = left.to_dense(), right.to_dense()
        assert torch.equal(torch.isnan(dense[0]), torch.isnan(dense[1])) and torch.equal(*map(torch.nan_to_num, dense))
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype and left.shape == right.shape
        assert_same(left.tolist(), right.tolist()) if left.dtype.hasobject else np.testing.assert_array_equal(left, right)
    else:
        assert left == right or left != left
