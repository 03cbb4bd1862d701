"""The public names of the client's package, which users import."""

import subprocess
import sys

from airflow_provider_capy import api


def test_the_public_names():
    assert sorted(api.__all__) == [
        "AsyncCapyClient",
        "CapyClient",
        "ClientSettings",
        "CreatedThread",
        "RetryLimits",
        "StoppedThread",
        "Thread",
        "ThreadPage",
    ]
    assert all(getattr(api, name).__module__.startswith("airflow_provider_capy.api.") for name in api.__all__)


def test_both_clients_have_the_same_methods():
    def methods(kind):
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(api.CapyClient) == methods(api.AsyncCapyClient)


def test_the_client_needs_no_airflow():
    code = (
        "import sys, airflow_provider_capy.api; print(sorted(m for m in sys.modules if m.split('.')[0] == 'airflow'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
