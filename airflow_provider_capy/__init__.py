"""Apache Airflow provider for Capy, the service that runs coding agents in threads."""

__version__ = "0.1.0"
