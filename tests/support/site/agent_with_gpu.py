"""The agent on a machine that seems to have a GPU, so that it starts the ranks as programs."""

import torch

from recsys.training.launch import agent

torch.cuda.is_available = lambda: True
agent.run()
