//! Part (b): a count in RocksDB of whose records a share is poison, which a native processor and a module refuse or
//! fail at. What a poison record costs is the difference to the run without any, divided by their number.

use std::sync::Arc;

use anyhow::{Result, ensure};
use engine::metrics::Metric;
use engine::processor::{ProcessorContext, ProcessorError, ProcessorSupplier};
use engine::record::{InputBatch, Outcome, Refusal};
use engine::testing::{NativeProcessor, NativeSupplier, forward, number};
use engine::topology::StoreBackend;
use sandbox::Runtime;

use super::{Cost, Plan, Protection, run_one, topology};
use crate::measure::spread;
use crate::sandbox_tax::{Place, guest};
use crate::show;
use crate::workload::{Input, Work, input};

const WORK: Work = Work::Count(StoreBackend::Persistent);
const REFUSE: &str = "!refuse";
const TRAP: &str = "!trap";

/// No poison is among the last records, so that all of it is behind a thread that has processed all others.
const HEALTHY_END: u64 = 4_000;

/// What the guest `fragile` does, in native code.
#[derive(Clone, Copy)]
struct Fragile;

impl NativeProcessor for Fragile {
    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        let store = context.store_at(0)?;
        let mut outcome = Outcome::default();
        for (index, (key, value)) in batch.keys.iter().zip(batch.values.iter()).enumerate() {
            let key = key.unwrap_or_default();
            if value == Some(REFUSE.as_bytes()) {
                outcome.refused.push(Refusal { index: index as u32, reason: "the record asked for it".to_owned() });
                continue;
            }
            let count = context.get(store, key)?.map_or(0, |value| number(&value)) + 1;
            context.put(store, key, Some(&count.to_be_bytes()), None)?;
            forward(&mut outcome.outputs, batch.timestamps[index], Some(key), Some(&count.to_be_bytes()));
            if value == Some(TRAP.as_bytes()) {
                return Err(ProcessorError::Trap { message: String::new(), backtrace: String::new() });
            }
        }
        Ok(outcome)
    }
}

/// A kind of poison, and one of how many records is that; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    value: &'static str,
    one_in: u64,
}

impl Share {
    const ALL: [Self; 5] = [
        Self { value: "", one_in: 0 },
        Self { value: REFUSE, one_in: 10_000 },
        Self { value: REFUSE, one_in: 100 },
        Self { value: TRAP, one_in: 10_000 },
        Self { value: TRAP, one_in: 100 },
    ];

    fn is_poison(self, index: u64, records: u64) -> bool {
        // Spread unevenly, as bad records are.
        let spread = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        self.one_in > 0 && index + HEALTHY_END < records && spread.is_multiple_of(self.one_in)
    }

    fn input(self, index: u64, records: u64) -> Input {
        let mut input = input(index);
        if self.is_poison(index, records) {
            self.value.clone_into(&mut input.value);
        }
        input
    }

    fn name(self) -> String {
        match self.one_in {
            0 => "no poison".to_owned(),
            one_in => {
                let how = if self.value == TRAP { "trap" } else { "refused" };
                format!("{} % {how}", 100.0 / one_in as f64)
            }
        }
    }
}

pub fn run(runtime: &Runtime, plan: &Plan) -> Result<()> {
    println!("\n## (b) poison: {WORK}, {} records, one stream thread\n", plan.records);
    println!(
        "| where | poison | k rec/s | of the rate without | CPU µs/rec | CPU µs per poison record | calls more per \
         poison record |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for place in [Place::Native, Place::Sandbox] {
        let mut costs: [Vec<Cost>; 5] = Default::default();
        for _ in 0..plan.rounds {
            for (share, costs) in Share::ALL.into_iter().zip(&mut costs) {
                costs.push(run_share(runtime, plan, place, share)?);
            }
        }
        for (share, of_share) in Share::ALL.into_iter().zip(&costs) {
            println!("{}", line(place, share, of_share, &costs[0]));
        }
    }
    Ok(())
}

fn run_share(runtime: &Runtime, plan: &Plan, place: Place, share: Share) -> Result<Cost> {
    let topology = topology(WORK, true);
    let processors: Arc<dyn ProcessorSupplier> = match place {
        Place::Native => Arc::new(NativeSupplier::new(topology, |_| Fragile)),
        Place::Sandbox => guest(runtime, "fragile", topology)?,
    };
    let records = plan.records;
    let poison = (0..records).filter(|&index| share.is_poison(index, records)).count() as u64;
    let protection = Protection { savepoints: true, dead_letters: true };
    let cost = run_one(processors, protection, (records, records - poison), |index| share.input(index, records))?;
    let found = cost.metrics.get(Metric::DeadLetters);
    ensure!(found == poison, "{found} of {poison} dead letters");
    Ok(cost)
}

fn line(place: Place, share: Share, costs: &[Cost], without: &[Cost]) -> String {
    let pairs = || costs.iter().zip(without);
    let letters = |cost: &Cost| cost.metrics.get(Metric::DeadLetters) as f64;
    let per_poison =
        pairs().map(|(cost, without)| (cost.cpu.as_secs_f64() - without.cpu.as_secs_f64()) * 1e6 / letters(cost));
    let calls = costs.iter().map(|cost| cost.metrics.get(Metric::IsolationCalls) as f64 / letters(cost));
    let has_poison = share.one_in > 0;
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        if place == Place::Native { "native" } else { "module" },
        share.name(),
        show(spread(costs.iter().map(Cost::k_records_per_second)), 0),
        show(spread(pairs().map(|(cost, without)| cost.k_records_per_second() / without.k_records_per_second())), 2),
        show(spread(costs.iter().map(Cost::cpu_us_per_record)), 2),
        if has_poison { show(spread(per_poison), 0) } else { String::new() },
        if has_poison { show(spread(calls), 1) } else { String::new() },
    )
}
