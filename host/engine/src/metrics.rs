//! All metric names of the engine in one table, and the plain counters behind them. No clock, no rendering.
