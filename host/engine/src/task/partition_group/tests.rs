//! Tests of `partition_group`.
