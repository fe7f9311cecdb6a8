"""The ground of training in several processes, by torch.distributed; it knows no family.

process_group   the processes that compute together, and what they can do together
checkpoints     the state of a training on disk, whole or not at all
context         what a family's `fit` is given in such a process
"""
