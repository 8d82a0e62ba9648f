//! A group's member as a process of its own, so that it can be killed and frozen like one. The parent asks by lines on
//! its stdin and reads what happened from its stdout: `assigned 0,1` at every change, `record PARTITION OFFSET`, and a
//! line `reply …` for each question.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;

use crate::client::{self, PATIENCE};
use crate::raw::{self, Membership};

/// The parent's end.
pub struct Member {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    assigned: Vec<i32>,
    pub records: Vec<(i32, i64)>,
}

impl Member {
    /// Starts a member; `settings` win over the suite's own.
    pub fn start(bootstrap: &str, group: &str, topic: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["member", bootstrap, group, topic]);
        for (name, value) in settings {
            command.arg(format!("{name}={value}"));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start a member")?;
        let stdin = child.stdin.take().ok_or_else(|| anyhow!("the member has no stdin"))?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("the member has no stdout"))?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, lines, assigned: Vec::new(), records: Vec::new() })
    }

    /// The partitions that it last said it has.
    pub fn assigned(&mut self) -> Result<&[i32]> {
        while let Ok(line) = self.lines.try_recv() {
            self.note(&line)?;
        }
        Ok(&self.assigned)
    }

    /// Takes what is not a reply.
    fn note(&mut self, line: &str) -> Result<()> {
        if let Some(partitions) = line.strip_prefix("assigned") {
            let partitions = partitions.trim().split(',').filter(|partition| !partition.is_empty());
            self.assigned = partitions.map(|partition| Ok(partition.parse()?)).collect::<Result<_>>()?;
        } else if let Some(record) = line.strip_prefix("record ") {
            let (partition, offset) = record.split_once(' ').ok_or_else(|| anyhow!("odd line {line:?}"))?;
            self.records.push((partition.parse()?, offset.parse()?));
        } else if let Some(failed) = line.strip_prefix("failed ") {
            bail!("the member failed: {failed}");
        }
        Ok(())
    }

    /// Asks one thing and gives what stands after `reply`.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.stdin, "{question}")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok(line) => match line.strip_prefix("reply ") {
                    Some(reply) => return Ok(reply.to_owned()),
                    None => self.note(&line)?,
                },
                Err(RecvTimeoutError::Timeout) => bail!("a member did not answer {question:?} within {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("a member ended instead of answering {question:?}"),
            }
        }
    }

    pub fn membership(&mut self) -> Result<Membership> {
        let reply = self.ask("membership")?;
        let (generation, member) = reply.split_once(' ').ok_or_else(|| anyhow!("odd reply {reply:?}"))?;
        Ok(Membership { generation: generation.parse()?, member: member.to_owned() })
    }

    /// Leaves the group and ends.
    pub fn leave(mut self) -> Result<()> {
        self.ask("leave")?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops the process where it stands.
    pub fn freeze(&self) -> Result<()> {
        signal(self.child.id(), "STOP")
    }

    pub fn thaw(&self) -> Result<()> {
        signal(self.child.id(), "CONT")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shell has `kill` everywhere; the standard library sends SIGKILL only.
pub fn signal(process: u32, name: &str) -> Result<()> {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {process}")).status()?;
    if status.success() { Ok(()) } else { bail!("cannot send SIG{name} to process {process}") }
}

/// Waits until the members share all partitions and each has as many as it should.
pub fn wait_for_shares(members: &mut [&mut Member], shares: &[usize], limit: Duration) -> Result<Duration> {
    let started = Instant::now();
    let total: usize = shares.iter().sum();
    let what = format!("members with {shares:?} partitions");
    client::wait_until(&what, limit, || {
        let mut found = Vec::new();
        for member in members.iter_mut() {
            found.push(member.assigned()?.to_vec());
        }
        let mut all = found.concat();
        all.sort_unstable();
        all.dedup();
        let counts: Vec<usize> = found.iter().map(Vec::len).collect();
        let mut sorted = (counts.clone(), shares.to_vec());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        Ok(if all.len() == total && sorted.0 == sorted.1 { Ok(()) } else { Err(format!("{found:?}")) })
    })?;
    Ok(started.elapsed())
}

/// The child's side; ends when its parent does.
pub fn run(bootstrap: &str, group: &str, topic: &str, settings: &[String]) -> Result<()> {
    let consumer = match consumer(bootstrap, group, topic, settings) {
        Ok(consumer) => consumer,
        Err(error) => {
            println!("failed {error:#}");
            return Ok(());
        }
    };
    let (sender, questions) = mpsc::channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut assigned = None;
    loop {
        match consumer.poll(Duration::from_millis(30)) {
            Some(Ok(record)) => println!("record {} {}", record.partition(), record.offset()),
            // Transient: the client goes on by itself, and a member that gets nothing fails its check.
            Some(Err(error)) => println!("error {error}"),
            None => {}
        }
        if let Some((code, reason)) = consumer.client().fatal_error() {
            println!("failed {code}: {reason}");
            return Ok(());
        }
        let mut partitions: Vec<i32> = consumer.assignment()?.elements().iter().map(|one| one.partition()).collect();
        partitions.sort_unstable();
        if assigned.as_ref() != Some(&partitions) {
            let text: Vec<String> = partitions.iter().map(i32::to_string).collect();
            println!("assigned {}", text.join(","));
            assigned = Some(partitions);
        }
        match questions.try_recv() {
            Ok(question) if question == "leave" => {
                consumer.unsubscribe();
                drop(consumer);
                println!("reply left");
                return Ok(());
            }
            Ok(question) => println!("reply {}", answer(&consumer, topic, &question)?),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

fn consumer(bootstrap: &str, group: &str, topic: &str, settings: &[String]) -> Result<BaseConsumer> {
    let mut config = client::config(bootstrap);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100");
    if !settings.iter().any(|setting| setting == "group.protocol=consumer") {
        config.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "500");
    }
    for setting in settings {
        let (name, value) = setting.split_once('=').ok_or_else(|| anyhow!("{setting:?} is not NAME=VALUE"))?;
        config.set(name, value);
    }
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[topic])?;
    Ok(consumer)
}

fn answer(consumer: &BaseConsumer, topic: &str, question: &str) -> Result<String> {
    let words: Vec<&str> = question.split(' ').collect();
    match words.as_slice() {
        ["commit", partition, offset] => {
            let list = client::offsets(topic, &[(partition.parse()?, offset.parse()?)])?;
            Ok(match consumer.commit(&list, CommitMode::Sync) {
                Ok(()) => "done".to_owned(),
                Err(error) => format!("refused {error}"),
            })
        }
        ["membership"] => {
            let found = raw::membership(consumer).ok_or_else(|| anyhow!("no group metadata"))?;
            Ok(format!("{} {}", found.generation, found.member))
        }
        _ => bail!("unknown question {question:?}"),
    }
}
