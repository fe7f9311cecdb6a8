"""The agent on a machine that seems to have a GPU, so that it starts the ranks as programs."""

import os
import sys
import traceback

import torch

from recsys.training.launch import agent

torch.cuda.is_available = lambda: True
try:
    agent.main(*sys.argv[1:])
except BaseException:
    traceback.print_exc()
    os._exit(1)
os._exit(0)
