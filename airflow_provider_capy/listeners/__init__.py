"""Hears the end of every run and task instance, and stops the threads that nobody answers for any more."""
