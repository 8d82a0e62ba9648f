//! Which requests are served, in which versions, and what each looks like on the wire. A request is walked along its
//! shape before it is decoded, so that a length that lies costs nothing. Shapes from Kafka's message definitions,
//! version 4.3.

use kafka_protocol::messages::ApiKey;

/// One request the broker serves.
pub struct Api {
    pub key: ApiKey,
    pub min: i16,
    pub max: i16,
    /// The first version with compact lengths and tagged fields.
    flexible: i16,
    /// From which version on the body has which fields: `b` 8-bit number or boolean, `h` 16, `i` 32, `l` 64 bits, `u`
    /// uuid, `s` string, `y` bytes, `[…]` array of one field, `{…}` array of structures.
    shapes: &'static [(i16, &'static str)],
}

const fn api(
    key: ApiKey,
    versions: std::ops::RangeInclusive<i16>,
    flexible: i16,
    shapes: &'static [(i16, &'static str)],
) -> Api {
    Api { key, min: *versions.start(), max: *versions.end(), flexible, shapes }
}

const NEVER: i16 = i16::MAX;

/// Everything that is served; what is not here is not advertised.
pub const APIS: &[Api] = &[
    api(ApiKey::Produce, 3..=10, 9, &[(3, "shi{s{iy}}")]),
    api(
        ApiKey::Fetch,
        4..=12,
        12,
        &[
            (4, "iiiib{s{ili}}"),
            (5, "iiiib{s{illi}}"),
            (7, "iiiibii{s{illi}}{s[i]}"),
            (9, "iiiibii{s{iilli}}{s[i]}"),
            (11, "iiiibii{s{iilli}}{s[i]}s"),
            (12, "iiiibii{s{iilili}}{s[i]}s"),
        ],
    ),
    api(ApiKey::ListOffsets, 1..=10, 6, &[(1, "i{s{il}}"), (2, "ib{s{il}}"), (4, "ib{s{iil}}"), (10, "ib{s{iil}}i")]),
    api(ApiKey::Metadata, 0..=12, 9, &[(0, "{s}"), (4, "{s}b"), (8, "{s}bbb"), (10, "{us}bbb"), (11, "{us}bb")]),
    api(
        ApiKey::OffsetCommit,
        2..=8,
        8,
        &[(2, "sisl{s{ils}}"), (5, "sis{s{ils}}"), (6, "sis{s{ilis}}"), (7, "siss{s{ilis}}")],
    ),
    api(ApiKey::OffsetFetch, 1..=8, 6, &[(1, "s{s[i]}"), (7, "s{s[i]}b"), (8, "{s{s[i]}}b")]),
    api(ApiKey::FindCoordinator, 0..=4, 3, &[(0, "s"), (1, "sb"), (4, "b[s]")]),
    api(ApiKey::JoinGroup, 0..=9, 6, &[(0, "siss{sy}"), (1, "siiss{sy}"), (5, "siisss{sy}"), (8, "siisss{sy}s")]),
    api(ApiKey::Heartbeat, 0..=4, 4, &[(0, "sis"), (3, "siss")]),
    api(ApiKey::LeaveGroup, 0..=5, 4, &[(0, "ss"), (3, "s{ss}"), (5, "s{sss}")]),
    api(ApiKey::SyncGroup, 0..=5, 4, &[(0, "sis{sy}"), (3, "siss{sy}"), (5, "sissss{sy}")]),
    api(ApiKey::DescribeGroups, 0..=5, 5, &[(0, "[s]"), (3, "[s]b")]),
    api(ApiKey::ListGroups, 0..=5, 3, &[(0, ""), (4, "[s]"), (5, "[s][s]")]),
    api(ApiKey::ApiVersions, 0..=4, 3, &[(0, ""), (3, "ss")]),
    api(ApiKey::CreateTopics, 2..=7, 5, &[(2, "{sih{i[i]}{ss}}ib")]),
    api(ApiKey::DeleteTopics, 1..=6, 4, &[(1, "[s]i"), (6, "{su}i")]),
    api(ApiKey::DeleteRecords, 0..=2, 2, &[(0, "{s{il}}i")]),
    api(ApiKey::InitProducerId, 0..=4, 2, &[(0, "si"), (3, "silh")]),
    api(ApiKey::AddPartitionsToTxn, 0..=3, 3, &[(0, "slh{s[i]}")]),
    api(ApiKey::AddOffsetsToTxn, 0..=3, 3, &[(0, "slhs")]),
    api(ApiKey::EndTxn, 0..=3, 3, &[(0, "slhb")]),
    api(ApiKey::TxnOffsetCommit, 0..=3, 3, &[(0, "sslh{s{ils}}"), (2, "sslh{s{ilis}}"), (3, "sslhiss{s{ilis}}")]),
    api(ApiKey::DescribeProducers, 0..=0, 0, &[(0, "{s[i]}")]),
    api(ApiKey::DescribeTransactions, 0..=0, 0, &[(0, "[s]")]),
    api(ApiKey::ListTransactions, 0..=1, 0, &[(0, "[s][l]"), (1, "[s][l]l")]),
    api(ApiKey::OffsetForLeaderEpoch, 2..=4, 4, &[(2, "{s{iii}}"), (3, "i{s{iii}}")]),
    api(ApiKey::DescribeConfigs, 1..=4, 4, &[(1, "{bs[s]}b"), (3, "{bs[s]}bb")]),
    api(ApiKey::AlterConfigs, 0..=2, 2, &[(0, "{bs{ss}}b")]),
    api(ApiKey::DescribeLogDirs, 1..=4, 2, &[(1, "{s[i]}")]),
    api(ApiKey::CreatePartitions, 0..=3, 2, &[(0, "{si{[i]}}ib")]),
    api(ApiKey::DeleteGroups, 0..=2, 2, &[(0, "[s]")]),
    api(ApiKey::IncrementalAlterConfigs, 0..=1, 1, &[(0, "{bs{sbs}}b")]),
    api(ApiKey::OffsetDelete, 0..=0, NEVER, &[(0, "s{s{i}}")]),
    api(ApiKey::DescribeCluster, 0..=1, 0, &[(0, "b"), (1, "bb")]),
];

/// The most array elements and tagged fields of one request. Decoded and answered, each takes a hundred times the three
/// bytes that it may have on the wire.
pub(crate) const ELEMENTS_MAX: usize = 200_000;
/// The longest string, in the compact form too (Kafka's own bound): what came in must go out in an older version.
pub(crate) const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Why a request is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the request ends inside of a field")]
    Short,
    #[error("a length of {length} where {left} bytes are left")]
    Length { length: i64, left: usize },
    #[error("a number of more than five bytes")]
    Number,
    #[error("a string is not UTF-8")]
    Text,
    #[error("a string of {0} bytes, at most {STRING_BYTES_MAX} are allowed")]
    LongText(usize),
    #[error("more than {ELEMENTS_MAX} array elements and tagged fields")]
    TooMany,
}

impl Api {
    /// The entry of a request.
    pub fn find(key: i16) -> Option<&'static Api> {
        APIS.iter().find(|api| api.key as i16 == key)
    }

    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// Walks a request's body. Bytes after the last field are let pass, as Kafka does: librdkafka sends three of them
    /// when it asks for all topics (`rd_kafka_MetadataRequest`, version 9 on, leaves a four-byte zero for a null
    /// array).
    pub fn check(&self, version: i16, body: &[u8]) -> Result<(), Malformed> {
        let shape = self.shapes.iter().rev().find(|(from, _)| *from <= version).map_or("", |(_, shape)| *shape);
        let mut walk = Walk::new(body, self.is_flexible(version));
        walk.fields(shape.as_bytes())?;
        walk.tags()
    }
}

/// Reads a request's bytes front to back.
pub struct Walk<'a> {
    pub rest: &'a [u8],
    pub flexible: bool,
    elements_left: usize,
}

impl<'a> Walk<'a> {
    pub fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self { rest: bytes, flexible, elements_left: ELEMENTS_MAX }
    }

    fn count_elements(&mut self, count: usize) -> Result<(), Malformed> {
        self.elements_left = self.elements_left.checked_sub(count).ok_or(Malformed::TooMany)?;
        Ok(())
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Malformed::Short)?;
        self.rest = tail;
        Ok(head)
    }

    pub fn int16(&mut self) -> Result<i16, Malformed> {
        self.take(2)?.try_into().map(i16::from_be_bytes).map_err(|_| Malformed::Short)
    }

    pub fn int32(&mut self) -> Result<i32, Malformed> {
        self.take(4)?.try_into().map(i32::from_be_bytes).map_err(|_| Malformed::Short)
    }

    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or(0);
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed::Number);
            }
        }
        Err(Malformed::Number)
    }

    /// A length or -1 for null, at most what is left.
    fn length(&mut self, wide: bool) -> Result<usize, Malformed> {
        let length = match (self.flexible, wide) {
            (true, _) => i64::from(self.varint()?) - 1,
            (false, true) => i64::from(self.int32()?),
            (false, false) => i64::from(self.int16()?),
        };
        match usize::try_from(length) {
            _ if length == -1 => Ok(0),
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(Malformed::Length { length, left: self.rest.len() }),
        }
    }

    pub fn string(&mut self) -> Result<&'a str, Malformed> {
        let length = self.length(false)?;
        if length > STRING_BYTES_MAX {
            return Err(Malformed::LongText(length));
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed::Text)
    }

    /// Tagged fields at the end of a structure.
    pub fn tags(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.varint()?;
        self.count_elements(count as usize)?;
        for _ in 0..count {
            self.varint()?;
            let length = self.varint()? as usize;
            if length > self.rest.len() {
                return Err(Malformed::Length { length: length as i64, left: self.rest.len() });
            }
            self.take(length)?;
        }
        Ok(())
    }

    fn fields(&mut self, shape: &[u8]) -> Result<(), Malformed> {
        let mut at = 0;
        while let Some(&field) = shape.get(at) {
            at += 1;
            match field {
                b'b' => drop(self.take(1)?),
                b'h' => drop(self.take(2)?),
                b'i' => drop(self.take(4)?),
                b'l' => drop(self.take(8)?),
                b'u' => drop(self.take(16)?),
                b's' => drop(self.string()?),
                b'y' => {
                    let length = self.length(true)?;
                    self.take(length)?;
                }
                _ => {
                    let end = closing(shape, at);
                    let inner = shape.get(at..end).unwrap_or_default();
                    let count = self.length(true)?;
                    self.count_elements(count)?;
                    for _ in 0..count {
                        self.fields(inner)?;
                        if field == b'{' {
                            self.tags()?;
                        }
                    }
                    at = end + 1;
                }
            }
        }
        Ok(())
    }
}

/// Where the bracket that was opened just before `from` closes.
fn closing(shape: &[u8], from: usize) -> usize {
    let mut depth = 1;
    for (at, byte) in shape.iter().enumerate().skip(from) {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    shape.len()
}

#[cfg(test)]
mod tests;
