from __future__ import annotations

import pytest

from pipeline.metadata_store import connect


def test_a_grpc_service():
    config = connect("grpc://metadata-grpc-service.kubeflow:8080")
    assert (config.host, config.port) == ("metadata-grpc-service.kubeflow", 8080)


def test_mysql_with_the_password_from_the_environment(monkeypatch):
    monkeypatch.setenv("METADATA_PASSWORD", "a secret")
    mysql = connect("mysql://ctr@mysql.ml:3307/metadata").mysql
    assert (mysql.host, mysql.port, mysql.database) == ("mysql.ml", 3307, "metadata")
    assert (mysql.user, mysql.password) == ("ctr", "a secret")
    assert connect("mysql://ctr@mysql.ml/metadata").mysql.port == 3306


def test_a_sqlite_file(tmp_path):
    assert connect(f"sqlite://{tmp_path}/new/metadata.sqlite").sqlite.filename_uri == f"{tmp_path}/new/metadata.sqlite"


WRONG = {
    "a password in the URL": ("mysql://ctr:secret@host/metadata", "environment variable METADATA_PASSWORD"),
    "no port": ("grpc://host", "write grpc://HOST:PORT"),
    "no database": ("mysql://ctr@host", "write grpc://HOST:PORT, mysql://USER@HOST:PORT/DATABASE"),
    "no user": ("mysql://host/metadata", "write grpc://HOST:PORT, mysql://USER@HOST:PORT/DATABASE"),
    "two slashes": ("sqlite://metadata.sqlite", "three slashes"),
    "not a port": ("grpc://host:port", "metadata grpc://host:port: "),
}


@pytest.mark.parametrize(("url", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_url_is_an_error_with_the_remedy(url, message):
    with pytest.raises(ValueError, match=message) as error:
        connect(url)
    assert "secret" not in str(error.value)
