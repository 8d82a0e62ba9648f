//! Tests of `topology`.
