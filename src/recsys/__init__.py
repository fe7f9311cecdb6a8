"""The library: ratings in, recommenders and their measures out. Knows no command line and no MLflow run."""
