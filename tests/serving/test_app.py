import gorse
import pandas as pd
import pytest
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from mlflow.webhooks.constants import (
    WEBHOOK_DELIVERY_ID_HEADER,
    WEBHOOK_SIGNATURE_HEADER,
    WEBHOOK_TIMESTAMP_HEADER,
)
from mlflow.webhooks.delivery import _generate_hmac_signature

from recsys.serving.service import CALL

pytestmark = pytest.mark.process


def numbers(items):
    return {int(item[1:]) % 2 for item in items}


def test_a_list_is_of_what_the_user_has_not_taken_and_names_its_policy(server):
    answer = server.get("api/recommend/u2?n=4")
    assert len(answer.json()) == 4
    assert numbers(answer.json()) == {0}
    seen = {row["Id"] for row in server.get("api/user/u2/history").json()}
    assert not seen & set(answer.json())
    assert answer.headers["x-recsys-policy"] == "personal"
    assert answer.headers["x-recsys-version"] == "1"
    assert answer.headers["x-request-id"]


def test_a_list_explains_itself(server):
    found = server.get("api/recommend/u2?n=2&explain=true").json()
    seen = {row["Id"] for row in server.get("api/user/u2/history").json()}
    for row in found:
        assert {reason["Id"] for reason in row["Reasons"]} <= seen
        assert 0 < sum(reason["Share"] for reason in row["Reasons"]) <= 1.000001
        assert 0 <= row["LikeProbability"] <= 1


def test_items_have_their_titles_where_asked(server):
    def right(row):
        number = int(row["Id"][1:])
        return row.get("Title") == (f"Title {number} <ü>" if 1 <= number < 20 else None)

    for path in (
        "recommend/u2?",
        "recommend/u2?explain=true&",
        "item-to-item/x/i4?",
        "popular?n=24&",
        "user/u2/history?",
    ):
        rows = server.get(f"api/{path}titles=true").json()
        assert rows
        assert all(right(row) for row in rows), rows
        assert all(right(reason) for row in rows for reason in row.get("Reasons", ()))
    assert all("Title" not in row for row in server.get("api/popular").json())


def test_filters_do_not_shorten_a_list(server):
    first = server.get("api/recommend/u3?n=3").json()
    rest = server.get(f"api/recommend/u3?n=3&exclude={','.join(first)}").json()
    assert len(rest) == 3
    assert not set(rest) & set(first)
    assert set(server.get("api/recommend/u3?n=5&candidates=i1,i2,i3,nothing").json()) <= {"i1", "i2", "i3"}
    assert server.get("api/recommend/u3?n=2&offset=1").json() == first[1:]


def test_an_unknown_user_is_given_what_is_popular_and_then_what_their_feedback_leads_to(server):
    assert server.get("api/recommend/somebody").headers["x-recsys-policy"] == "popular"
    for item in ("i1", "i3", "i5"):
        event = {"FeedbackType": "rating", "UserId": "somebody", "ItemId": item, "Value": 5}
        assert server.post("api/feedback", event).json() == {"RowAffected": 1}
        for _ in range(10):  # whichever worker answers
            assert item not in server.get("api/recommend/somebody", headers={"Connection": "close"}).json()
    answer = server.get("api/recommend/somebody?n=5")
    assert numbers(answer.json()) == {1}
    assert answer.headers["x-recsys-policy"] == "history"
    assert [row["ItemId"] for row in server.get("api/user/somebody/feedback").json()] == ["i5", "i3", "i1"]


def test_gorse_s_client_works(server):
    client = gorse.Gorse(server.address, "", timeout=120)
    assert client.insert_feedback("read", "reader", "i4", "2026-01-01T00:00:00Z") == {"RowAffected": 1}
    assert client.insert_feedback("read", "reader", "i4", "2026-01-01T00:00:00Z") == {"RowAffected": 0}
    assert client.list_feedbacks("read", "reader")[0]["ItemId"] == "i4"
    found = client.get_recommend("reader", n=3)
    assert numbers(score.id for score in found) == {0}
    assert [score.score for score in found] == sorted((score.score for score in found), reverse=True)
    assert numbers(client.session_recommend([{"ItemId": "i3"}], n=3)) == {1}
    assert [row["Id"] for row in client.get_neighbors("i4", n=2)]


def test_mlflow_s_protocol_answers(server):
    rows = [["u2", "i2"], ["u2", "i3"], [7, "no such item"]]
    body = {"dataframe_split": {"columns": ["user_id", "item_id"], "data": rows}}
    found = server.post("invocations", body).json()["predictions"]
    assert found[0]["like_probability"] > 0.8 > 0.2 > found[1]["like_probability"]
    assert found[2]["rating"] == 3.0
    records = [{"user_id": user, "item_id": item} for user, item in rows]
    assert server.post("invocations", {"dataframe_records": records}).json()["predictions"] == found
    assert server.post("v1/models/recsys:predict", {"instances": records}).json()["predictions"] == found
    assert server.get("ping").status_code == 200
    assert server.get("version").text == "1\n"


def test_columns_may_have_the_names_of_the_ratings_learnt_from(server):
    rows, own = [["u2", "i2"], ["u3", "i5"]], [{"customer": "u2", "sku": "i2"}, {"customer": "u3", "sku": "i5"}]
    ours = {"dataframe_split": {"columns": ["user_id", "item_id"], "data": rows}}
    found = server.post("invocations", ours).json()["predictions"]
    for body in (
        {"dataframe_split": {"columns": ["customer", "sku"], "data": rows}},
        {"dataframe_split": {"columns": ["sku", "user_id", "customer"], "data": [[i, u, "else"] for u, i in rows]}},
        {"dataframe_records": own},
        {"inputs": {"customer": ["u2", "u3"], "sku": ["i2", "i5"]}},
    ):
        assert server.post("invocations", body).json() == {"predictions": found}, body
    assert server.post("v1/models/recsys:predict", {"instances": own}).json()["predictions"] == found
    (listed,) = server.post("invocations", {"inputs": {"customer": ["u2"]}}).json()["predictions"]
    assert listed["items"] == server.get("api/recommend/u2").json()
    refusal = server.post("invocations", {"inputs": {"client": ["u2"]}}).json()["detail"]
    assert "user_id and item_id, or 'customer' and 'sku' as in the ratings learnt from, are needed, got" in refusal


def test_a_model_of_another_name_is_not_found(server):
    for path in ("v1/models/other:predict", "v2/models/other/infer"):
        assert server.post(path, {"instances": []}).status_code == 404


def test_users_alone_are_answered_by_lists_as_the_mlflow_model_answers_them(server):
    asked = {"dataframe_split": {"columns": ["user_id"], "data": [["u2"], ["nobody"]]}, "params": {"n": 3}}
    known, unknown = server.post("invocations", asked).json()["predictions"]
    assert known["items"] == server.get("api/recommend/u2?n=3").json()
    assert list(known) == ["items", "scores", "like_probabilities", "policy", "note"]
    assert (known["policy"], unknown["policy"], known["note"]) == ("personal", "popular", "")
    assert len(known["scores"]) == len(known["like_probabilities"]) == 3
    records = {"dataframe_records": [{"user_id": "u2"}, {"user_id": "nobody"}], "params": {"n": 3}}
    assert server.post("invocations", records).json()["predictions"] == [known, unknown]
    assert (
        server.post("invocations", {"inputs": {"user_id": ["u2"]}}).json()["predictions"][0]["items"][:3]
        == (known["items"])
    )
    everything = {"inputs": {"user_id": ["u2"]}, "params": {"n": 100, "exclude_seen": True, "diversity": 0.5}}
    (all_left,) = server.post("invocations", everything).json()["predictions"]
    assert (
        all_left["note"] == f"only {len(all_left['items'])} are left of the items asked for that the user has not rated"
    )


@pytest.mark.parametrize(
    ("params", "users", "told"),
    [
        ({"n": 0}, 1, "params: n: a whole number from 1 to 1000 is needed, got 0"),
        ({"size": 3}, 1, "params: an object of n, exclude_seen, diversity is needed"),
        ({"exclude_seen": "no"}, 1, "params: exclude_seen: true or false is needed"),
        ({"diversity": 2}, 1, "params: diversity: a number from 0 to 1 is needed, got 2"),
        ({}, 101, "lists for at most 100 users are made, got 101; send fewer"),
    ],
)
def test_lists_that_are_not_made_say_why(server, params, users, told):
    answer = server.post("invocations", {"inputs": {"user_id": ["u2"] * users}, "params": params})
    assert answer.status_code == (413 if users > 100 else 400)
    assert told in answer.text


def test_the_open_inference_protocol_answers(server):
    inputs = [
        {"name": name, "shape": [2], "datatype": "BYTES", "data": data}
        for name, data in (("user_id", ["u2", "u2"]), ("item_id", ["i2", "i3"]))
    ]
    for path in ("v2/models/recsys/infer", "v2/models/recsys/versions/1/infer"):
        answer = server.post(path, {"id": "mine", "inputs": inputs}).json()
        assert (answer["id"], answer["model_version"]) == ("mine", "1")
        assert [(output["name"], output["shape"]) for output in answer["outputs"]] == [
            ("rating", [2]),
            ("like_probability", [2]),
        ]
    assert server.get("v2/models/recsys/ready").json()["ready"]
    assert server.get("v2/models/recsys").json()["versions"] == ["1"]
    assert server.get("v2/models/recsys/versions/9").status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("api/recommend/u1?n=0", 400, "parameter 'n'"),
        ("api/recommend/u1?n=1e9", 400, "parameter 'n'"),
        ("api/recommend/u1?explain=yes", 400, "parameter 'explain': true or false is needed, got 'yes'"),
        ("api/recommend/%ff", 400, "UTF-8"),
        ("api/recommend/" + "x" * 10_000, 400, "512 characters"),
        ("api/recommend/u1?exclude=,", 400, "parameter 'exclude'"),
        ("api/item-to-item/any/nothing", 404, "does not know it"),
        ("api/feedback", 405, "answers POST"),
        ("nothing", 404, "/docs"),
        ("..%2f..%2fetc/passwd", 404, "/docs"),
    ],
)
def test_a_wrong_request_is_told_in_one_sentence(server, path, status, told):
    answer = server.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert told in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"UserId": "u", "ItemId": "i", "Value": NaN}', 400, "from 1 to 5"),
        (b'{"UserId": "u", "ItemId": "i", "Value": 6}', 400, "from 1 to 5"),
        (b'{"UserId": "u", "ItemId": "i", "Value": true}', 400, "from 1 to 5"),
        (b'{"UserId": "", "ItemId": "i", "Value": 4}', 400, "event 0: UserId"),
        (b'{"UserId": "u", "ItemId": "i", "Value": 4, "Timestamp": 1700000000}', 400, "such as 2026-11-30T12:00:00Z"),
        (b'{"UserId": "\\ud800", "ItemId": "i", "Value": 4}', 400, "surrogate"),
        (b"[" * 10_000, 400, "not JSON"),
        (b"x" * 30_000, 413, "at most 20,000 bytes"),
        (b"[" + b",".join([b"{}"] * 101) + b"]", 413, "at most 100 events"),
    ],
)
def test_wrong_feedback_is_told_and_not_kept(server, body, status, told):
    answer = requests.post(f"{server.address}/api/feedback", data=body, timeout=120)
    assert answer.status_code == status
    assert told in answer.json()["detail"]


def test_a_call_of_the_registry_counts_if_mlflow_signed_it(server):
    def call(secret):
        signature = _generate_hmac_signature(secret, "one", "1700000000", "{}")
        headers = {WEBHOOK_SIGNATURE_HEADER: signature, WEBHOOK_DELIVERY_ID_HEADER: "one"}
        headers[WEBHOOK_TIMESTAMP_HEADER] = "1700000000"
        return requests.post(f"{server.address}/api/registry-changed", data="{}", headers=headers, timeout=120)

    assert call("another").status_code == 401
    assert server.post("api/registry-changed", {}).status_code == 401
    assert not (server.folder / CALL).exists()
    assert call("s3cret").status_code == 200
    assert (server.folder / CALL).exists()


def test_ids_are_values_and_never_code(server):
    user = "'; drop table feedback; --"
    event = {"UserId": user, "ItemId": "../i1", "Value": 4}
    assert server.post("api/feedback", event).json() == {"RowAffected": 1}
    assert server.get(f"api/user/{requests.utils.quote(user, safe='')}/feedback").json()[0]["ItemId"] == "../i1"


def test_metrics_count_over_all_workers_without_ids(server):
    def counted():
        lines = server.get("metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("recsys_lists_total"))

    before = counted()
    for _ in range(20):
        server.get("api/recommend/u4", headers={"Connection": "close"})
    assert counted() == before + 20
    assert "u4" not in server.get("metrics").text
    assert 'recsys_model_info{family="table",version="1"} 1.0' in server.get("metrics").text


def test_metrics_say_the_stages_of_a_list_and_why_it_was_of_what_is_popular(server):
    def counted(name):
        return sum(float(line.split()[-1]) for line in server.get("metrics").text.splitlines() if line.startswith(name))

    unknown, empty = (f'recsys_fallback_total{{arm="champion",reason="{why}"' for why in ("unknown_user", "no_history"))
    before = [counted(name) for name in (unknown, empty, 'recsys_stage_seconds_count{stage="rank"')]
    server.get("api/recommend/nobody-knows")
    server.get("api/recommend/u2")
    server.post("api/session/recommend", [])
    after = [counted(name) for name in (unknown, empty, 'recsys_stage_seconds_count{stage="rank"')]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 3]


def test_mlflow_s_client_of_scoring_servers_works(server):
    client = ScoringServerClient("127.0.0.1", server.port)
    client.wait_server_ready(timeout=600)
    rows = pd.DataFrame({"user_id": ["u2", "u2"], "item_id": ["i2", "i3"]})
    found = client.invoke(rows).get_predictions()
    assert found["like_probability"][0] > 0.8 > 0.2 > found["like_probability"][1]


def test_the_pages_load_nothing_from_elsewhere(server):
    for path in ("", "docs"):
        page = server.get(path)
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert "http://" not in page.text.replace("http://127.0.0.1:8000", "")
        assert "https://" not in page.text
    described = server.get("openapi.json").json()
    assert "/api/recommend/{user}" in described["paths"]
