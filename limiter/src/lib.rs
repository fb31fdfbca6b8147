//! What the in-container libraries do: boundary, driver, hooks.
