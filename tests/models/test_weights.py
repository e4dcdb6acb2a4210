from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.models import weights

words = st.text(min_size=1, max_size=8)
TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3),
    "a": torch.arange(5, dtype=torch.int8),
    "c": torch.tensor([1, 2], dtype=torch.int64),
}


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(words, words, max_size=6), st.randoms())
def test_equal_tensors_and_metadata_make_equal_bytes_in_whatever_order(metadata, random):
    data = weights.pack(TENSORS, metadata)
    tensors, shuffled = list(TENSORS.items()), list(metadata.items())
    random.shuffle(tensors)
    random.shuffle(shuffled)
    assert weights.pack(dict(tensors), dict(shuffled)) == data


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(words, words, max_size=6))
def test_what_was_packed_comes_back(metadata):
    tensors, found = weights.parse(weights.pack(TENSORS, metadata))
    assert found == metadata
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], v) and tensors[k].dtype == v.dtype for k, v in TENSORS.items())


def test_the_header_is_sorted_and_tensors_begin_at_a_multiple_of_eight():
    data = weights.pack(TENSORS, {"z": "1", "a": "ü"})
    (length,) = struct.unpack_from("<Q", data)
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert list(header) == sorted(header)
    assert list(header["__metadata__"]) == ["a", "z"]


def test_a_file_without_a_header_is_no_model():
    with pytest.raises(weights.BadWeights):
        weights.parse(b"no weights")


@pytest.mark.parametrize(("name", "kind"), [("exact-s", "photo"), ("photo-s2", "exact")])
def test_a_model_of_the_other_kind_is_wrong_usage(name: str, kind: str) -> None:
    data = weights.read(name)
    with pytest.raises(weights.WrongModel, match=name):
        weights.check_kind(data, kind, name=name)
    weights.check_kind(data, name.partition("-")[0], name=name)
