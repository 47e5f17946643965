//! The three messages of the handshake as octets, little-endian, of fixed length.

use pollux_abi::layout::{ABI_VERSION, MAGIC, SPI_INDEX_WIDTH_MAX, WORKERS_MAX};

use super::{AttachReply, Refusal};

pub(super) const HELLO_LEN: usize = 8;
pub(super) const ANSWER_LEN: usize = 64;

const WELCOME: u32 = 0;
const USER: u32 = 1;
const ATTACHED: u32 = 2;
const VERSION: u32 = 3;

pub(super) fn hello() -> [u8; HELLO_LEN] {
    let mut octets = [0; HELLO_LEN];
    octets[..4].copy_from_slice(&MAGIC.to_le_bytes());
    octets[4..].copy_from_slice(&ABI_VERSION.to_le_bytes());
    octets
}

pub(super) fn hello_version(octets: [u8; HELLO_LEN]) -> Option<u32> {
    let [magic, version] = words(&octets)?;
    (magic == MAGIC).then_some(version)
}

pub(super) fn refusal(refusal: Refusal) -> [u8; ANSWER_LEN] {
    match refusal {
        Refusal::User { uid } => answer_of([USER, uid, 0, 0], &[0; 32]),
        Refusal::Attached { pid } => answer_of([ATTACHED, pid, 0, 0], &[0; 32]),
        Refusal::Version { dataplane, control } => answer_of([VERSION, dataplane, control, 0], &[0; 32]),
    }
}

pub(super) fn attach_reply(attach_reply: &AttachReply) -> [u8; ANSWER_LEN] {
    let AttachReply { workers, spi_index_width, sa_capacity, fingerprint_key } = attach_reply;
    answer_of([WELCOME, u32::from(*workers), *spi_index_width, *sa_capacity], fingerprint_key)
}

/// The answer in `octets`; `None` if no data plane of this release sends such a one.
pub(super) fn answer(octets: &[u8]) -> Option<Result<AttachReply, Refusal>> {
    let octets: &[u8; ANSWER_LEN] = octets.try_into().ok()?;
    let (head, rest) = octets.split_first_chunk::<20>()?;
    let [magic, kind, a, b, c] = words(head)?;
    if magic != MAGIC {
        return None;
    }
    Some(match kind {
        WELCOME => {
            let workers = u16::try_from(a).ok().filter(|workers| (1..=WORKERS_MAX).contains(workers))?;
            if b > SPI_INDEX_WIDTH_MAX {
                return None;
            }
            let fingerprint_key = *rest.first_chunk()?;
            Ok(AttachReply { workers, spi_index_width: b, sa_capacity: c, fingerprint_key })
        }
        USER => Err(Refusal::User { uid: a }),
        ATTACHED => Err(Refusal::Attached { pid: a }),
        VERSION => Err(Refusal::Version { dataplane: a, control: b }),
        _ => return None,
    })
}

fn answer_of(fields: [u32; 4], key: &[u8; 32]) -> [u8; ANSWER_LEN] {
    let mut octets = [0; ANSWER_LEN];
    octets[..4].copy_from_slice(&MAGIC.to_le_bytes());
    for (place, field) in octets[4..20].as_chunks_mut::<4>().0.iter_mut().zip(fields) {
        *place = field.to_le_bytes();
    }
    octets[20..52].copy_from_slice(key);
    octets
}

fn words<const N: usize>(octets: &[u8]) -> Option<[u32; N]> {
    let words = octets.as_chunks::<4>().0.first_chunk::<N>()?;
    Some(words.map(u32::from_le_bytes))
}
