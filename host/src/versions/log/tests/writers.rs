//! Two writers: one of them is let through, wherever the other one comes in between.

use super::*;

/// What happens before a transaction is committed, once.
type Hook = Box<dyn FnOnce() + Send>;

/// Clients whose producers let something happen at a moment.
struct Interrupted {
    inner: Arc<dyn ClientSupplier>,
    at: Moment,
    hook: Arc<Mutex<Option<Hook>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    BeforeInit,
    AfterInit,
    BeforeSend,
    BeforeCommit,
    AfterCommit,
}

struct InterruptedProducer {
    inner: Box<dyn Producer>,
    at: Moment,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl InterruptedProducer {
    fn come_to(&self, moment: Moment) {
        if moment == self.at
            && let Some(hook) = self.hook.lock().expect("not poisoned").take()
        {
            hook();
        }
    }
}

impl ClientSupplier for Interrupted {
    fn consumer(&self, thread: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        self.inner.consumer(thread)
    }

    fn restore_consumer(&self, thread: usize) -> Result<Box<dyn RestoreConsumer>, BrokerError> {
        self.inner.restore_consumer(thread)
    }

    fn producer(&self, thread: usize, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, BrokerError> {
        let inner = self.inner.producer(thread, transactional_id)?;
        Ok(Box::new(InterruptedProducer { inner, at: self.at, hook: Arc::clone(&self.hook) }))
    }

    fn admin(&self) -> Result<Box<dyn Admin>, BrokerError> {
        self.inner.admin()
    }

    fn membership(&self) -> Result<Box<dyn Membership>, BrokerError> {
        self.inner.membership()
    }
}

impl Producer for InterruptedProducer {
    fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), SendError> {
        self.come_to(Moment::BeforeSend);
        self.inner.send(record)
    }

    fn poll(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.inner.poll(timeout)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn flush(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.inner.flush(timeout)
    }

    fn take_acknowledged(&mut self) -> BTreeMap<TopicPartition, Offset> {
        self.inner.take_acknowledged()
    }

    fn init_transactions(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.come_to(Moment::BeforeInit);
        self.inner.init_transactions(timeout)?;
        self.come_to(Moment::AfterInit);
        Ok(())
    }

    fn begin_transaction(&mut self) -> Result<(), BrokerError> {
        self.inner.begin_transaction()
    }

    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, engine::broker::OffsetAndMetadata)],
        group: &engine::broker::GroupMetadata,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        self.inner.send_offsets(offsets, group, timeout)
    }

    fn commit_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.come_to(Moment::BeforeCommit);
        self.inner.commit_transaction(timeout)?;
        if self.at == Moment::AfterCommit {
            self.come_to(Moment::AfterCommit);
            return Err(BrokerError::new(BrokerErrorKind::Fenced, "commit the transaction", "another producer came"));
        }
        Ok(())
    }

    fn abort_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.inner.abort_transaction(timeout)
    }
}

/// Ada deploys, and Bob does at some moment of it; returns how it went for Ada, and her log.
fn with_bob_at(broker: &DirectBroker, at: Moment) -> (Result<(), AppendError>, VersionLog) {
    let mut bob = opened(broker, "bb");
    let hook: Hook = Box::new(move || {
        bob.refresh().expect("read");
        try_deploy(&mut bob, &module(2), "bob").expect("bob's is deployed");
    });
    let clients = Interrupted { inner: clients(broker, "aa"), at, hook: Arc::new(Mutex::new(Some(hook))) };
    let mut ada = VersionLog::open(Arc::new(clients), options()).expect("the log opens");
    (try_deploy(&mut ada, &module(1), "ada"), ada)
}

#[test]
fn whoever_decides_by_an_old_table_is_told_and_may_decide_again() {
    let broker = broker(Faults::none());
    let (mut ada, mut bob) = (opened(&broker, "aa"), opened(&broker, "bb"));
    try_deploy(&mut ada, &module(1), "ada").expect("deployed");
    let revision = ada.table().revision();
    let error = try_deploy(&mut bob, &module(2), "bob").expect_err("ada was faster");
    assert!(matches!(&error, AppendError::Conflict { found, .. } if *found == revision), "{error}");
    assert_eq!(active(&bob), Some((1, "ada".to_owned())));
    try_deploy(&mut bob, &module(2), "bob").expect("deployed");
    assert_eq!(active(&bob), Some((2, "bob".to_owned())));
    ada.refresh().expect("read");
    assert_eq!(active(&ada), Some((2, "bob".to_owned())));
}

#[test]
fn another_writer_in_the_middle_makes_a_conflict_and_nothing_of_the_first_is_seen() {
    for at in [Moment::BeforeInit, Moment::AfterInit, Moment::BeforeSend, Moment::BeforeCommit] {
        let broker = broker(Faults::none());
        let (result, mut ada) = with_bob_at(&broker, at);
        assert!(matches!(result, Err(AppendError::Conflict { .. })), "{at:?}: {result:?}");
        for log in [&mut ada, &mut opened(&broker, "cc")] {
            assert_eq!((active(log), log.table().versions().len()), (Some((1, "bob".to_owned())), 1), "{at:?}");
            assert!(!log.table().has_module(&ModuleDigest::of(&module(1))), "{at:?}");
        }
        // And the way is free again.
        try_deploy(&mut ada, &module(3), "ada").expect("deployed");
        assert_eq!(active(&ada), Some((2, "ada".to_owned())));
    }
}

#[test]
fn a_writer_that_is_fenced_after_its_commit_has_written() {
    let broker = broker(Faults::none());
    let (result, ada) = with_bob_at(&broker, Moment::AfterCommit);
    assert!(result.is_ok(), "{result:?}");
    let authors: Vec<&str> = ada.table().versions().values().map(|version| &*version.who).collect();
    assert_eq!((authors, active(&ada)), (vec!["ada", "bob"], Some((2, "bob".to_owned()))));
}

#[test]
fn a_reader_sees_a_whole_transaction_or_nothing_of_it() {
    let broker = broker(Faults::none());
    let mut reader = opened(&broker, "bb");
    let looks = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&looks);
    // 60 parts and more go through several polls.
    let hook: Hook = Box::new(move || {
        let changed = reader.refresh().expect("read");
        seen.lock().expect("not poisoned").push((changed, reader.table().is_empty()));
    });
    let at = Moment::BeforeCommit;
    let clients = Interrupted { inner: clients(&broker, "aa"), at, hook: Arc::new(Mutex::new(Some(hook))) };
    let mut writer = VersionLog::open(Arc::new(clients), options()).expect("the log opens");
    try_deploy(&mut writer, &module(1), "ada").expect("deployed");
    assert_eq!(*looks.lock().expect("not poisoned"), [(false, true)]);
}

/// Ada's log after a first deploy, whose writer is kept, and what is to happen at some moment of the next one.
fn with_a_kept_writer(broker: &DirectBroker, at: Moment) -> (VersionLog, Arc<Mutex<Option<Hook>>>) {
    let hook = Arc::new(Mutex::new(None));
    let clients = Interrupted { inner: clients(broker, "aa"), at, hook: Arc::clone(&hook) };
    let mut ada = VersionLog::open(Arc::new(clients), options()).expect("the log opens");
    try_deploy(&mut ada, &module(1), "ada").expect("deployed");
    (ada, hook)
}

#[test]
fn whoever_alone_writes_fences_once() {
    let broker = broker(Faults::none());
    let (mut ada, hook) = with_a_kept_writer(&broker, Moment::BeforeInit);
    *hook.lock().expect("not poisoned") = Some(Box::new(|| {}));
    try_deploy(&mut ada, &module(2), "ada").expect("deployed");
    assert!(hook.lock().expect("not poisoned").is_some(), "the writer was made anew");
    // Another one has written: this one must fence it.
    let mut bob = opened(&broker, "bb");
    try_deploy(&mut bob, &module(3), "bob").expect("deployed");
    ada.refresh().expect("read");
    try_deploy(&mut ada, &module(4), "ada").expect("deployed");
    assert!(hook.lock().expect("not poisoned").is_none(), "the writer was kept");
    assert_eq!(active(&ada), Some((4, "ada".to_owned())));
}

#[test]
fn a_kept_writer_that_is_fenced_in_its_transaction_loses_it() {
    for at in [Moment::BeforeSend, Moment::BeforeCommit] {
        let broker = broker(Faults::none());
        let (mut ada, hook) = with_a_kept_writer(&broker, at);
        let mut bob = opened(&broker, "bb");
        *hook.lock().expect("not poisoned") = Some(Box::new(move || {
            bob.refresh().expect("read");
            try_deploy(&mut bob, &module(2), "bob").expect("bob's is deployed");
        }));
        let error = try_deploy(&mut ada, &module(3), "ada").expect_err("bob was faster");
        assert!(matches!(error, AppendError::Conflict { .. }), "{at:?}: {error}");
        assert_eq!(active(&ada), Some((2, "bob".to_owned())), "{at:?}");
        try_deploy(&mut ada, &module(3), "ada").expect("deployed");
        assert_eq!(active(&ada), Some((3, "ada".to_owned())), "{at:?}");
    }
}
