"""Every way to cancel, clear, restart and kill, tried on a really running Airflow against the promises of the README."""
