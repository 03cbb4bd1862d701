"""A real, running Airflow for the end-to-end tests and the demo."""
