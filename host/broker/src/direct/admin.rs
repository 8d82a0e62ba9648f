//! `DirectAdmin`: describes and creates topics.

use engine::broker::{Admin, BrokerError, NewTopic, TopicDescription};

use super::{Connection, Operation};
use crate::core::admin::NewTopic as CoreTopic;
use crate::core::refusal::Refusal;

pub(super) struct DirectAdmin {
    connection: Connection,
}

impl DirectAdmin {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    fn describe(&self, name: &str) -> Result<Option<TopicDescription>, Refusal> {
        let core = self.connection.core();
        let Some(topic) = core.topic(name) else { return Ok(None) };
        let configs = core.describe_configs(name)?.into_iter();
        Ok(Some(TopicDescription {
            name: name.to_owned(),
            id: Some(format!("{:032x}", topic.id.0)),
            partitions: topic.partitions.len() as i32,
            configs: configs.map(|entry| (entry.name.to_owned(), entry.value)).collect(),
        }))
    }
}

impl Admin for DirectAdmin {
    fn describe_topics(&mut self, names: &[&str]) -> Result<Vec<Option<TopicDescription>>, BrokerError> {
        self.connection.call(
            Operation::DescribeTopics,
            || names.join(" "),
            || names.iter().map(|name| self.describe(name)).collect(),
        )
    }

    fn create_topic(&mut self, topic: &NewTopic) -> Result<(), BrokerError> {
        let new = CoreTopic { name: topic.name.clone(), partitions: topic.partitions, configs: topic.configs.clone() };
        self.connection.call(
            Operation::CreateTopic,
            || topic.name.clone(),
            || self.connection.core().create_topic(&new, false).map(|_| ()),
        )
    }
}
