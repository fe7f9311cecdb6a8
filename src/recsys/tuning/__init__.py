"""Search for a family's settings, by any number of processes on any number of machines over one database.

    urls.py         the database's URL: checked, and shown without its password
    spaces.py       what a family's `suggest` searches, and the ranges a user puts in its place
    storage.py      Optuna's storage on that database, opened with clear errors, patient with lost connections
    ledger.py       what Optuna does not keep: which search a study is in, who is at work, who may finish
    studies.py      what a study is of, and what may share it
    trials.py       what trials say: the best, how they ended, what they cost
    objective.py    one configuration in, its value out, with the curve on the way
    search.py       a worker's part of a search: claim a trial, run it, tell it; the outcome at the end
    reports.py      a running trial's steps, to the pruner and to the study
    pulse.py        a worker's signs of life
    figures.py      the study in pictures

docs/tuning.md says how it is used, docs/decisions/0010-counting-trials.md why it counts as it does.
"""
