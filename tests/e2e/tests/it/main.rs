//! The built binary as a user meets it: processes, signals, REST, topics, on the embedded broker and on real Kafka.
//! Whatever can be tested below this level is tested there.

mod weather;
