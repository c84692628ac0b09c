//! The user side.
