//! Tests of `task_manager`.
