//! IKE messages as the outside sees them, a line each: who asks for what, and what stands in clear.

use std::net::IpAddr;
use std::time::Duration;

use pollux_lab::capture::{Frame, Kind};

/// The UDP port at which a message has four zero octets in front (RFC 3948 §2.2).
const NAT_T: u16 = 4500;

/// The IKE messages among these frames.
pub(crate) fn lines(frames: &[Frame]) -> Vec<String> {
    let mut first: Option<Duration> = None;
    frames
        .iter()
        .filter(|frame| frame.kind() == Kind::Ike)
        .filter_map(|frame| {
            let ip = frame.ip()?;
            let ports = *ip.payload.first_chunk::<4>()?;
            let marked = [[ports[0], ports[1]], [ports[2], ports[3]]].contains(&NAT_T.to_be_bytes());
            let message = ip.payload.get(if marked { 12 } else { 8 }..)?;
            let since = frame.time.saturating_sub(*first.get_or_insert(frame.time));
            line(since, (ip.source, ip.destination), message, marked)
        })
        .collect()
}

fn line(since: Duration, ends: (IpAddr, IpAddr), message: &[u8], marked: bool) -> Option<String> {
    let (&kind, &exchange, &flags) = (message.get(16)?, message.get(18)?, message.get(19)?);
    let id = u32::from_be_bytes(*message.get(20..)?.first_chunk()?);
    let exchange = match exchange {
        34 => "IKE_SA_INIT".to_owned(),
        35 => "IKE_AUTH".to_owned(),
        36 => "CREATE_CHILD_SA".to_owned(),
        37 => "INFORMATIONAL".to_owned(),
        other => format!("exchange {other}"),
    };
    let what = if flags & 0x20 == 0 { "request" } else { "response" };
    Some(format!(
        "{:>8.1} ms  {} → {}{}  {exchange} {what} {id}, {} octets: {}",
        since.as_secs_f64() * 1e3,
        ends.0,
        ends.1,
        if marked { " (4500)" } else { "" },
        message.len(),
        payloads(kind, message.get(28..)?),
    ))
}

/// The payloads of a chain by their names, up to the encrypted one: what is in there is between the gateways.
fn payloads(mut kind: u8, mut rest: &[u8]) -> String {
    let mut names = Vec::new();
    while let (1.., Some(&[next, _, high, low])) = (kind, rest.first_chunk()) {
        let Some((payload, behind)) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])).max(4))
        else {
            break;
        };
        if kind == 46 {
            names.push("SK { encrypted }".to_owned());
            break;
        }
        names.push(name(kind, payload));
        (kind, rest) = (next, behind);
    }
    names.join(", ")
}

fn name(kind: u8, payload: &[u8]) -> String {
    let at = |at: usize| {
        payload.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u16::from_be_bytes(*n))
    };
    match kind {
        33 => "SA".to_owned(),
        34 => format!("KE (group {})", at(4)),
        40 => "nonce".to_owned(),
        43 => "vendor id".to_owned(),
        41 => match at(6) {
            14 => "N(NO_PROPOSAL_CHOSEN)".to_owned(),
            17 => "N(INVALID_KE_PAYLOAD)".to_owned(),
            16388 => "N(NAT_DETECTION_SOURCE_IP)".to_owned(),
            16389 => "N(NAT_DETECTION_DESTINATION_IP)".to_owned(),
            16390 => "N(COOKIE)".to_owned(),
            other => format!("N({other})"),
        },
        other => format!("payload {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_as_its_header_and_what_stands_in_clear() {
        let mut message = vec![7; 16];
        message.extend([33, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 60]);
        message.extend([
            34, 0, 0, 4, 41, 0, 0, 12, 0, 31, 0, 0, 1, 2, 3, 4, 46, 0, 0, 8, 0, 0, 64, 4, 0, 0, 0, 8, 9, 9,
            9, 9,
        ]);
        let ends = ([192, 0, 2, 2].into(), [198, 51, 100, 2].into());
        assert_eq!(
            line(Duration::from_micros(1_500), ends, &message, false).expect("a message"),
            "     1.5 ms  192.0.2.2 → 198.51.100.2  IKE_SA_INIT response 0, 60 octets: SA, KE (group 31), \
             N(NAT_DETECTION_SOURCE_IP), SK { encrypted }"
        );
        // Cut off anywhere, it is shorter and no more.
        for len in 0..message.len() {
            let _ = line(Duration::ZERO, ends, &message[..len], true);
        }
    }
}
