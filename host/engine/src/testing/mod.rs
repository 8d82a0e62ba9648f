//! What tests of the engine and of its adapters share: contract suites, fakes that fail on demand, processors and a
//! driver for whole topologies. Panics are its way to report; nothing of it is for a running application.

mod clock;
mod crash_stores;
mod driver;
mod membership_contract;
mod mock_broker;
mod mock_clients;
mod processors;
mod seed;
mod store_contract;

pub use clock::ManualClock;
pub use crash_stores::CrashStores;
pub use driver::{DRIVER_APPLICATION_ID, DriverOptions, TopologyTestDriver};
pub use membership_contract::{ContractHost, membership_contract};
pub use mock_broker::{Call, MockBroker, Operation};
pub use processors::{
    Count, Hostile, MajorityVote, NativeProcessor, NativeSupplier, Obedient, PassThrough, ProcessWith, commands,
    forward, number, topology,
};
pub use seed::Seed;
pub use store_contract::{persistent_store_contract, store_contract};
