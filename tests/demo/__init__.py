"""One command that shows the provider at work: a real Airflow, a Capy, three example DAGs and what was seen of them."""
