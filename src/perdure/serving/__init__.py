"""A service: built in `wiring`, answered over HTTP in `routes`, or used in this process through `local`."""
