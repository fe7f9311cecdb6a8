"""Search for a family's settings, by any number of processes on any number of machines over one database.

    urls.py         the database's URL: checked, and shown without its password
    spaces.py       what a family's `suggest` searches, and the ranges a user puts in its place
    storage.py      Optuna's storage on that database, opened with clear errors, patient with lost connections
    ledger.py       what Optuna does not keep: which search a study is in, who is at work, who may finish
    objective.py    one configuration in, its value out, with the curve on the way
    search.py       a worker's part of a search: claim a trial, run it, tell it; the outcome at the end
    figures.py      the study in pictures

docs/tuning.md says how it is used, docs/decisions/0008-counting-trials.md why it counts as it does.
"""
