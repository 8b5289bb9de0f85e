"""Where the metadata is, written as a URL."""

from __future__ import annotations

import os
import urllib.parse

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.metadata import (
    ConnectionConfigType,
    mysql_metadata_connection_config,
    sqlite_metadata_connection_config,
)

PASSWORD = "METADATA_PASSWORD"


def connect(url: str) -> ConnectionConfigType:
    """Returns how to connect to a metadata store.

    Args:
        url: `grpc://HOST:PORT`, a metadata service such as KFP's own; `mysql://USER@HOST:PORT/DATABASE`, with the
            password in the environment variable METADATA_PASSWORD, as an argument is everybody's to read; or
            `sqlite:///FILE`, which only one node at a time may use.

    Raises:
        ValueError: The URL is none of these.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"metadata {url}: {error}") from None
    if parts.password is not None:
        raise ValueError(f"metadata: the password belongs into the environment variable {PASSWORD}, not into the URL")
    database = parts.path.removeprefix("/")
    match parts.scheme:
        case "grpc" if parts.hostname and port and not database:
            return metadata_store_pb2.MetadataStoreClientConfig(host=parts.hostname, port=port)
        case "mysql" if parts.hostname and parts.username and database:
            return mysql_metadata_connection_config(
                parts.hostname, port or 3306, database, parts.username, os.environ.get(PASSWORD, "")
            )
        case "sqlite" if not parts.netloc and database:
            return sqlite_metadata_connection_config(parts.path)
    raise ValueError(
        f"metadata {url}: write grpc://HOST:PORT, mysql://USER@HOST:PORT/DATABASE or sqlite:///FILE (three slashes)"
    )
