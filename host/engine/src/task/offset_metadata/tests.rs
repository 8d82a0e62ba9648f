//! Tests of `offset_metadata`.
