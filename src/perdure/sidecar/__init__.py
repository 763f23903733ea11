"""Doors to the Dapr building blocks, and what stands behind them."""
