//! A plugin that takes its time, and says nothing of it: see `test_plugins::sleeper`.

test_plugins::sleeper!();
