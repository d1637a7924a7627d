//! A plugin that takes its time, and says so: see `test_plugins::sleeper`.

test_plugins::sleeper!((blocking));
