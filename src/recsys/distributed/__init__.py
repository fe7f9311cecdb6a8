"""The base of torch.distributed for training in several processes; it knows no family.

    process_group  the processes that compute together, and their collective operations
    context        what a family's `fit` receives in each of these processes
    checkpoints    the state of a training on disk

The engines are in the families (recsys.models.*.distributed, data_parallel, row_sharded), and what starts and watches
the processes is in recsys.training.launch.
"""
