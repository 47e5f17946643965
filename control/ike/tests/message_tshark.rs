//! tshark reads what we write: the same payloads in the same order, and nothing malformed.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use pollux_ike::message::{ExchangeType, Message, PayloadType, Writer};
use support::{header, init, write_all};

/// A capture file with one UDP datagram from port 500 to port 500, over raw IPv4 (link type 101).
fn capture(datagram: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + datagram.len()).expect("short");
    let mut ip = vec![0x45, 0];
    ip.extend_from_slice(&(20 + udp_len).to_be_bytes());
    ip.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 1, 0xf4, 1, 0xf4]);
    ip.extend_from_slice(&udp_len.to_be_bytes());
    ip.extend_from_slice(&[0, 0]);
    ip.extend_from_slice(datagram);
    let len = u32::try_from(ip.len()).expect("short").to_le_bytes();
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0];
    file.extend_from_slice(&[0; 8]);
    file.extend_from_slice(&len);
    file.extend_from_slice(&len);
    file.extend_from_slice(&ip);
    file
}

/// What tshark says in these fields, separated by tabs; `None` where it is not installed.
fn tshark(datagram: &[u8], fields: &[&str]) -> Option<String> {
    let mut command = Command::new("tshark");
    command.args(["-r", "-", "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    child.stdin.take().expect("piped").write_all(&capture(datagram)).expect("tshark reads");
    let output = child.wait_with_output().expect("tshark ends");
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The types of all payloads of a message in clear, as tshark lists `isakmp.typepayload`.
fn kinds(datagram: &[u8]) -> String {
    let message = Message::parse(datagram).expect("our own message");
    let numbers: Vec<String> = message.payloads.kinds().map(|kind| kind.to_wire().to_string()).collect();
    numbers.join(",")
}

#[test]
fn tshark_finds_the_payloads_that_we_wrote_and_nothing_malformed() {
    let mut writer = Writer::new(&header(ExchangeType::IkeAuth, false));
    write_all(&mut writer);
    let all = writer.finish().expect("all lengths fit");
    for (what, datagram) in [("IKE_SA_INIT", init()), ("every payload", all)] {
        let Some(seen) = tshark(&datagram, &["_ws.malformed", "isakmp.length"]) else {
            println!("skipped: tshark is not installed");
            return;
        };
        assert_eq!(seen.trim(), datagram.len().to_string(), "{what}: malformed, or another length");
        let listed = tshark(&datagram, &["isakmp.typepayload"]).expect("it ran a moment ago");
        // Proposals (2) and transforms (3) are payloads in its eyes.
        let payloads: Vec<&str> = listed.split(',').filter(|kind| !matches!(*kind, "2" | "3")).collect();
        assert_eq!(payloads.join(","), kinds(&datagram), "{what}");
    }
}

#[test]
fn tshark_reads_the_values_that_we_wrote() {
    let fields = ["isakmp.tf.id.encr", "isakmp.key_exchange.dh_group", "isakmp.notify.msgtype"];
    let Some(seen) = tshark(&init(), &fields) else {
        println!("skipped: tshark is not installed");
        return;
    };
    assert_eq!(seen, "20,20\t31\t16388,16389,16430");
    assert!(kinds(&init()).starts_with(&PayloadType::Sa.to_wire().to_string()));
}
