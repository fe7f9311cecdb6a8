"""The notebook of the documentation, from its first cell to its last, as somebody runs it who cloned the project."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.pipeline import PROJECT

NOTEBOOKS = sorted((PROJECT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    assert [cell for cell in cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)] == []


@pytest.mark.e2e
def test_a_csv_becomes_lists_in_the_champion_s_name(tmp_path: Path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", f"{PROJECT}:{PROJECT / 'src'}")  # as an installation in place does
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(PROJECT / "docs" / "notebooks" / "orders.ipynb", as_version=4)
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": home}}).execute()
    shown = [
        output.get("text") or output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type in ("stream", "execute_result")
    ]
    assert any("goes to Production" in text for text in shown)
    (lists,) = [text for text in shown if "policy" in text]
    assert "flour" in lists
    assert "popular" in lists  # somebody new
    assert (home / "report.html").stat().st_size > 10_000
    assert (home / "mlflow.db").exists()
