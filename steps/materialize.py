"""Materialize: the features of a dataset as views of a feature store, with their history, and online for serving."""

from steps.support import datasets, feature_store
from steps.support.entrypoint import run_step
from steps.support.parameters import MaterializeParameters
from steps.support.runs import open_run
from steps.support.stages import stage


def materialize(parameters: MaterializeParameters) -> None:
    """Write the features, read every one back, and record that in a run.

    Raises:
        InputError: if Feast is not installed, the dataset has no timestamps, or a value did not arrive.
    """
    store = feature_store.open_store(parameters)
    from recsys.feature_store import online
    from registry import versions

    with open_run("materialize") as run:
        run.log_parameters(parameters)
        digest = parameters.dataset
        if digest == "newest":
            version = versions.find_or_raise_version(parameters.model_name, None)
            digest = version.tags.get("data_version", "")
        dataset = datasets.load(digest)
        run.set_tags({"data_version": dataset.digest})
        with stage("materialize"):
            compared = online.materialize(dataset, store)
        run.log_metrics(compared)
        said = (
            f"features of dataset {dataset.digest[:12]} in {store.folder}: {compared['users']:,.0f} users and "
            f"{compared['items']:,.0f} items, each value read back as it was written"
        )
        run.describe(said, f"materialize {dataset.digest[:12]}")
    print(said)


if __name__ == "__main__":
    run_step("materialize", materialize)
