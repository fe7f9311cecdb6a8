import json
import logging

import pytest

from recsys.serving.http import Reply, Request
from recsys.serving.request_log import RequestLog

SCOPE = {
    "method": "GET",
    "path": "/api/recommend/alice",
    "query_string": b"n=5",
    "headers": [(b"x-api-key", b"s3cret")],
}


@pytest.mark.parametrize("kind", ["none", "requests", "ids"])
def test_ids_are_written_only_where_asked_for_and_keys_never(kind, caplog):
    caplog.set_level(logging.INFO, "recsys.requests")
    log = RequestLog(kind)
    if log.is_on:
        log.write(Request(SCOPE, "r1"), "recommend", Reply(b"[]", version="3", policy="personal"), 0.00123)
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert len(lines) == (kind != "none")
    assert "s3cret" not in caplog.text
    assert ("alice" in caplog.text) == (kind == "ids")
    for line in lines:
        said = {"request": "r1", "method": "GET", "route": "recommend", "status": 200, "ms": 1.23}
        assert line.items() >= {**said, "version": "3", "policy": "personal"}.items()
