"""Training in several processes, by PyTorch's own engines: the only room of torch.distributed.

group        the processes that compute together, and what they can do together
team         what a family's `fit` is handed in such a process
checkpoints  the state of a training on disk, whole or not at all
    feed         which rows a process sees when
    batches      what the two engines below are given
    replicas     matrix factorization with whole tables in every process
    shards       matrix factorization with tables split by rows
    descent      the training that drives either
feed         which rows a process sees when
descent      matrix factorization over a team, with whole tables or with tables split by rows
"""
