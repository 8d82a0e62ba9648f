//! librdkafka's error codes, mapped once to what they ask of the caller (`BrokerErrorKind`).

use engine::broker::{BrokerError, BrokerErrorKind};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::native::{Client, Failure};

/// What a code asks for, whatever the call was.
pub(crate) fn kind_of(code: Code) -> BrokerErrorKind {
    match code {
        Code::IllegalGeneration
        | Code::RebalanceInProgress
        | Code::UnknownMemberId
        | Code::StaleMemberEpoch
        | Code::AssignmentLost
        | Code::PollExceeded => BrokerErrorKind::Rebalanced,
        Code::Fenced
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::UnreleasedInstanceId
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::TransactionCoordinatorFenced => BrokerErrorKind::Fenced,
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicId
        | Code::ResourceNotFound => BrokerErrorKind::UnknownTopic,
        Code::TopicAlreadyExists => BrokerErrorKind::TopicExists,
        Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::NoOffset | Code::LogTruncation => {
            BrokerErrorKind::OffsetOutOfRange
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::Authentication => BrokerErrorKind::Unauthorized,
        Code::InvalidTransactionalState | Code::InvalidProducerIdMapping | Code::UnknownProducerId => {
            BrokerErrorKind::Abortable
        }
        _ if is_refusal(code) => BrokerErrorKind::Rejected,
        _ if is_passing(code) => BrokerErrorKind::Retriable,
        _ => BrokerErrorKind::Fatal,
    }
}

/// The same bytes will be refused again.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidReplicaAssignment
            | Code::InvalidConfig
            | Code::InvalidRequest
            | Code::InvalidArgument
            | Code::InvalidGroupId
            | Code::InvalidSessionTimeout
            | Code::InvalidTransactionTimeout
            | Code::InvalidCommitOffsetSize
            | Code::OffsetMetadataTooLarge
            | Code::PolicyViolation
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedCompressionType
            | Code::InconsistentGroupProtocol
    )
}

/// A state of the cluster, the group or the connection that ends by itself.
fn is_passing(code: Code) -> bool {
    is_passing_in_the_client(code)
        || matches!(
            code,
            Code::Unknown
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::RequestTimedOut
                | Code::BrokerNotAvailable
                | Code::ReplicaNotAvailable
                | Code::NetworkException
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::NotEnoughReplicas
                | Code::NotEnoughReplicasAfterAppend
                | Code::NotController
                | Code::ConcurrentTransactions
                | Code::KafkaStorageError
                | Code::ReassignmentInProgress
                | Code::ListenerNotFound
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::OffsetNotAvailable
                | Code::MemberIdRequired
                | Code::UnstableOffsetCommit
                | Code::ThrottlingQuotaExceeded
                | Code::RebootstrapRequired
        )
}

/// The codes of librdkafka's own.
fn is_passing_in_the_client(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::Resolve
            | Code::AllBrokersDown
            | Code::MessageTimedOut
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator
            | Code::WaitCache
            | Code::InProgress
            | Code::PreviousInProgress
            | Code::Conflict
            | Code::Retry
            | Code::QueueFull
            | Code::ISRInsufficient
            | Code::NodeUpdate
            | Code::DestroyBroker
            | Code::UnknownBroker
            | Code::Interrupted
            | Code::PurgeQueue
            | Code::PurgeInflight
    )
}

impl Failure {
    /// The kind, with the flags that transaction calls set taken first.
    pub(crate) fn kind(&self) -> BrokerErrorKind {
        let kind = kind_of(self.code);
        if self.fatal {
            return if kind == BrokerErrorKind::Fenced { kind } else { BrokerErrorKind::Fatal };
        }
        if self.requires_abort {
            return BrokerErrorKind::Abortable;
        }
        if self.retriable { BrokerErrorKind::Retriable } else { kind }
    }

    /// The engine's error for what was tried.
    pub(crate) fn during(self, operation: impl Into<String>) -> BrokerError {
        BrokerError::new(self.kind(), operation, self.detail)
    }
}

impl Client {
    /// The engine's error, with the reason of the last connection failure where the code alone only says that the time
    /// was over, and with what was fatal where it only says that something was: one who is fenced must know that.
    pub(crate) fn error(&self, failure: Failure, operation: impl Into<String>) -> BrokerError {
        let failure = match failure.code {
            Code::Fatal => self.fatal_error().unwrap_or(failure),
            _ => failure,
        };
        let silent = matches!(
            failure.code,
            Code::OperationTimedOut
                | Code::MessageTimedOut
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::WaitingForCoordinator
                | Code::RequestTimedOut
                | Code::TimedOutQueue
        );
        let mut error = failure.during(operation);
        if let (true, Some((_, reason))) = (silent, self.events().last_error()) {
            error.detail = format!("{}; last client error: {reason}", error.detail);
        }
        error
    }

    /// The error of a client that has seen a fatal one.
    pub(crate) fn check_fatal(&self, operation: &str) -> Result<(), BrokerError> {
        if !self.events().is_fatal() {
            return Ok(());
        }
        match self.fatal_error() {
            Some(failure) => Err(failure.during(operation)),
            None => Ok(()),
        }
    }
}
