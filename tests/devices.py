"""The devices that this machine has: what computes is tested on each."""

import pytest
import torch

DEVICES = [torch.device("cpu")] + [torch.device("cuda:0")] * torch.cuda.is_available()

on_each_device = pytest.mark.parametrize("device", DEVICES, ids=str)
