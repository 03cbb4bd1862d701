"""Capy gone, in every way and for long, under every way of waiting in a really running Airflow: `make outages`."""
