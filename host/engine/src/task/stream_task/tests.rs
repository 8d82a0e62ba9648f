//! Tests of `stream_task`.
