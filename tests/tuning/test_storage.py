"""Optuna's own storage suite over ours."""

import pytest
from optuna.testing.pytest_storages import StorageTestCase

from recsys.tuning.storage import open_storage


class TestStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path):
        return open_storage(f"sqlite:///{tmp_path}/studies.db", heartbeat=1, grace=6)
