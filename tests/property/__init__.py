"""What holds for every schedule of crashes, faults, retries and clears."""
