import pytest

from recsys.errors import InputError
from recsys.tuning import database_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql+pymysql://anna:s3cret@db:3306/optuna", "mysql+pymysql://anna:***@db:3306/optuna"),
        ("mysql+pymysql://anna:p@ss:w/rd@db/optuna", "mysql+pymysql://anna:***@db/optuna"),
        ("mysql+pymysql://anna@db/optuna", "mysql+pymysql://anna@db/optuna"),
        ("mysql+pymysql://anna:@db/optuna", "mysql+pymysql://anna:@db/optuna"),
        ("postgresql://db/optuna?user=anna&password=s3cret", "postgresql://db/optuna?user=anna&password=***"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:***@c.db"),
        ("anna:s3cret@db/optuna", "anna:***@db/optuna"),
        ("auto", "auto"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert database_url.masked(url) == shown
    assert database_url.has_password(url) == (url != shown)
    assert database_url.masked(shown) == shown


def test_what_a_driver_says_is_scrubbed_of_both_spellings():
    url = "mysql+pymysql://anna:p%40ss@db/optuna?password=other"
    assert database_url.scrubbed("denied p%40ss, p@ss and other", url) == "denied ***, *** and ***"


@pytest.mark.parametrize(
    "url",
    [
        "no url",
        "anna:s3cret@db/optuna",
        "mysql+pymysql://anna:s3cret@db",
        "mysql+pymysql://anna:s3cret@/optuna",
        "mysql+pymysql://anna:s3cret@db:port/optuna",
        "mysql+pymysql://anna:s3cret@db:99999/optuna",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_what_is_no_url_of_a_database_is_refused_without_its_password(url):
    with pytest.raises(InputError, match=r"^parameter 'storage': ") as caught:
        database_url.check_url(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("mysql+pymysql://anna:s3cret@db/optuna", "db:3306"),
        ("mysql+pymysql://db:3307/optuna", "db:3307"),
        ("postgresql://db/optuna", "db:5432"),
        ("sqlite:///studies.db", "studies.db"),
        ("sqlite:////folder/studies.db?timeout=3", "/folder/studies.db"),
    ],
)
def test_where_a_database_is(url, location):
    database_url.check_url(url)
    assert database_url.location(url) == location


@pytest.mark.parametrize("option", ["read_default_file=/etc/passwd", "charset=utf8&Read%5Fdefault_group=client"])
def test_an_option_that_reads_other_files_is_refused(option):
    with pytest.raises(InputError, match=r"a URL without the option 'read_default_") as caught:
        database_url.check_url(f"mysql+pymysql://anna:s3cret@db/optuna?{option}".replace("Read", "read"))
    assert "s3cret" not in str(caught.value)
