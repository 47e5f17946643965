//! Streams of RTP in a capture: what was received and how evenly (RFC 3550 §6.4.1).

use std::collections::HashMap;
use std::net::IpAddr;

use crate::capture::Frame;

/// RTP clock of G.711, in hertz.
const CLOCK_HZ: f64 = 8000.0;

/// One stream: addresses and ports.
type Flow = (IpAddr, u16, IpAddr, u16);

/// What a capture says of its RTP streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Streams seen.
    pub streams: usize,
    /// Packets in all streams.
    pub packets: u64,
    /// Mean interarrival jitter over the streams, in milliseconds.
    pub jitter_ms_mean: f64,
    /// Largest jitter of any stream, in milliseconds.
    pub jitter_ms_max: f64,
}

#[derive(Default)]
struct Stream {
    packets: u64,
    last: Option<(f64, f64)>,
    jitter: f64,
}

/// Sums up the RTP streams towards `destination`.
pub fn summary(frames: &[Frame], destination: IpAddr) -> Summary {
    let mut streams: HashMap<Flow, Stream> = HashMap::new();
    for frame in frames {
        let Some((flow, timestamp)) = rtp(frame).filter(|(flow, _)| flow.2 == destination) else { continue };
        let stream = streams.entry(flow).or_default();
        stream.packets += 1;
        let arrival = frame.time.as_secs_f64() * CLOCK_HZ;
        if let Some((last_arrival, last_timestamp)) = stream.last {
            let difference = (arrival - last_arrival) - (timestamp - last_timestamp);
            stream.jitter += (difference.abs() - stream.jitter) / 16.0;
        }
        stream.last = Some((arrival, timestamp));
    }
    let jitters: Vec<f64> = streams.values().map(|stream| stream.jitter / CLOCK_HZ * 1000.0).collect();
    #[expect(clippy::cast_precision_loss, reason = "a few thousand streams")]
    let count = jitters.len().max(1) as f64;
    Summary {
        streams: streams.len(),
        packets: streams.values().map(|stream| stream.packets).sum(),
        jitter_ms_mean: jitters.iter().sum::<f64>() / count,
        jitter_ms_max: jitters.into_iter().fold(0.0, f64::max),
    }
}

/// Payload type of G.711 A-law (RFC 3551); the events that SIPp plays too run on a clock of their own.
const PCMA: u8 = 8;

/// Flow and timestamp of a G.711 packet: UDP, version 2, a media port.
fn rtp(frame: &Frame) -> Option<(Flow, f64)> {
    let ip = frame.ip().filter(|ip| ip.protocol == 17)?;
    let port = |at: usize| Some(u16::from_be_bytes(*ip.payload.get(at..)?.first_chunk()?));
    let (source, destination) = (port(0)?, port(2)?);
    let payload = ip.payload.get(8..)?;
    if payload.len() < 12
        || payload[0] >> 6 != 2
        || payload[1] & 0x7f != PCMA
        || source == 5060
        || destination == 5060
    {
        return None;
    }
    let timestamp = u32::from_be_bytes(*payload.get(4..)?.first_chunk()?);
    Some(((ip.source, source, ip.destination, destination), f64::from(timestamp)))
}
