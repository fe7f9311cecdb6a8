"""Training in several processes, by PyTorch's own engines: the only room of torch.distributed.

In the process of the step:

    processes    the parameters, and what they refuse
    places       where the state of a training is kept
    launcher     starts PyTorch's launcher, hears the ranks, names what goes wrong
    meeting      where several machines meet

In both:

    job          the folder that says what to compute, and takes the result
    signs        what a rank leaves behind while it lives and when it dies

In each of the ranks:

    rank         the program
    group        the processes that compute together, and what they can do together
    team         what a family's `fit` is handed in such a process
    checkpoints  the state of a training on disk, whole or not at all
    feed         which rows a process sees when
    batches      what the two engines below are given
    replicas     matrix factorization with whole tables in every process
    shards       matrix factorization with tables split by rows
    descent      the training that drives either
"""
