//! The flights of 2013 as records for tables: one topic by a number of their own, one by the aircraft's tail number, of
//! which the last one counts. Reads the checked-in CSV file.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use crate::repository;
use crate::weather::read_csv;

/// All flights, in the order of the file.
pub struct Flights {
    rows: Vec<Flight>,
}

struct Flight {
    id: String,
    /// 2,512 flights, most of them cancelled, have none.
    tail_number: Option<String>,
    value: Value,
}

impl Flights {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing or not what it should be.
    pub fn read() -> Result<Self> {
        let table = read_csv(&repository::root().join("examples/data/nycflights13/flights.csv.gz"))?;
        let columns = ["carrier", "flight", "origin", "dest", "dep_delay", "time_hour"];
        let places = columns.iter().map(|column| table.column(column)).collect::<Result<Vec<_>>>()?;
        let tail_number = table.column("tailnum")?;
        let rows = table.rows.iter().enumerate().map(|(number, row)| {
            let fields = columns.iter().zip(&places).map(|(column, &place)| ((*column).to_owned(), json!(row[place])));
            Flight {
                id: format!("f{number:06}"),
                tail_number: Some(row[tail_number].clone()).filter(|number| number != "NA"),
                value: Value::Object(fields.collect()),
            }
        });
        Ok(Self { rows: rows.collect() })
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Flights without a tail number: records without a key in the topic by tail number.
    pub fn without_tail_number(&self) -> usize {
        self.rows.iter().filter(|row| row.tail_number.is_none()).count()
    }

    /// A record for each, as lines for `sandbar topics produce`.
    pub fn lines_by_id(&self) -> String {
        self.rows.iter().map(|row| json!({ "key": row.id, "value": row.value }).to_string() + "\n").collect()
    }

    /// As `lines_by_id`, under the tail numbers.
    pub fn lines_by_tail_number(&self) -> String {
        self.rows.iter().map(|row| json!({ "key": row.tail_number, "value": row.value }).to_string() + "\n").collect()
    }

    /// What the table by number must hold.
    pub fn by_id(&self) -> BTreeMap<String, Value> {
        self.rows.iter().map(|row| (row.id.clone(), row.value.clone())).collect()
    }

    /// What the table by tail number must hold: the last flight of each aircraft.
    pub fn by_tail_number(&self) -> BTreeMap<String, Value> {
        self.rows.iter().filter_map(|row| Some((row.tail_number.clone()?, row.value.clone()))).collect()
    }
}
