//! The built binary as a user meets it: processes, signals, REST, topics, on the embedded broker and on real Kafka.
//! Whatever can be tested below this level is tested there. `make e2e` builds what these tests run.

mod applications;
mod bad_input;
mod bad_records;
mod changed_topics;
mod changes;
mod count;
mod dead_letters;
mod dev;
mod full_disk;
mod going_back;
mod invoices;
mod java_tools;
mod kcat;
mod majority_vote;
mod migrations;
mod reference;
mod repro;
mod routing;
mod several_sources;
mod stand_alone;
mod standby;
mod table;
mod topics;
mod unwritable_dead_letters;
mod versions;
mod weather;
mod writes;
