//! `RouteFinder`: where the application's partitions are, as its group says. Asks the broker only when somebody wants
//! to know and what it knows is old, and one at a time. A route may be wrong for a while after a rebalance, or without
//! a broker: the host that is asked says so, and nobody takes it for an answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::broker::{BrokerError, ClientSupplier, GroupMember, Membership};
use engine::routing::Routes;
use engine::topology::{TaskId, Topology};

/// For so long what was found is taken for true.
const FRESH: Duration = Duration::from_secs(1);

/// See the module's head.
pub struct RouteFinder {
    /// The id under which this host is one of the instances.
    pub host_id: String,
    topology: Arc<Topology>,
    /// The tasks that have something to keep warm.
    tasks: BTreeSet<TaskId>,
    replicas: usize,
    membership: Arc<Mutex<Box<dyn Membership>>>,
    known: tokio::sync::Mutex<Option<Known>>,
}

/// What was found out when it was asked last.
struct Known {
    asked: Instant,
    answer: Result<Arc<Routes>, String>,
}

impl RouteFinder {
    /// # Errors
    /// When no client can be made.
    pub fn new(
        host_id: &str,
        clients: &dyn ClientSupplier,
        topology: Arc<Topology>,
        tasks: BTreeSet<TaskId>,
        replicas: usize,
    ) -> Result<Self, BrokerError> {
        Ok(Self::with(host_id, clients.membership()?, topology, tasks, replicas))
    }

    pub(crate) fn with(
        host_id: &str,
        membership: Box<dyn Membership>,
        topology: Arc<Topology>,
        tasks: BTreeSet<TaskId>,
        replicas: usize,
    ) -> Self {
        let membership = Arc::new(Mutex::new(membership));
        Self {
            host_id: host_id.to_owned(),
            topology,
            tasks,
            replicas,
            membership,
            known: tokio::sync::Mutex::default(),
        }
    }

    /// The routes of about now.
    ///
    /// # Errors
    /// Why the group cannot be asked.
    pub async fn routes(&self) -> Result<Arc<Routes>, String> {
        self.since(Instant::now().checked_sub(FRESH)).await
    }

    /// The routes of after a moment: for those who found earlier ones wrong.
    ///
    /// # Errors
    /// Why the group cannot be asked.
    pub async fn routes_after(&self, moment: Instant) -> Result<Arc<Routes>, String> {
        self.since(Some(moment)).await
    }

    async fn since(&self, moment: Option<Instant>) -> Result<Arc<Routes>, String> {
        let mut known = self.known.lock().await;
        if let Some(Known { asked, answer }) = &*known
            && moment.is_none_or(|moment| *asked >= moment)
        {
            return answer.clone();
        }
        let membership = Arc::clone(&self.membership);
        let ask = move || membership.lock().unwrap_or_else(PoisonError::into_inner).members();
        let answer = tokio::task::spawn_blocking(ask).await.map_err(|error| error.to_string())?;
        let answer = match answer {
            Ok(Some(members)) => Ok(Arc::new(self.routes_of(&members))),
            Ok(None) => Err("the group is rebalancing".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        // What was true before is the best guess: most tasks stay where they were, and the others are refused there.
        let before = known.take().and_then(|known| known.answer.ok());
        let answer = answer.or_else(|why| before.ok_or(why));
        // By the time of the answer, so that those who waited for it meanwhile do not ask again.
        *known = Some(Known { asked: Instant::now(), answer: answer.clone() });
        answer
    }

    fn routes_of(&self, members: &[GroupMember]) -> Routes {
        Routes::of(members, &self.topology, &self.tasks, self.replicas)
    }
}
