"""Search for a family's settings, by any number of processes on any number of machines over one database.

    database_url.py      the database's URL: checked, and shown without its password
    database.py          the database itself: reached, and made where it is not there
    database_errors.py   what may pass and is tried again, and what a person is told of the rest
    search_space.py      what a family's `suggest` searches, and the ranges a user puts in its place
    storage.py           Optuna's storage on that database, with retries; all of Optuna's private names
    coordination.py      what Optuna does not keep: which search a study is in, who is at work, who may finish
    study.py             what a study is about, and what may share it
    trials.py            what trials say: the best, how they ended, what they cost
    objective.py         one configuration in, its value out, with the curve on the way
    search.py            a worker's part of a search: claim a trial, run it, tell it; the outcome at the end
    pruning.py           a running trial's values, to the pruner and to the study
    heartbeat.py         a worker's heartbeat
    plots.py             the study in plots

docs/tuning.md says how it is used, docs/decisions/0010-counting-trials.md why it counts as it does.
"""
