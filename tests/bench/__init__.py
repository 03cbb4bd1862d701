"""What waiting costs: our trigger beside its peers and beside the floor."""
