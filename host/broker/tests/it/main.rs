//! The embedded broker as a host uses it: started on a folder, found by others, killed and started again.

mod client;
mod crash;
mod embedded;
