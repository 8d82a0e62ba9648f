//! Tests of `stream_thread`.
