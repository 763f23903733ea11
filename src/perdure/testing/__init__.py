"""What tests of agents need: a clock to turn, a store that misbehaves."""
