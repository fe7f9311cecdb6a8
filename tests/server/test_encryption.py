"""Connections to MySQL are encrypted by the certificate that `make up` makes, and another server's is not believed."""

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from server.make_env import make_certificates


def test_a_client_believes_the_server_s_authority_and_no_other(mariadb, tmp_path):
    if not mariadb.is_private:
        pytest.skip("RECSYS_TEST_MYSQL_URL names a server whose certificate is its owner's affair")
    url = mariadb.new_database("encrypted")
    query = sqlalchemy.text("show status like 'Ssl_cipher'")
    with sqlalchemy.create_engine(f"{url}?ssl_ca={mariadb.authority}").connect() as connection:
        assert connection.execute(query).one()[1].startswith("TLS_")
    make_certificates(tmp_path / "others")
    with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        sqlalchemy.create_engine(f"{url}?ssl_ca={tmp_path / 'others' / 'ca.pem'}").connect()
