//! Fragmentation of an IPv4 packet before encryption (RFC 791 §2.3, RFC 4301 §8.2), so that the tunnel's
//! other end need not reassemble ESP packets.

use pollux_abi::DropReason;
use pollux_packet::ipv4::{self, Ipv4};
use pollux_packet::{Fragment, Meta, Packet, Verdict};

/// The least MTU of IPv4 (RFC 791 §3.2): a header with all options and eight octets.
pub const MTU_LEAST: u16 = 68;

/// Copies `packet` into fragments of at most `mtu` octets, each in a frame that `frame` gives: empty, with
/// its headroom set. Each goes to `sink` with verdict pending and the ports of the whole packet in its
/// flow, so that all take the way of the whole. The original stays, for the caller to reclaim.
///
/// # Errors
/// `TooBig` where the packet may not be fragmented, `NoHeadroom` where frames ran out or are too small;
/// fragments made by then have gone to `sink`, and the receiver will time out on them.
pub fn split(
    packet: &Packet,
    meta: Meta,
    mtu: u16,
    mut frame: impl FnMut() -> Option<Packet>,
    mut sink: impl FnMut(Packet, Meta),
) -> Result<(), DropReason> {
    let view = Ipv4::parse(packet.data()).ok_or(DropReason::Malformed)?;
    if view.dont_fragment() || mtu < MTU_LEAST {
        return Err(DropReason::TooBig);
    }
    let header = packet.data().get(..view.header_len()).ok_or(DropReason::Malformed)?;
    let room = (usize::from(mtu) - header.len()) & !7;
    let mut offset = view.fragment_offset();
    let mut pieces = view.payload().chunks(room).peekable();
    while let Some(piece) = pieces.next() {
        let mut fragment = frame().ok_or(DropReason::NoHeadroom)?;
        if !fragment.extend(header) || !fragment.extend(piece) {
            return Err(DropReason::NoHeadroom);
        }
        if offset > 0 {
            blank_options(fragment.data_mut(), header.len());
        }
        let more = pieces.peek().is_some() || view.more_fragments();
        let total_len = u16::try_from(fragment.len()).map_err(|_| DropReason::TooBig)?;
        ipv4::set_fragment(fragment.data_mut(), total_len, offset, more);
        let part = if offset == 0 { Fragment::First } else { Fragment::Later };
        sink(fragment, Meta { fragment: part, verdict: Verdict::Pending, ..meta });
        offset += piece.len();
    }
    Ok(())
}

/// Turns options that only the first fragment carries into no-operations.
fn blank_options(packet: &mut [u8], header_len: usize) {
    let Some(options) = packet.get_mut(ipv4::HEADER_LEN..header_len) else { return };
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let len = match (kind, options.get(at + 1)) {
            (END, _) => return,
            (NO_OPERATION, _) => 1,
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => return,
        };
        if kind & COPIED == 0
            && let Some(option) = options.get_mut(at..at + len)
        {
            option.fill(NO_OPERATION);
        }
        at += len;
    }
}

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const COPIED: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_packet::{Flow, FrameId};

    fn frame() -> Packet {
        Packet::empty(Box::leak(vec![0; 2048].into_boxed_slice()), FrameId::new(1), 128)
    }

    fn packet(options: &[u8], payload: &[u8], dont_fragment: bool) -> Packet {
        let total_len = u16::try_from(20 + options.len() + payload.len()).expect("short");
        let header = ipv4::Header {
            source: [10, 0, 0, 1],
            destination: [10, 0, 0, 2],
            protocol: 17,
            ttl: 9,
            identification: 77,
            dont_fragment,
            total_len,
            ..ipv4::Header::default()
        };
        let mut octets = header.to_bytes();
        octets[0] = 0x45 + u8::try_from(options.len() / 4).expect("short");
        let mut packet = frame();
        assert!(packet.extend(&octets) && packet.extend(options) && packet.extend(payload));
        packet
    }

    fn fragments(packet: &Packet, mtu: u16) -> Result<Vec<Vec<u8>>, DropReason> {
        let flow = Flow::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17, 5, 6).expect("one version");
        let mut list = Vec::new();
        split(
            packet,
            Meta { flow, ..Meta::default() },
            mtu,
            || Some(frame()),
            |fragment, meta| {
                assert!(meta.flow.has_ports, "all fragments go the way of the whole");
                list.push(fragment.data().to_vec());
            },
        )?;
        Ok(list)
    }

    #[test]
    fn fragments_join_to_the_whole() {
        let payload: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        // Record route is for the first fragment alone; router alert is copied.
        let options = [7, 4, 4, 0, 0x94, 4, 0, 0];
        let whole = packet(&options, &payload, false);
        let list = fragments(&whole, 300).expect("it may be fragmented");
        let mut joined: Vec<u8> = Vec::new();
        for (at, octets) in list.iter().enumerate() {
            let view = Ipv4::parse(octets).expect("whole");
            assert!(octets.len() <= 300 && view.checksum_holds());
            assert_eq!(view.fragment_offset(), joined.len());
            assert_eq!(view.more_fragments(), at + 1 < list.len());
            assert_eq!(octets[4..6], 77u16.to_be_bytes());
            assert_eq!(octets[24..28], options[4..]);
            assert_eq!(octets[20] == 7, at == 0);
            joined.extend(view.payload());
        }
        assert_eq!(joined, payload);
        assert!(list.len() > 3);
    }

    #[test]
    fn fragments_of_fragments_keep_their_place() {
        let whole = packet(&[], &[1; 800], false);
        let second = &fragments(&whole, 420).expect("fragments")[1];
        let mut again = frame();
        assert!(again.extend(second));
        let list = fragments(&again, 220).expect("fragments");
        let offsets: Vec<usize> =
            list.iter().map(|f| Ipv4::parse(f).expect("whole").fragment_offset()).collect();
        assert_eq!(offsets, [400, 600]);
        assert!(Ipv4::parse(&list[0]).expect("whole").more_fragments());
    }

    #[test]
    fn df_and_missing_frames_end_it() {
        assert_eq!(fragments(&packet(&[], &[1; 800], true), 420), Err(DropReason::TooBig));
        assert_eq!(fragments(&packet(&[], &[1; 800], false), 67), Err(DropReason::TooBig));
        let none = split(&packet(&[], &[1; 800], false), Meta::default(), 420, || None, |_, _| {});
        assert_eq!(none, Err(DropReason::NoHeadroom));
    }
}
