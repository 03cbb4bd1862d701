"""The provider's plugins, which Airflow loads by itself."""
