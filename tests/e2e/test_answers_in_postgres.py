"""PostgreSQL itself is asked whether it keeps what comes of answers in which something is wrong."""

from __future__ import annotations

import json

import pytest

from tests.harness.services import POSTGRES_USER, Postgres
from tests.property.test_answers_fuzzed import everything_kept, seed

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240)]


def test_postgresql_keeps_whatever_comes_of_an_answer() -> None:
    import psycopg2

    refused = []
    with Postgres() as postgres:
        postgres.url("answers")
        connection = psycopg2.connect(host="127.0.0.1", port=postgres.port, user=POSTGRES_USER, dbname="answers")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept (value jsonb, words text)")
            for where, kept in everything_kept():
                try:
                    # As Airflow's columns take it: JSON without NaN, and plain text.
                    words = kept if isinstance(kept, str) else ""
                    cursor.execute("INSERT INTO kept VALUES (%s::jsonb, %s)", (json.dumps(kept), words))
                except (psycopg2.Error, ValueError) as error:
                    refused.append(f"{where}: {error}")
            cursor.execute("SELECT count(*) FROM kept")
            assert cursor.fetchone()[0] > 5000
        connection.close()
    assert refused == [], f"CAPY_SEED={seed()}"
