"""The random streams."""

import hashlib
from itertools import product

import numpy as np
import torch

from backend.training.noise import stream

CPU = torch.device("cpu")
ANY = 2**20  # torch draws below this as 32 bits modulo it


def test_a_stream_is_the_mersenne_twister_whose_state_shake_256_fills():
    words = np.frombuffer(hashlib.shake_256(b"7/certify/12").digest(4 * 624), "<u4")
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    drawn = torch.empty(2_000, dtype=torch.int32).random_(0, ANY, generator=stream(7, "certify", 12, CPU))
    assert drawn.tolist() == [int(value) % ANY for value in twister.random_raw(2_000)]


def test_equal_names_equal_streams_and_other_names_other_ones():
    def first(seed, purpose, index):
        return torch.randn(4, generator=stream(seed, purpose, index, CPU)).tolist()

    names = list(product((0, 1, 2**32, 2**63 - 1), ("select", "certify"), (0, 1, 2**32)))
    assert [first(*name) for name in names] == [first(*name) for name in names]
    assert len({tuple(first(*name)) for name in names}) == len(names)
