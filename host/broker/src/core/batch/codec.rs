//! The codecs of record batches: gzip, snappy in xerial's framing (or bare, as librdkafka may send it), lz4 frames,
//! zstd. Decompression is bounded: a batch that would grow beyond `decompressed_bytes_max` is an error and takes no
//! more memory than that. Pure Rust throughout; zstd is written at its fastest level only.

use std::borrow::Cow;
use std::io::{Read, Write};

/// What every batch may grow to, however small it came.
const DECOMPRESSED_BYTES_MIN: usize = 64 * 1024 * 1024;
/// How many times its size a larger batch may grow.
const GROWTH_MAX: usize = 16;

/// Xerial's stream header: a magic, the version and the oldest version that can read it.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// The codec of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Why a batch's records cannot be seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("unknown compression {0}")]
    Unknown(i16),
    #[error("the records decompress to more than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("the records do not decompress as {codec:?}: {detail}")]
    Damaged { codec: Codec, detail: String },
}

/// The most bytes that `length` compressed bytes may become.
pub fn decompressed_bytes_max(length: usize) -> usize {
    length.saturating_mul(GROWTH_MAX).max(DECOMPRESSED_BYTES_MIN)
}

impl Codec {
    /// From a batch's attributes.
    pub fn of(compression: i16) -> Result<Self, CodecError> {
        match compression {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(CodecError::Unknown(other)),
        }
    }

    /// The bytes behind `bytes`, at most `limit_bytes` of them.
    pub fn decompress<'a>(self, bytes: &'a [u8], limit_bytes: usize) -> Result<Cow<'a, [u8]>, CodecError> {
        match self {
            Self::None => Ok(Cow::Borrowed(bytes)),
            Self::Gzip => self.read_bounded(flate2::bufread::MultiGzDecoder::new(bytes), limit_bytes),
            Self::Snappy => self.unsnap(bytes, limit_bytes),
            Self::Lz4 => self.read_bounded(lz4_flex::frame::FrameDecoder::new(bytes), limit_bytes),
            Self::Zstd => {
                let decoder = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|error| self.damaged(error))?;
                self.read_bounded(decoder, limit_bytes)
            }
        }
    }

    fn damaged(self, error: impl ToString) -> CodecError {
        CodecError::Damaged { codec: self, detail: error.to_string() }
    }

    fn read_bounded(self, source: impl Read, limit_bytes: usize) -> Result<Cow<'static, [u8]>, CodecError> {
        let mut decompressed = Vec::new();
        let most = u64::try_from(limit_bytes).unwrap_or(u64::MAX).saturating_add(1);
        source.take(most).read_to_end(&mut decompressed).map_err(|error| self.damaged(error))?;
        match decompressed.len() > limit_bytes {
            true => Err(CodecError::TooLarge { limit_bytes }),
            false => Ok(Cow::Owned(decompressed)),
        }
    }

    fn unsnap(self, bytes: &[u8], limit_bytes: usize) -> Result<Cow<'static, [u8]>, CodecError> {
        let mut decompressed = Vec::new();
        if !bytes.starts_with(XERIAL_MAGIC) {
            self.unsnap_block(bytes, limit_bytes, &mut decompressed)?;
            return Ok(Cow::Owned(decompressed));
        }
        let mut rest = bytes.get(XERIAL_HEADER.len()..).ok_or_else(|| self.damaged("no stream header"))?;
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(|| self.damaged("a block is cut short"))?;
            let length = u32::from_be_bytes(*length) as usize;
            let (block, tail) = tail.split_at_checked(length).ok_or_else(|| self.damaged("a block is cut short"))?;
            self.unsnap_block(block, limit_bytes, &mut decompressed)?;
            rest = tail;
        }
        Ok(Cow::Owned(decompressed))
    }

    fn unsnap_block(self, block: &[u8], limit_bytes: usize, decompressed: &mut Vec<u8>) -> Result<(), CodecError> {
        let length = snap::raw::decompress_len(block).map_err(|error| self.damaged(error))?;
        let start = decompressed.len();
        if length > limit_bytes - start {
            return Err(CodecError::TooLarge { limit_bytes });
        }
        decompressed.resize(start + length, 0);
        let target = decompressed.get_mut(start..).unwrap_or_default();
        snap::raw::Decoder::new().decompress(block, target).map(drop).map_err(|error| self.damaged(error))
    }

    /// `bytes` in this codec; `None` when it could not be written.
    pub fn compress(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::None => Some(bytes.to_vec()),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).ok()?;
                encoder.finish().ok()
            }
            Self::Snappy => {
                let mut compressed = XERIAL_HEADER.to_vec();
                for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
                    let block = snap::raw::Encoder::new().compress_vec(block).ok()?;
                    compressed.extend_from_slice(&u32::try_from(block.len()).ok()?.to_be_bytes());
                    compressed.extend_from_slice(&block);
                }
                Some(compressed)
            }
            Self::Lz4 => {
                // Java's reader takes independent blocks only.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent)
                    .block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(bytes).ok()?;
                encoder.finish().ok()
            }
            Self::Zstd => Some(ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)),
        }
    }
}

#[cfg(test)]
mod tests;
