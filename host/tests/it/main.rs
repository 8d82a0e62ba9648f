//! The built `sandbar` from outside: what it says to bad input, with which exit code, and how it runs, answers and
//! stops. Uses the embedded broker and the test guests (`make guests`); real Kafka is the matter of `tests/e2e`.

mod applications;
mod apps_directory;
mod bad_input;
mod compiling;
mod damaged;
mod dead_letter_files;
mod disk_full;
mod hostile;
mod http;
mod manifest;
mod running;
mod support;
mod topics;
