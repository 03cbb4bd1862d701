"""A Capy on your machine: contract-strict, scripted and observable, so that DAGs are tested without the network."""
