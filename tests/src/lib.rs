//! Black-box suites against real processes live under `tests/`; the library itself holds nothing.
