"""What a user sees in the MLflow UI after the pipeline has run."""

from playwright.sync_api import Page, expect

from tests.support.pipeline import Store

expect.set_options(timeout=60_000)


def test_the_runs_stand_below_their_parent(page: Page, ui: str, finished: Store, tmp_path):
    page.goto(f"{ui}/#/experiments/{finished.run_named('main').info.experiment_id}/runs")
    parent = page.get_by_role("row").filter(has=page.get_by_role("link", name="main", exact=True))
    expect(parent).to_be_visible()
    expect(page.get_by_role("link", name="prepare my.csv", exact=True)).to_have_count(0)
    parent.get_by_role("button").click()  # unfolds it
    for name in ("prepare my.csv", "train bias", "train random_forest", "promote: version 1"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    for number in (1, 2):
        expect(page.get_by_role("link", name=f"evaluate version {number}", exact=True)).to_be_visible()
    page.screenshot(path=tmp_path / "runs.png")


def test_a_training_shows_its_parameters_and_metrics(page: Page, ui: str, finished: Store, tmp_path):
    run = finished.run_named("train random_forest")
    page.goto(f"{ui}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    for text in ("n_estimators", "validation_auc", "my.csv"):
        expect(page.get_by_text(text).first).to_be_visible()
    page.screenshot(path=tmp_path / "run.png")


def test_the_plots_of_an_evaluation_can_be_looked_at(page: Page, ui: str, finished: Store, tmp_path):
    run = finished.run_named("evaluate version 1")
    page.goto(f"{ui}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/plots/roc.png")
    for name in ("roc.png", "calibration.png", "confusion_matrix.png"):
        expect(page.get_by_text(name).first).to_be_visible()
    picture = page.locator("img[src^=blob], .ant-image-img, img.image-preview, .image-outer-container img").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 300
    page.screenshot(path=tmp_path / "plot.png")


def test_the_registered_model_shows_its_versions_and_the_champion(page: Page, ui: str, finished: Store, tmp_path):
    champion = finished.client.get_model_version_by_alias("recsys", "champion").version
    page.goto(f"{ui}/#/models/recsys")
    for number in (1, 2):
        expect(page.get_by_role("link", name=f"Version {number}", exact=True)).to_be_visible()
    expect(page.get_by_text("champion", exact=False).first).to_be_visible()
    page.screenshot(path=tmp_path / "model.png")
    page.goto(f"{ui}/#/models/recsys/versions/{champion}")
    expect(page.get_by_text("champion", exact=False).first).to_be_visible()
    expect(page.get_by_text("trained on", exact=False).first).to_be_visible()
    page.screenshot(path=tmp_path / "version.png")
