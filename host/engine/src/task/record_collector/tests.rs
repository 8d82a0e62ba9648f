//! Tests of `record_collector`.
