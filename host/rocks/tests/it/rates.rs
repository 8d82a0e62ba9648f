//! Raw rates of a store, printed on demand: set `SANDBAR_RATES=<entries>` and run with `--nocapture`. Never a
//! judgement.

use std::time::Instant;

use bytes::Bytes;

use crate::folder::{Folder, open};

/// Wall clock and CPU time of this process so far, in seconds.
struct Watch(Instant, f64);

impl Watch {
    fn start() -> Self {
        Watch(Instant::now(), cpu_seconds())
    }

    fn report(&self, what: &str, entries: usize) {
        let (wall, cpu) = (self.0.elapsed().as_secs_f64(), cpu_seconds() - self.1);
        let each = |seconds: f64| seconds * 1e6 / entries as f64;
        eprintln!("{what}: {:.2} us CPU, {:.2} us wall an entry ({entries} entries)", each(cpu), each(wall));
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

#[test]
fn rates() {
    let Ok(entries) = std::env::var("SANDBAR_RATES") else { return };
    let entries: usize = entries.parse().expect("a number");
    let folder = Folder::new("rates");
    let provider = folder.provider();
    let mut store = open(&provider, "store");
    let key = |i: usize| Bytes::copy_from_slice(&((i.wrapping_mul(0x9e37_79b9) % 100_000) as u64).to_be_bytes());
    let value = Bytes::from(vec![b'x'; 100]);
    for batch in [100, 1_000] {
        let watch = Watch::start();
        for start in (0..entries).step_by(batch) {
            let writes: Vec<_> = (start..start + batch).map(|i| (key(i), Some(value.clone()))).collect();
            store.write(&writes, Some(start as i64)).expect("write");
        }
        watch.report(&format!("write, batches of {batch}"), entries);
    }
    for flushed in [false, true] {
        if flushed {
            store.flush().expect("flush");
        }
        let state = if flushed { "in tables" } else { "in memory too" };
        for batch in [100, 1_000] {
            let watch = Watch::start();
            let mut bytes = 0;
            for start in (0..entries).step_by(batch) {
                let keys: Vec<_> = (start..start + batch).map(key).collect();
                let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                store.get_many(&keys, &mut |_, value| bytes += value.map_or(0, <[u8]>::len)).expect("get");
            }
            watch.report(&format!("get_many, batches of {batch}, {state}"), entries);
            assert_eq!(bytes, entries * 100);
        }
        let watch = Watch::start();
        for i in 0..entries {
            assert!(store.get(&key(i)).expect("get").is_some());
        }
        watch.report(&format!("get, {state}"), entries);
    }
}
