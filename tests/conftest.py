from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def write(tmp_path: Path):
    def write(content: str | bytes, name: str = "ratings.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def write_parquet(tmp_path: Path):
    def write(name: str = "ratings.parquet", **columns: object) -> Path:
        defaults = {
            "user_id": ["u1", "u2", "u1"],
            "item_id": ["i1", "i1", "i2"],
            "rating": [5.0, 3.5, 1.0],
            "timestamp": [10, 20, 30],
        }
        table = pa.table({key: value for key, value in (defaults | columns).items() if value is not None})
        pq.write_table(table, tmp_path / name)
        return tmp_path / name

    return write
