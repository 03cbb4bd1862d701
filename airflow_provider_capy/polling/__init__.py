"""One poll for the waits of a triggerer on one connection: whatever goes wrong with it, each is as well off as alone."""
