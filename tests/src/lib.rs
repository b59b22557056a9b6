//! What black-box suites against real processes share; the suites themselves live under `tests/`.

pub mod netns;
